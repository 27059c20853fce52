//! R10 and O3: both pipes are always drained, and no output can hurt.

use std::time::Duration;

use domain::{Level, LogLine};
use supervisor::{OutputLine, OutputStream};

use crate::kit::{Kit, Role, line_with};

#[test]
fn a_flood_neither_grows_nor_slows_the_app() {
    let folder = tempfile::tempdir().unwrap();
    let role = Role::start("flood", folder.path());
    let numbers: Vec<u64> = role.says.iter().map(|word| word.parse().unwrap()).collect();
    let (grown, slowest_ms) = (numbers[0], numbers[1]);
    assert!(grown < 10 << 20, "grew by {grown} bytes");
    assert!(slowest_ms < 1000, "an answer took {slowest_ms} ms");
    // Three files of 256 KiB, and the line that was being written when each was full.
    let logs = std::fs::read_dir(folder.path().join("logs")).unwrap();
    let flood = logs
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("flood."));
    let total: u64 = flood.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(
        total > 0 && total <= 3 * 256 * 1024 + 16 * 1024,
        "{total} bytes of logs"
    );
}

#[tokio::test]
async fn lines_reach_ring_file_and_receiver_clean() {
    let kit = Kit::new();
    let mut spec = kit.stub("shell", &[]);
    spec.program = "sh".into();
    let script = r"printf '\033[31mred\033[0m\n'; printf 'err\007\n' >&2; printf 'no end'";
    spec.args = ["-c", script].map(Into::into).to_vec();
    let ring = spec.log.clone();
    let (child, mut lines) = kit.supervisor.spawn(spec).await.unwrap();
    let mut seen = Vec::new();
    while let Some(line) = lines.recv().await {
        seen.push(line);
    }
    child.wait().await;
    seen.sort_by(|a, b| a.text.cmp(&b.text));
    let line = |stream, text: &str| OutputLine {
        stream,
        text: text.to_owned(),
    };
    assert_eq!(
        seen,
        [
            line(OutputStream::Stdout, "\\x1b[31mred\\x1b[0m"),
            line(OutputStream::Stderr, "err\\x07"),
            line(OutputStream::Stdout, "no end"),
        ]
    );
    assert_eq!(ring.tail(10).len(), 3);
    let path = crate::kit::settings(&kit.folder).log_path("shell");
    let start = std::time::Instant::now();
    while std::fs::read_to_string(&path).unwrap().lines().count() < 3 {
        assert!(start.elapsed() < crate::kit::LIMIT);
        tokio::task::yield_now().await;
    }
}

fn decode(line: &OutputLine) -> Option<LogLine> {
    let text = line.text.strip_prefix("log ")?;
    Some(LogLine {
        at_ms: 1,
        level: Level::Warn,
        text: text.to_owned(),
    })
}

#[tokio::test]
async fn a_decoder_decides_what_is_logged_but_every_line_is_received() {
    let kit = Kit::new();
    let supervisor = kit.supervisor.clone().with_line_decoder(decode);
    let mut spec = kit.stub("decoded", &[]);
    spec.program = "sh".into();
    spec.args = ["-c", "echo log one; echo protocol; echo log two"]
        .map(Into::into)
        .to_vec();
    let ring = spec.log.clone();
    let (child, mut lines) = supervisor.spawn(spec).await.unwrap();
    line_with(&mut lines, "protocol").await;
    let report = child.wait().await;
    assert_eq!(report.last_lines, ["one", "two"]);
    let texts: Vec<String> = ring.tail(9).into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(ring.tail(1)[0].level, Level::Warn);
}

#[tokio::test]
async fn a_receiver_nobody_reads_does_not_stop_the_child() {
    let kit = Kit::new();
    let mut spec = kit.stub("chatty", &[]);
    spec.program = "sh".into();
    spec.args = ["-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"]
        .map(Into::into)
        .to_vec();
    let (child, lines) = kit.supervisor.spawn(spec).await.unwrap();
    let report = tokio::time::timeout(crate::kit::LIMIT, child.wait())
        .await
        .expect("blocked");
    assert_eq!(report.code, Some(0));
    assert_eq!(report.last_lines.len(), 50);
    assert_eq!(report.last_lines[49], "19999");
    assert!(lines.len() <= 4096);
}

#[tokio::test]
async fn a_pipe_held_by_a_process_that_left_the_group_delays_nothing() {
    let kit = Kit::new();
    let mut spec = kit.stub("holder", &[]);
    spec.program = "sh".into();
    spec.args = ["-c", "setsid sleep 600 & echo pid $!"].map(Into::into).to_vec();
    let (child, mut lines) = kit.supervisor.spawn(spec).await.unwrap();
    let pid: u32 = line_with(&mut lines, "pid ")
        .await
        .strip_prefix("pid ")
        .unwrap()
        .parse()
        .unwrap();
    let report = tokio::time::timeout(Duration::from_secs(5), child.wait())
        .await
        .expect("waits for the pipe");
    assert_eq!(report.code, Some(0));
    if let Some(id) = testkit::ProcessId::of(pid).filter(|id| id.is_running()) {
        crate::kit::kill("-KILL", id.pid);
    }
}
