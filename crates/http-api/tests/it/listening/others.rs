//! Besides the stub: the real speech program, an engine of the user's, a model that is fetched first.

use std::collections::BTreeMap;

use domain::{EngineKind, LaunchOptions};
use engines::CustomSettings;
use engines::speech::SpeechSettings;
use http::StatusCode;
use http_api::{ApiSettings, AudioRules};
use models::{EntrySettings, RegistrySettings};
use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo, WhisperCraft};

use super::{MODEL, TRANSCRIPTIONS, TRANSLATIONS, error_of, form, recording, send};
use crate::harness::{Server, Setup, settings};

/// A server with the real speech engine; `None`, with a note: there is none.
#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
async fn real() -> Option<Server> {
    let Some(python) = testkit::real_speech_python() else {
        eprintln!("skipped: no speech engine; run `cargo xtask setup --test`, or set LLAMARUNNER_SPEECH_PYTHON");
        return None;
    };
    let speech = SpeechSettings {
        python: Some(python),
        auto_install: false,
        ..SpeechSettings::default()
    };
    Some(
        Server::start(Setup {
            speech,
            ..Setup::default()
        })
        .await,
    )
}

fn sound(name: &str) -> Vec<u8> {
    std::fs::read(testkit::audio_dir().join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_hears_every_recording() {
    let Some(server) = real().await else { return };
    let to = server.management;
    let expected: Value = serde_json::from_slice(&sound("expected.json")).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        if name == "silence-3s.wav" {
            continue;
        }
        let body = recording(&sound(name), &[MODEL]);
        let reply = send(to, TRANSCRIPTIONS, body).await;
        assert_eq!(reply.status, StatusCode::OK, "{name}: {}", reply.text());
        let heard = reply.json();
        assert_eq!(
            (&heard["text"], &heard["language"]),
            (&expected["got_text"], &expected["got_language"]),
            "{name}"
        );
        let lengths = [&heard, expected].map(|one| one["duration"].as_f64().unwrap());
        assert!((lengths[0] - lengths[1]).abs() < 0.01, "{name}: {lengths:?}");
    }
    let silent = send(to, TRANSCRIPTIONS, recording(&sound("silence-3s.wav"), &[MODEL]))
        .await
        .json();
    assert_eq!(
        (&silent["text"], &silent["duration"]),
        (&json!(""), &json!(3.0)),
        "{silent}"
    );
    let cut = send(to, TRANSCRIPTIONS, recording(&sound("truncated.wav"), &[MODEL])).await;
    assert_eq!(cut.json()["text"], "Hello, this is a test.", "{}", cut.text());
    let german = send(to, TRANSLATIONS, recording(&sound("german-morning.mp3"), &[MODEL]))
        .await
        .json();
    assert_eq!(german["text"], "Good morning, how are you?");
    assert_eq!(
        (&german["language"], &german["source_language"]),
        (&json!("en"), &json!("de"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_streams_and_refuses() {
    let Some(server) = real().await else { return };
    let to = server.management;
    let body = recording(&sound("long-90s.ogg"), &[MODEL, ("stream", "true")]);
    let stream = send(to, TRANSCRIPTIONS, body).await.text();
    let events: Vec<&str> = stream
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!(events.last(), Some(&"[DONE]"), "{stream}");
    let events: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (done, deltas) = events.split_last().unwrap();
    let joined: String = deltas.iter().map(|delta| delta["delta"].as_str().unwrap()).collect();
    assert!(deltas.len() >= 3 && joined.trim() == done["text"], "{stream}");
    for (name, code) in [
        ("not-audio.mp3", "unsupported_audio"),
        ("corrupt.wav", "unsupported_audio"),
        ("video-without-sound.mp4", "no_audio_stream"),
        ("empty.wav", "empty_file"),
    ] {
        let reply = send(to, TRANSCRIPTIONS, recording(&sound(name), &[MODEL])).await;
        assert_eq!(
            (error_of(&reply).0, error_of(&reply).1.as_str()),
            (400, code),
            "{name}: {}",
            reply.text()
        );
    }
    server.stop().await;
}

/// An engine of the user's that answers with the form it was sent.
const CUSTOM: &str = r#"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def whole(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.whole(200, {})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode("latin-1")
        if "refuse" in body:
            return self.whole(422, {"error": {"message": "Not this one.", "code": "own_code"}})
        self.whole(200, {"text": "heard", "path": self.path, "type": self.headers["content-type"], "form": body})
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_the_users_gets_the_form() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("engine.py");
    std::fs::write(&script, CUSTOM).unwrap();
    let entry = EntrySettings {
        engine: Some(EngineKind::Custom),
        launch: LaunchOptions::default(),
        ..EntrySettings::default()
    };
    let server = Server::start(Setup {
        custom: BTreeMap::from([(
            "whisper".to_owned(),
            CustomSettings {
                command: vec!["python3".into(), script.to_string_lossy().into_owned(), "{port}".into()],
                ..CustomSettings::default()
            },
        )]),
        library: RegistrySettings {
            entries: BTreeMap::from([("tiny-whisper".to_owned(), entry)]),
            ..RegistrySettings::default()
        },
        ..Setup::default()
    })
    .await;
    let content = vec![b'~'; 300_000];
    let fields: &[(&str, &[u8])] = &[
        ("file", &content),
        ("model", b"whisper-1"),
        ("own_field", b"x"),
        ("timestamp_granularities[]", b"word"),
    ];
    let reply = send(server.management, TRANSCRIPTIONS, form(fields)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let sent = reply.json();
    assert_eq!(sent["path"], TRANSCRIPTIONS);
    let text = sent["form"].as_str().unwrap();
    let boundary = sent["type"].as_str().unwrap().split_once("boundary=").unwrap().1;
    for (name, value) in [("own_field", "x"), ("timestamp_granularities[]", "word")] {
        let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        assert!(text.contains(&part), "{name}");
    }
    assert!(
        text.contains("name=\"model\"") && !text.contains("whisper-1"),
        "the engine's own name"
    );
    assert!(text.contains("filename=\"a.wav\""));
    assert!(text.ends_with(&format!("{}\r\n--{boundary}--\r\n", "~".repeat(content.len()))));
    let refused = recording(b"RIFF", &[("prompt", "refuse"), MODEL]);
    let reply = send(server.management, TRANSCRIPTIONS, refused).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.text());
    assert_eq!(reply.json()["error"]["message"], "Not this one.");
    let dir = server.home.data().join("uploads");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_model_is_fetched_when_the_settings_want_it() {
    let origin = FakeOrigin::start().await.unwrap();
    let files = WhisperCraft::default().files().into_iter();
    let repo = files.fold(HubRepo::new(), |repo, (name, content)| match name {
        "model.bin" => repo.lfs(name, content),
        _ => repo.plain(name, content),
    });
    origin.add_hub_repo("Systran/faster-whisper-base", repo);
    let setup = |auto_download| Setup {
        speech: SpeechSettings {
            python: Some(testkit::stub_speech_path()),
            auto_install: false,
            ..SpeechSettings::default()
        },
        settings: ApiSettings {
            audio: AudioRules {
                auto_download,
                ..settings().audio
            },
            ..settings()
        },
        origin: Some(origin.url()),
        ..Setup::default()
    };
    let body = recording(b"RIFF", &[("model", "base")]);
    let server = Server::start(setup(false)).await;
    assert_eq!(
        send(server.management, TRANSCRIPTIONS, body.clone()).await.status,
        StatusCode::NOT_FOUND
    );
    server.stop().await;
    let server = Server::start(setup(true)).await;
    let (one, other) = tokio::join!(
        send(server.management, TRANSCRIPTIONS, body.clone()),
        send(server.management, TRANSCRIPTIONS, body)
    );
    for reply in [one, other] {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    assert_eq!(server.downloads.jobs().len(), 1, "one download for both");
    for name in ["turbo", "tiny.en", "Systran/faster-distil-whisper-large-v3"] {
        let reply = send(server.management, TRANSLATIONS, recording(b"RIFF", &[("model", name)])).await;
        assert_eq!(error_of(&reply).1, "model_not_supported", "{}", reply.text());
    }
    assert_eq!(
        server.downloads.jobs().len(),
        1,
        "nothing is fetched that could not do it"
    );
    let unknown = recording(b"RIFF", &[("model", "Systran/faster-whisper-nothing")]);
    let reply = send(server.management, TRANSCRIPTIONS, unknown).await;
    assert_eq!(
        (error_of(&reply).0, error_of(&reply).1.as_str()),
        (404, "model_not_found"),
        "{}",
        reply.text()
    );
    server.stop().await;

    // Nobody listens there: as good as no network.
    let server = Server::start(Setup {
        origin: Some("http://127.0.0.1:1".into()),
        ..setup(true)
    })
    .await;
    let reply = send(
        server.management,
        TRANSCRIPTIONS,
        recording(b"RIFF", &[("model", "base")]),
    )
    .await;
    let (status, code, _) = error_of(&reply);
    assert_eq!((status, code.as_str()), (404, "model_not_found"), "{}", reply.text());
    assert!(
        reply.text().contains("llama-runner pull whisper-base"),
        "{}",
        reply.text()
    );
    server.stop().await;
}
