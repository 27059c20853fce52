//! What is refused, with which status and code (audio contract 6).

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use http_api::{ApiSettings, AudioRules};
use router::RouterSettings;
use serde_json::json;

use super::{
    Case, MODEL, TRANSCRIPTIONS, answer, error_of, form, gate, half, open_gate, recording, scripted, send, transcribe,
};
use crate::harness::{Engine, Server, Setup, call, open, patiently, settings, until};

#[tokio::test]
async fn refusals_before_the_engine() {
    let case = Case::new().await;
    let no_file = form(&[("model", b"tiny-whisper")]);
    let two = form(&[("file", b"a"), ("file", b"b"), ("model", b"tiny-whisper")]);
    let long = form(&[("hotwords", &vec![b'x'; 70_000]), ("file", b"RIFF")]);
    let binary = form(&[("prompt", b"\xff\xfe"), ("file", b"RIFF")]);
    let cut = recording(b"RIFF", &[MODEL])[..120].to_vec();
    for (body, expected) in [
        (no_file, (400, "missing_required_parameter", "file")),
        (recording(b"", &[MODEL]), (400, "empty_file", "file")),
        (two, (400, "invalid_multipart", "file")),
        (long, (400, "invalid_value", "hotwords")),
        (binary, (400, "invalid_value", "prompt")),
        (cut, (400, "invalid_multipart", "")),
        (b"nothing of a form".to_vec(), (400, "invalid_multipart", "")),
        (Vec::new(), (400, "invalid_multipart", "")),
        (vec![b'x'; 3 << 20], (400, "invalid_multipart", "")),
        (
            recording(b"RIFF", &[MODEL, ("response_format", "diarized_json")]),
            (400, "invalid_value", "response_format"),
        ),
        (
            recording(b"RIFF", &[MODEL, ("temperature", "2")]),
            (400, "invalid_value", "temperature"),
        ),
        (
            recording(b"RIFF", &[MODEL, ("timestamp_granularities[]", "letter")]),
            (400, "invalid_value", "timestamp_granularities"),
        ),
        (
            recording(b"RIFF", &[MODEL, ("language", "xx")]),
            (400, "unsupported_language", "language"),
        ),
        (
            recording(b"RIFF", &[("model", "nobody")]),
            (404, "model_not_found", "model"),
        ),
        (
            recording(b"RIFF", &[("model", "large-v3")]),
            (404, "model_not_found", "model"),
        ),
        (
            recording(b"RIFF", &[("model", "tiny-chat")]),
            (400, "model_not_supported", "model"),
        ),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let reply = send(case.to(), TRANSCRIPTIONS, body).await;
        let (status, code, param) = error_of(&reply);
        assert_eq!(
            (status, code.as_str(), param.as_str()),
            expected,
            "{shown}\n{}",
            reply.text()
        );
    }
    let fetch = send(case.to(), TRANSCRIPTIONS, recording(b"RIFF", &[("model", "large-v3")])).await;
    assert!(
        fetch.text().contains("llama-runner pull whisper-large-v3"),
        "{}",
        fetch.text()
    );
    let fetch = send(
        case.to(),
        TRANSCRIPTIONS,
        recording(b"RIFF", &[("model", "me/my-whisper")]),
    )
    .await;
    assert!(
        fetch.text().contains("llama-runner pull hf.co/me/my-whisper"),
        "{}",
        fetch.text()
    );
    for (content_type, expected) in [
        ("application/json", (415, "unsupported_content_type")),
        ("audio/wav", (415, "unsupported_content_type")),
        ("multipart/form-data", (400, "invalid_multipart")),
    ] {
        let reply = call(
            case.to(),
            "POST",
            TRANSCRIPTIONS,
            &[("content-type", content_type)],
            "{}",
        )
        .await;
        let (status, code, _) = error_of(&reply);
        assert_eq!((status, code.as_str()), expected);
    }
    assert!(case.recorded().is_empty(), "no engine was started");
    case.stop().await;
}

#[tokio::test]
async fn refusals_of_the_engine_keep_status_and_code() {
    let case = Case::new().await;
    for (status, code, expected) in [
        (400, "unsupported_audio", (400, "file")),
        (400, "no_audio_stream", (400, "file")),
        (400, "audio_too_long", (400, "file")),
        (400, "unsupported_language", (400, "language")),
        (400, "model_not_supported", (400, "model")),
        (500, "internal_error", (502, "")),
    ] {
        for stream in ["false", "true"] {
            let script = json!({"error": {"status": status, "code": code, "message": "Because."}});
            let body = recording(&scripted(&script), &[MODEL, ("stream", stream)]);
            let reply = send(case.to(), TRANSCRIPTIONS, body).await;
            let (status, given, param) = error_of(&reply);
            assert_eq!((status, param.as_str()), expected, "{}", reply.text());
            assert_eq!(given, code);
            assert_eq!(reply.json()["error"]["message"], "Because.");
        }
    }
    let late = json!({"steps": [
        {"event": "info", "duration": 4.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 2.0, "text": " One"},
        {"event": "error", "code": "unsupported_audio", "message": "The rest is noise."},
    ]});
    let whole = send(case.to(), TRANSCRIPTIONS, recording(&scripted(&late), &[MODEL])).await;
    assert_eq!(error_of(&whole).0, 400);
    let body = recording(&scripted(&late), &[MODEL, ("stream", "1")]);
    let stream = send(case.to(), TRANSCRIPTIONS, body).await.text();
    assert!(
        stream.contains("\"delta\":\" One\"") && stream.contains("The rest is noise."),
        "{stream}"
    );
    assert!(!stream.contains("[DONE]"), "{stream}");
    case.stop().await;
}

/// A recording may have 1 MB here.
fn small() -> ApiSettings {
    ApiSettings {
        audio: AudioRules {
            max_upload: 1 << 20,
            ..settings().audio
        },
        ..settings()
    }
}

#[tokio::test]
async fn too_large_is_said_before_reading_and_at_the_limit() {
    let case = Case::with(small(), &[]).await;
    // The length alone: not a byte of the body is sent.
    let head = format!("content-length: {}", 3 << 20);
    let (status, body) = answer(half(case.to(), &head, b"").await).await;
    assert_eq!((status, &body["error"]["code"]), (413, &json!("file_too_large")));
    // Without a length: as soon as the limit is crossed, though the body has no end.
    let start = recording(&vec![b'x'; (1 << 20) + 100], &[MODEL]);
    let start = &start[..start.len() - 40];
    let mut chunked = format!("{:x}\r\n", start.len()).into_bytes();
    chunked.extend_from_slice(start);
    chunked.extend_from_slice(b"\r\n");
    let (status, body) = answer(half(case.to(), "transfer-encoding: chunked", &chunked).await).await;
    assert_eq!((status, &body["error"]["code"]), (413, &json!("file_too_large")));
    // What is no form is not gathered until its end either.
    let mut garbage = format!("{:x}\r\n", 3 << 20).into_bytes();
    garbage.extend_from_slice(&vec![b'x'; 3 << 20]);
    let (status, body) = answer(half(case.to(), "transfer-encoding: chunked", &garbage).await).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("invalid_multipart")));
    // As large as it may be.
    let reply = send(case.to(), TRANSCRIPTIONS, recording(&vec![b'x'; 1 << 20], &[MODEL])).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    case.stop().await;
}

#[tokio::test]
async fn a_recording_may_be_larger_than_other_bodies_and_a_port_may_take_less() {
    let mut rules = settings();
    rules.max_body = 1 << 10;
    rules.ollama.max_upload = Some(1 << 20);
    let case = Case::with(rules, &[]).await;
    let body = recording(&vec![b'x'; 3 << 20], &[MODEL]);
    let reply = send(case.to(), TRANSCRIPTIONS, body.clone()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(error_of(&send(case.server.ollama, TRANSCRIPTIONS, body).await).0, 413);
    case.stop().await;
}

#[tokio::test]
async fn a_full_queue_is_refused_with_a_time_to_come_back() {
    let rules = ApiSettings {
        audio: AudioRules {
            max_queue: 1,
            ..settings().audio
        },
        ..settings()
    };
    let case = Case::with(rules, &[]).await;
    let go = gate(&case, "go");
    let body = recording(&scripted(&json!({"before": [{"gate": go}]})), &[MODEL]);
    let to = case.to();
    let mut all = tokio::task::JoinSet::new();
    for waiting in 1..=2 {
        let body = body.clone();
        all.spawn(async move { send(to, TRANSCRIPTIONS, body).await.status });
        until("it is here", || case.server.router.active_requests().len() == waiting).await;
        until("the engine has the first", || case.jobs().len() == 1).await;
    }
    let reply = send(to, TRANSCRIPTIONS, body.clone()).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (429, "queue_full"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("retry-after"), "5");
    open_gate(&go);
    while let Some(status) = patiently("an answer", all.join_next()).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    case.stop().await;
}

#[tokio::test]
async fn a_model_that_finds_no_room_in_time_is_not_a_full_queue() {
    let server = Server::start(Setup {
        engine: Engine::Stub(vec![("STUB_HANG_AFTER", "1".into())]),
        router: RouterSettings {
            max_loaded_models: Some(1),
            max_wait: Duration::from_millis(300),
            ..RouterSettings::default()
        },
        ..Setup::default()
    })
    .await;
    let chat = json!({"model": "tiny-chat", "stream": true, "messages": [{"role": "user", "content": "Hello"}]});
    let json = [("content-type", "application/json")];
    let chat = open(
        server.management,
        "POST",
        "/v1/chat/completions",
        &json,
        chat.to_string(),
    )
    .await;
    assert_eq!(chat.status(), StatusCode::OK);
    let reply = transcribe(server.management, &[]).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (503, "engine_starting"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("retry-after"), "5");
    drop(chat);
    server.stop().await;
}

/// A disk of 1 MB; needs the right to mount.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_said() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let case = Case::new().await;
    let dir = case.server.home.data().join("uploads");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1048576", "tmpfs"])
        .arg(&dir)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let mounted = Mounted(dir);
    let reply = send(case.to(), TRANSCRIPTIONS, recording(&vec![b'x'; 3 << 20], &[MODEL])).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (507, "disk_full"),
        "{}",
        reply.text()
    );
    assert_eq!(transcribe(case.to(), &[]).await.status, StatusCode::OK);
    case.is_clean().await;
    drop(mounted);
    case.stop().await;
}
