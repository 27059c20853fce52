//! Documents, events, and what the window sees.

use std::path::Path;
use std::time::Duration;

use domain::{EventKind, TranscriptionState};
use http::StatusCode;
use http_api::{ApiSettings, WaitingRules};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{
    Case, FORM, MODEL, TRANSCRIPTIONS, TRANSLATIONS, answer, form, gate, half, open_gate, recording, scripted, send,
    transcribe,
};
use crate::harness::{drain, open, patiently, settings};

#[tokio::test]
async fn every_document_on_every_port() {
    let case = Case::new().await;
    for to in [case.server.ollama, case.server.lmstudio, case.server.management] {
        let reply = transcribe(to, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(reply.header("content-type").starts_with("application/json"));
        assert!(!reply.header("x-request-id").is_empty());
        assert!(!reply.header("x-llamarunner-queue-ms").is_empty());
        let body = reply.json();
        assert_eq!(body["text"], "Hello, this is a test of the transcription service.");
        assert_eq!(
            (&body["language"], &body["duration"], &body["usage"]["seconds"]),
            (&json!("en"), &json!(5.2), &json!(6))
        );
    }
    let format = |format: &'static str| [("response_format", format)];
    let text = transcribe(case.to(), &format("text")).await;
    assert_eq!(text.text(), "Hello, this is a test of the transcription service.\n");
    assert!(text.header("content-type").starts_with("text/plain"));
    let srt = transcribe(case.to(), &format("srt")).await;
    assert!(
        srt.text()
            .starts_with("1\n00:00:00,000 --> 00:00:02,500\nHello, this is a test\n\n2\n")
    );
    assert_eq!(srt.header("content-type"), "application/x-subrip");
    let vtt = transcribe(case.to(), &format("vtt")).await;
    assert!(vtt.text().starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\n"));
    assert!(vtt.header("content-type").starts_with("text/vtt"));
    let fields = [
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ];
    let verbose = transcribe(case.to(), &fields).await.json();
    assert_eq!(
        (&verbose["language"], &verbose["task"]),
        (&json!("english"), &json!("transcribe"))
    );
    assert_eq!(verbose["words"][0]["word"], "Hello,");
    assert_eq!(verbose["segments"][1]["text"], " of the transcription service.");
    let translated = send(case.to(), TRANSLATIONS, recording(b"RIFF", &[MODEL])).await.json();
    assert_eq!(translated["language"], "en");
    let tasks: Vec<Value> = case.jobs().into_iter().map(|job| job["task"].clone()).collect();
    assert_eq!(tasks.last().unwrap(), "translate");
    assert_eq!(tasks[0], "transcribe");
    case.stop().await;
}

#[tokio::test]
async fn events_with_progress_and_an_end() {
    let case = Case::new().await;
    let reply = transcribe(case.to(), &[("stream", "true")]).await;
    assert!(reply.header("content-type").starts_with("text/event-stream"));
    let text = reply.text();
    let events: Vec<&str> = text
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!(events.len(), 4, "{text}");
    assert_eq!(events[3], "[DONE]");
    let deltas: String = events[..2]
        .iter()
        .map(|event| {
            serde_json::from_str::<Value>(event).unwrap()["delta"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let done: Value = serde_json::from_str(events[2]).unwrap();
    assert_eq!(done["text"], deltas.trim());
    case.stop().await;
}

#[tokio::test]
async fn fields_come_in_any_order_and_reach_the_engine() {
    let case = Case::new().await;
    let body = form(&[
        ("file", b"RIFF"),
        ("language", b"de"),
        ("known_speaker_references[]", &vec![b'x'; 200_000]),
        ("prompt", b"Names: Ada."),
        ("model", b"tiny-whisper"),
        ("force", b"true"),
        ("unknown", b"x"),
    ]);
    let reply = send(case.to(), TRANSCRIPTIONS, body).await;
    assert_eq!(reply.json()["language"], "de", "{}", reply.text());
    let job = &case.jobs()[0];
    assert_eq!(
        (&job["prompt"], &job["language"]),
        (&json!("Names: Ada."), &json!("de"))
    );
    assert_eq!(job["force"], true);
    let path = Path::new(job["path"].as_str().unwrap());
    assert!(path.starts_with(case.server.home.data().join("uploads")));
    case.stop().await;
}

/// Of a prompt the model heeds the end alone, so a longer one is no mistake (audio contract 1).
#[tokio::test]
async fn the_end_of_a_long_prompt_counts() {
    let case = Case::new().await;
    let prompt = "ß wort ".repeat(20_000) + "the end";
    let reply = send(
        case.to(),
        TRANSCRIPTIONS,
        form(&[
            ("prompt", prompt.as_bytes()),
            ("file", b"RIFF"),
            ("model", b"tiny-whisper"),
        ]),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let heeded = case.jobs()[0]["prompt"].as_str().unwrap().to_owned();
    assert!(heeded.ends_with("the end") && heeded.len() > 60_000 && heeded.len() <= 64 << 10);
    assert!(prompt.ends_with(&heeded));
    case.stop().await;
}

#[tokio::test]
async fn a_form_in_any_pieces_arrives_whole() {
    let case = Case::new().await;
    let words = "--x-boundary ".repeat(50);
    let steps = json!([
        {"event": "info", "duration": 1.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 1.0, "text": words},
        {"event": "done", "processing_s": 0.1},
    ]);
    // Line ends everywhere: each could be the begin of the next boundary.
    let script = format!("{{\"stub\":\r\n{{\"steps\":\r{steps}\r\n}}\r\n\r\n}}");
    let body = recording(script.as_bytes(), &[MODEL]);
    for first in [1, 7, 64] {
        let (mut sent, mut size) = (Vec::new(), first);
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            sent.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            sent.extend_from_slice(piece);
            sent.extend_from_slice(b"\r\n");
            rest = after;
            size = size % 97 + 1;
        }
        sent.extend_from_slice(b"0\r\n\r\n");
        let (status, heard) = answer(half(case.to(), "transfer-encoding: chunked", &sent).await).await;
        assert_eq!((status, heard["text"].as_str()), (200, Some(words.trim())), "{heard}");
    }
    case.stop().await;
}

#[tokio::test]
async fn waiting_is_visible_in_a_stream_and_a_late_error_is_an_event() {
    let rules = ApiSettings {
        waiting: WaitingRules {
            begin_after: Duration::from_millis(50),
            keep_alive_every: Duration::from_millis(50),
        },
        ..settings()
    };
    let case = Case::with(rules, &[]).await;
    let go = gate(&case, "go");
    let script = json!({"before": [{"gate": go}],
        "error": {"status": 400, "code": "unsupported_audio", "message": "This is no sound."}});
    let body = recording(&scripted(&script), &[MODEL, ("stream", "true")]);
    let mut stream = open(case.to(), "POST", TRANSCRIPTIONS, &[FORM], body).await;
    assert_eq!(stream.status(), StatusCode::OK);
    assert!(stream.headers().contains_key("x-request-id"));
    let first = patiently("a sign of life", stream.body_mut().frame()).await;
    assert!(first.unwrap().unwrap().data_ref().unwrap().starts_with(b": "));
    open_gate(&go);
    let rest = String::from_utf8(drain(stream.into_body()).await).unwrap();
    assert!(rest.contains("\"code\":\"unsupported_audio\""), "{rest}");
    assert_eq!(case.shown().await[0]["error"], "This is no sound.");
    case.stop().await;
}

#[tokio::test]
async fn the_window_sees_how_it_goes() {
    let case = Case::new().await;
    let (middle, end) = (gate(&case, "middle"), gate(&case, "end"));
    let script = json!({"steps": [
        {"event": "info", "duration": 8.0, "language": "fr"},
        {"gate": middle},
        {"event": "segment", "id": 0, "start": 0.0, "end": 4.0, "text": " Voilà"},
        {"gate": end},
        {"event": "done", "processing_s": 1.5},
    ]});
    let mut events = case.server.bus.subscribe();
    let body = recording(&scripted(&script), &[("model", "whisper-1")]);
    let to = case.to();
    let mut request = tokio::task::JoinSet::new();
    request.spawn(async move { send(to, TRANSCRIPTIONS, body).await });
    let mut states = Vec::new();
    let view = loop {
        let event = patiently("an event", events.recv()).await.unwrap();
        let EventKind::Transcription { transcription } = &event.kind else {
            continue;
        };
        if states.last() != Some(&transcription.state) {
            states.push(transcription.state);
        }
        match transcription.state {
            TranscriptionState::Completed => break transcription.clone(),
            TranscriptionState::Running if transcription.progress >= 0.5 => open_gate(&end),
            TranscriptionState::Running if transcription.duration.is_some() => {
                // What comes within a quarter of a second of this is not told at once.
                tokio::time::sleep(Duration::from_millis(300)).await;
                open_gate(&middle);
            }
            _ => {}
        }
    };
    assert_eq!(
        states,
        [
            TranscriptionState::Queued,
            TranscriptionState::Running,
            TranscriptionState::Completed
        ]
    );
    assert_eq!(
        (view.model.as_str(), view.asked.as_str()),
        ("tiny-whisper", "whisper-1")
    );
    assert_eq!((view.duration, view.language.as_deref()), (Some(8.0), Some("fr")));
    assert_eq!((view.processing_s, view.characters), (Some(1.5), 6));
    let reply = patiently("the answer", request.join_next()).await.unwrap().unwrap();
    assert_eq!(reply.header("x-request-id"), view.id.to_string());
    assert!(
        !serde_json::to_string(&view).unwrap().contains("Voil"),
        "never the text"
    );
    case.stop().await;
}
