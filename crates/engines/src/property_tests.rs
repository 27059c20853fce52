//! Whatever an engine writes, nothing here panics (the proxy must survive its children).

use domain::{FailureReport, without_paths};
use proptest::prelude::*;
use supervisor::{ExitReport, OutputLine, OutputStream};

use crate::{FailurePhase, StartWatch, failure, log_line};

fn words() -> impl Strategy<Value = String> {
    // Pieces of real lines between arbitrary text reach further into the parsers than noise alone.
    let piece = prop_oneof![
        ".{0,12}",
        Just("cmd_child_to_router:state:".to_owned()),
        Just(r#"{"state":"loading","payload":{"stages":[],"current":"x","value":1e99}}"#.to_owned()),
        Just(r#"{"type":"log","level":"error","msg":""#.to_owned()),
        Just("listening on http://".to_owned()),
        Just("error while handling argument \"".to_owned()),
        Just("buffer of size ".to_owned()),
        Just("unknown model architecture: '".to_owned()),
        Just("GGML_ASSERT".to_owned()),
        Just("'/ä/".to_owned()),
        Just("C:\\".to_owned()),
        Just("0.1 E ".to_owned()),
        Just("\"}}".to_owned()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn output_lines(lines in prop::collection::vec(words(), 0..6)) {
        let mut watch = StartWatch::new();
        for text in &lines {
            let line = OutputLine { stream: OutputStream::Stdout, text: text.clone() };
            watch.on_line(&line);
            log_line(&line);
        }
        for phase in [FailurePhase::Starting, FailurePhase::Running] {
            let exit = ExitReport { code: Some(1), last_lines: lines.clone(), ..ExitReport::default() };
            let FailureReport { reason, .. } = failure(&exit, phase);
            prop_assert!(!reason.is_empty() && reason.chars().count() < 1000);
            prop_assert!(!reason.contains(|c: char| c.is_control()), "{:?}", reason);
        }
    }

    #[test]
    fn paths_go_and_the_rest_stays(before in "[a-z ]{0,9}", path in "/[a-z]{1,5}(/[a-z ]{1,5}){0,2}", after in "[a-z ]{0,9}") {
        let bare = without_paths(&format!("{before} {path} {after}"));
        prop_assert!(!bare.contains(&path));
        let quoted = without_paths(&format!("x{before}'{path}'{after}x"));
        prop_assert_eq!(quoted, format!("x{before}'file'{after}x"));
    }
}
