//! Recordings to text over HTTP, with the stub speech engine (audio contract 1 to 3, 5, 6).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::{EventKind, LaunchOptions, TranscriptionState};
use engines::speech::SpeechSettings;
use http::StatusCode;
use http_api::{ApiSettings, AudioRules, WaitingRules};
use models::{EntrySettings, RegistrySettings};
use serde_json::{Value, json};
use testkit::{Recorded, read_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Reply, Server, Setup, call, drain, open, patiently, settings, until};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";
const BOUNDARY: &str = "x-boundary-x";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=x-boundary-x");
const MODEL: (&str, &str) = ("model", "tiny-whisper");

/// A form; a field called `file` is a file.
fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        let file = if *name == "file" {
            "; filename=\"a.wav\"\r\ncontent-type: audio/wav"
        } else {
            ""
        };
        out.extend_from_slice(
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    out
}

/// A recording with this content and these fields.
fn recording(content: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    all.push(("file", content));
    form(&all)
}

/// A recording that tells the stub what to do with it.
fn scripted(script: &Value) -> Vec<u8> {
    json!({"stub": script}).to_string().into_bytes()
}

async fn send(to: SocketAddr, path: &str, body: impl Into<bytes::Bytes>) -> Reply {
    call(to, "POST", path, &[FORM], body).await
}

async fn transcribe(to: SocketAddr, fields: &[(&str, &str)]) -> Reply {
    let mut all = vec![MODEL];
    all.extend_from_slice(fields);
    send(to, TRANSCRIPTIONS, recording(b"RIFF", &all)).await
}

fn error_of(reply: &Reply) -> (u16, String, String) {
    let error = &reply.json()["error"];
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (reply.status.as_u16(), word("code"), word("param"))
}

struct Case {
    server: Server,
    record: PathBuf,
}

impl Case {
    async fn new() -> Self {
        Self::with(settings(), &[]).await
    }

    async fn with(settings: ApiSettings, env: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let record = folder.join("record.jsonl");
        let mut env: Vec<(String, String)> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        env.push(("STUB_RECORD".into(), record.to_string_lossy().into_owned()));
        let entry = EntrySettings {
            launch: LaunchOptions {
                env,
                ..LaunchOptions::default()
            },
            ..EntrySettings::default()
        };
        let server = Server::start(Setup {
            speech: SpeechSettings {
                python: Some(testkit::stub_speech_path()),
                auto_install: false,
                ..SpeechSettings::default()
            },
            library: RegistrySettings {
                entries: BTreeMap::from([("tiny-whisper".to_owned(), entry)]),
                ..RegistrySettings::default()
            },
            settings,
            ..Setup::default()
        })
        .await;
        Self { server, record }
    }

    fn to(&self) -> SocketAddr {
        self.server.management
    }

    fn uploads(&self) -> Vec<PathBuf> {
        let dir = self.server.home.data().join("uploads");
        std::fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    }

    fn recorded(&self) -> Vec<Recorded> {
        read_record(&self.record).unwrap()
    }

    /// Bodies of the jobs that the engine was given.
    fn jobs(&self) -> Vec<Value> {
        let body = |event: Recorded| match event {
            Recorded::Request { path, body, .. } if path == "/transcribe" => serde_json::from_str(&body).ok(),
            _ => None,
        };
        self.recorded().into_iter().filter_map(body).collect()
    }

    /// Jobs that are neither done nor given up.
    fn open_jobs(&self) -> usize {
        let mut open = std::collections::HashSet::new();
        for event in self.recorded() {
            match event {
                Recorded::Request { n, path, .. } if path == "/transcribe" => drop(open.insert(n)),
                Recorded::Done { n, .. } | Recorded::Gone { n, .. } => drop(open.remove(&n)),
                _ => {}
            }
        }
        open.len()
    }

    async fn shown(&self) -> Vec<Value> {
        let state = crate::harness::get(self.to(), "/v1/state").await.json();
        state["transcriptions"].as_array().unwrap().clone()
    }

    /// Nothing of any request is left.
    async fn is_clean(&self) {
        until("no file of an upload is left", || self.uploads().is_empty()).await;
        until("no request is active", || {
            self.server.router.active_requests().is_empty()
        })
        .await;
        let idle = |instance: &domain::InstanceView| instance.active == 0 && instance.queued == 0;
        until("no lease is held", || self.server.router.instances().iter().all(idle)).await;
        until("the engine is idle", || self.open_jobs() == 0).await;
        for view in self.shown().await {
            let state = view["state"].as_str().unwrap();
            assert!(matches!(state, "completed" | "failed" | "cancelled"), "{view}");
        }
    }

    async fn stop(self) {
        self.is_clean().await;
        self.server.stop().await;
        std::fs::remove_dir_all(self.record.parent().unwrap()).unwrap();
    }
}

/// Sends the head and a part of a request, and returns the connection.
async fn half(to: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: {to}\r\n{}: {}\r\n{head}\r\n\r\n",
        FORM.0, FORM.1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may have answered and closed already.
    let _ = stream.write_all(body).await;
    stream
}

/// Status and JSON of a raw answer.
async fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = patiently("an answer", stream.read(&mut piece)).await.unwrap_or(0);
        text.extend_from_slice(&piece[..read]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n")
            && let Ok(value) = serde_json::from_str(body)
        {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), value);
        }
        assert!(read > 0, "no answer: {whole}");
    }
}

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
        ("unknown", b"x"),
    ]);
    let reply = send(case.to(), TRANSCRIPTIONS, body).await;
    assert_eq!(reply.json()["language"], "de", "{}", reply.text());
    let job = &case.jobs()[0];
    assert_eq!(
        (&job["prompt"], &job["language"]),
        (&json!("Names: Ada."), &json!("de"))
    );
    let path = Path::new(job["path"].as_str().unwrap());
    assert!(path.starts_with(case.server.home.data().join("uploads")));
    case.stop().await;
}

#[tokio::test]
async fn refusals_before_the_engine() {
    let case = Case::new().await;
    let no_file = form(&[("model", b"tiny-whisper")]);
    let two = form(&[("file", b"a"), ("file", b"b"), ("model", b"tiny-whisper")]);
    let long = form(&[("prompt", &vec![b'x'; 70_000]), ("file", b"RIFF")]);
    let binary = form(&[("prompt", b"\xff\xfe"), ("file", b"RIFF")]);
    let cut = recording(b"RIFF", &[MODEL])[..120].to_vec();
    for (body, expected) in [
        (no_file, (400, "missing_required_parameter", "file")),
        (recording(b"", &[MODEL]), (400, "empty_file", "file")),
        (two, (400, "invalid_multipart", "file")),
        (long, (400, "invalid_value", "prompt")),
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
async fn fifty_uploads_of_which_half_are_cut_leave_nothing() {
    let case = Case::new().await;
    let to = case.to();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..50_usize {
        let stream = if n % 4 < 2 { "true" } else { "false" };
        let body = recording(&vec![b'x'; 300_000], &[MODEL, ("stream", stream)]);
        all.spawn(async move {
            if n % 2 == 0 {
                let reply = send(to, TRANSCRIPTIONS, body).await;
                assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
                return;
            }
            // Anywhere from the head of the first part to the last byte.
            let at = (n * 7919 * 131) % body.len();
            let head = format!("content-length: {}", body.len());
            drop(half(to, &head, &body[..at]).await);
        });
    }
    while let Some(ended) = patiently("an upload", all.join_next()).await {
        ended.unwrap();
    }
    case.stop().await;
}

fn gate(case: &Case, name: &str) -> PathBuf {
    case.record.with_file_name(name)
}

fn open_gate(gate: &Path) {
    std::fs::write(gate, b"").unwrap();
}

#[tokio::test]
async fn clients_that_leave_while_queued_decoding_or_listening_free_everything() {
    let case = Case::new().await;
    let (decoded, middle) = (gate(&case, "decoded"), gate(&case, "middle"));
    let script = json!({"before": [{"gate": decoded}], "steps": [
        {"event": "info", "duration": 9.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 2.0, "text": " One"},
        {"gate": middle},
    ]});
    let body = recording(&scripted(&script), &[MODEL, ("stream", "true")]);
    let head = format!("content-length: {}", body.len());
    // One is decoded, one waits for its turn.
    let decoding = half(case.to(), &head, &body).await;
    until("the engine has the first", || case.jobs().len() == 1).await;
    let queued = half(case.to(), &head, &body).await;
    until("both are here", || case.server.router.active_requests().len() == 2).await;
    let shown: Vec<Value> = case
        .shown()
        .await
        .into_iter()
        .map(|view| view["state"].clone())
        .collect();
    assert_eq!(shown, ["queued", "running"], "newest first");
    assert_eq!(case.uploads().len(), 2);
    drop(queued);
    until("the queued one is gone", || case.uploads().len() == 1).await;
    drop(decoding);
    case.is_clean().await;
    assert_eq!(case.jobs().len(), 1, "the engine never heard of the second");
    // One leaves in the middle of its events.
    open_gate(&decoded);
    let mut stream = open(case.to(), "POST", TRANSCRIPTIONS, &[FORM], body).await;
    let first = patiently("an event", http_body_util::BodyExt::frame(stream.body_mut())).await;
    assert!(String::from_utf8_lossy(first.unwrap().unwrap().data_ref().unwrap()).contains(" One"));
    drop(stream);
    case.is_clean().await;
    let states: Vec<Value> = case
        .shown()
        .await
        .into_iter()
        .map(|view| view["state"].clone())
        .collect();
    assert_eq!(states, ["cancelled", "cancelled", "cancelled"]);
    case.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_before_any_output_is_followed_by_another() {
    let case = Case::new().await;
    for (n, stream) in ["false", "true"].into_iter().enumerate() {
        let once = gate(&case, &format!("died-{n}"));
        let script = json!({"once": once, "steps": [{"event": "info", "duration": 5.2}, {"die": "signal:9"}]});
        let body = recording(&scripted(&script), &[MODEL, ("stream", stream)]);
        let reply = send(case.to(), TRANSCRIPTIONS, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert!(reply.text().contains("of the transcription service."));
        assert!(once.exists());
    }
    // A second death is the answer.
    let always = scripted(&json!({"before": [{"die": "exit:1"}]}));
    let reply = send(case.to(), TRANSCRIPTIONS, recording(&always, &[MODEL])).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (502, "engine_failed"),
        "{}",
        reply.text()
    );
    assert_eq!(case.jobs().len(), 6);
    case.stop().await;
}

#[tokio::test]
async fn an_engine_that_dies_after_output_ends_the_stream_with_an_error() {
    let case = Case::new().await;
    let sent = gate(&case, "sent");
    let script = json!({"steps": [
        {"event": "info", "duration": 9.0, "language": "en"},
        {"event": "segment", "id": 0, "start": 0.0, "end": 2.0, "text": " One"},
        {"gate": sent},
        {"die": "signal:9"},
    ]});
    let body = recording(&scripted(&script), &[MODEL, ("stream", "true")]);
    let mut stream = open(case.to(), "POST", TRANSCRIPTIONS, &[FORM], body).await;
    let first = patiently("an event", http_body_util::BodyExt::frame(stream.body_mut())).await;
    assert!(String::from_utf8_lossy(first.unwrap().unwrap().data_ref().unwrap()).contains(" One"));
    open_gate(&sent);
    let rest = String::from_utf8(drain(stream.into_body()).await).unwrap();
    assert!(
        rest.contains("\"code\":\"engine_failed\"") && !rest.contains("[DONE]"),
        "{rest}"
    );
    assert_eq!(case.jobs().len(), 1, "no second try");
    assert_eq!(case.shown().await[0]["state"], "failed");
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
    let first = patiently("a sign of life", http_body_util::BodyExt::frame(stream.body_mut())).await;
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
    let request = tokio::spawn(async move { send(to, TRANSCRIPTIONS, body).await });
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
    let reply = patiently("the answer", request).await.unwrap();
    assert_eq!(reply.header("x-request-id"), view.id.to_string());
    assert!(
        !serde_json::to_string(&view).unwrap().contains("Voil"),
        "never the text"
    );
    case.stop().await;
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let case = Case::with(settings(), &[("STUB_LOAD_FAILED", "There is no model.bin.")]).await;
    let reply = transcribe(case.to(), &[]).await;
    assert_eq!(error_of(&reply).0, 502, "{}", reply.text());
    assert!(reply.text().contains("model.bin"), "{}", reply.text());
    assert_eq!(case.shown().await[0]["state"], "failed");
    case.stop().await;
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
