//! Cases under `tests/golden/audio`: `form.txt` (fields), `engine.ndjson` (recorded from the speech program) and the answer.

use std::fs;
use std::path::Path;

use dialects::audio::{Asked, Events, Form, Hearing, Waiting, document};
use dialects::{Rendered, StreamForm, Transcoder};
use domain::audio::Task;
use domain::{ErrorKind, RunnerError};

use crate::support::{cases, compare, folder, pretty, replay_all};

fn asked(case: &Path) -> Asked {
    let mut form = Form::default();
    for line in fs::read_to_string(case.join("form.txt")).unwrap().lines() {
        let (name, value) = line.split_once('=').unwrap();
        form.field(name, value.to_owned());
    }
    form.finish(Task::Transcribe).unwrap()
}

fn engine(case: &Path) -> Vec<u8> {
    fs::read(case.join("engine.ndjson")).unwrap()
}

fn heard(stream: &[u8], piece: usize) -> Result<Hearing, RunnerError> {
    let mut hearing = Hearing::default();
    for chunk in stream.chunks(piece) {
        hearing.push(chunk, |_, _| {});
    }
    hearing.finish().map(|()| hearing)
}

#[test]
fn documents_and_events() {
    let cases = cases("audio");
    assert!(!cases.is_empty());
    for case in cases {
        if !case.join("form.txt").exists() {
            continue;
        }
        let (asked, stream) = (asked(&case), engine(&case));
        if asked.wanted.stream {
            let events = replay_all(|| Box::new(Events::new(asked.clone())), &stream);
            compare(&case.join("answer.sse"), &events);
            continue;
        }
        let whole = document(&asked, &heard(&stream, stream.len()).unwrap());
        assert_eq!(whole, document(&asked, &heard(&stream, 1).unwrap()));
        if whole.content_type == Rendered::JSON {
            compare(&case.join("answer.json"), &pretty(&whole.body));
        } else {
            compare(&case.join("answer.txt"), &whole.body);
        }
    }
}

#[test]
fn deltas_make_the_whole() {
    for case in cases("audio") {
        if !case.join("answer.sse").exists() {
            continue;
        }
        let events = fs::read_to_string(case.join("answer.sse")).unwrap();
        let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
        let values: Vec<serde_json::Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
        let deltas: String = values.iter().filter_map(|value| value["delta"].as_str()).collect();
        let done = values.iter().find(|value| value["type"] == "transcript.text.done");
        if let Some(done) = done.filter(|_| asked(&case).wanted.format == dialects::audio::DocumentFormat::Json) {
            assert_eq!(deltas.trim(), done["text"].as_str().unwrap());
        }
    }
}

/// Promise H3: wherever the engine breaks off, the client is told, once, and never a whole answer.
#[test]
fn a_cut_stream_never_ends_as_if_complete() {
    let case = folder("audio").join("stream");
    let (asked, stream) = (asked(&case), engine(&case));
    let last = memchr::memmem::rfind(&stream, b"{\"event\"").unwrap();
    for cut in 0..=last {
        let events = replay_all(|| Box::new(Events::new(asked.clone())), &stream[..cut]);
        let events = String::from_utf8(events).unwrap();
        assert_eq!(events.matches("\"error\"").count(), 1, "cut at {cut}");
        assert!(
            !events.contains("transcript.text.done") && !events.contains("[DONE]"),
            "cut at {cut}"
        );
        assert!(heard(&stream[..cut], 7).is_err());
    }
    let cut = replay_all(|| Box::new(Events::new(asked.clone())), &stream[..last]);
    compare(&case.join("cut.sse"), &cut);
}

#[test]
fn an_error_of_the_engine_is_the_clients_error() {
    let case = folder("audio").join("stream");
    let (asked, stream) = (asked(&case), engine(&case));
    let last = memchr::memmem::rfind(&stream, b"{\"event\"").unwrap();
    let complaint = br#"{"event":"error","code":"engine_failed","message":"The model ran out of memory."}"#;
    let failing = [&stream[..last], complaint, b"\n"].concat();
    let events = replay_all(|| Box::new(Events::new(asked.clone())), &failing);
    compare(&case.join("failed.sse"), &events);
    // The router says that the process died; nothing may follow.
    let mut died = Events::new(asked);
    let mut out = Vec::new();
    died.push(&stream[..last], &mut out);
    let error = RunnerError::new(ErrorKind::EngineFailed, "The engine was killed.");
    died.fail(&error, &mut out);
    let len = out.len();
    died.push(&stream[last..], &mut out);
    died.finish(&mut out);
    died.fail(&error, &mut out);
    assert_eq!(out.len(), len);
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    for line in [
        "{",
        "[]",
        "{\"event\":\"dance\"}",
        "\u{feff}{}",
        "{\"event\":\"segment\",\"start\":\"x\"}",
    ] {
        assert!(heard(format!("{line}\n").as_bytes(), 3).is_err(), "{line}");
    }
    let mut endless = Hearing::default();
    for _ in 0..5 {
        endless.push(&vec![b'x'; 1 << 20], |_, _| {});
    }
    assert!(endless.is_over());
}

#[test]
fn a_failure_before_the_first_event() {
    let mut out = Vec::new();
    Waiting.fail(&RunnerError::new(ErrorKind::EngineFailed, "It broke."), &mut out);
    let expected =
        r#"data: {"error":{"message":"It broke.","type":"server_error","param":null,"code":"engine_failed"}}"#;
    let value: serde_json::Value = serde_json::from_slice(out.strip_prefix(b"data: ").unwrap()).unwrap();
    let wanted: serde_json::Value = serde_json::from_str(expected.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(value, wanted);
}
