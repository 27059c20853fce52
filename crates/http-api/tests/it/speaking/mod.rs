//! `/v1/audio/speech` and its lists, with the stub of the speech program.

mod engines;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::engines::speech::SpeechSettings;
use base64::Engine as _;
use domain::{EngineKind, LaunchOptions};
use http::StatusCode;
use http_body_util::BodyExt;
use models::{EntrySettings, RegistrySettings, VoiceEngine};
use serde_json::{Value, json};

use crate::harness::{Server, Setup, drain, get, open, patiently, post, until};

const SPEECH: &str = "/v1/audio/speech";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn voice(key: &str, engine: EngineKind, backend: &str, path: &str) -> VoiceEngine {
    VoiceEngine {
        key: key.into(),
        engine,
        backend: backend.into(),
        path: path.into(),
        display_name: key.into(),
        ..VoiceEngine::default()
    }
}

/// A folder for the files that a test and the stub share.
struct Shared {
    folder: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the next requests meet.
    fn script(&self, speak: &Value) {
        std::fs::write(self.path("script.json"), json!({ "speak": speak }).to_string()).unwrap();
    }

    fn record(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn count(&self, event: &str) -> usize {
        self.record().iter().filter(|line| line["event"] == event).count()
    }
}

fn library(shared: &Shared) -> RegistrySettings {
    let text = |name: &str| shared.path(name).to_string_lossy().into_owned();
    let env = vec![
        ("STUB_RECORD".to_owned(), text("record")),
        ("STUB_SCRIPT".to_owned(), text("script.json")),
    ];
    let entry = EntrySettings {
        launch: LaunchOptions {
            env,
            ..LaunchOptions::default()
        },
        ..EntrySettings::default()
    };
    let mut espeak = voice("espeak-ng", EngineKind::Speech, "espeak-ng", "");
    espeak.aliases = vec!["espeak".into()];
    RegistrySettings {
        voices: vec![espeak, voice("kokoro-here", EngineKind::Speech, "platform", "")],
        entries: BTreeMap::from([("espeak-ng".to_owned(), entry)]),
        ..RegistrySettings::default()
    }
}

fn stub() -> SpeechSettings {
    SpeechSettings {
        python: Some(testkit::stub_speech_path()),
        ..SpeechSettings::default()
    }
}

async fn with_voices(shared: &Shared) -> Server {
    Server::start(Setup {
        speech: stub(),
        library: library(shared),
        ..Setup::default()
    })
    .await
}

/// The sound of the stub is what it was asked, as text.
fn said(format: &str, voice: &str, speed: &str, sentences: &[&str]) -> String {
    let mut text = format!("{format} {voice} {speed}\n");
    for sentence in sentences {
        text.push_str(sentence);
        text.push('\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_spoken_sentence_by_sentence() {
    let shared = Shared::new();
    let server = with_voices(&shared).await;
    for to in [server.management, server.ollama, server.lmstudio] {
        let body = json!({"model": "tts-1", "input": "Hello there, my friend. How are you today?", "voice": "nova", "speed": 1.5});
        let reply = post(to, SPEECH, &body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        assert_eq!(reply.header("content-type"), "audio/mpeg");
        assert_eq!(reply.header("content-length"), "");
        assert_eq!(reply.header("transfer-encoding"), "chunked");
        let sentences = ["Hello there, my friend.", "How are you today?"];
        assert_eq!(reply.text(), said("mp3", "nova", "1.5", &sentences));
    }
    for (format, content_type) in [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm"),
    ] {
        let body = json!({"input": "A word for you.", "voice": {"id": "de"}, "response_format": format});
        let reply = post(server.management, SPEECH, &body).await;
        assert_eq!(reply.header("content-type"), content_type);
        assert_eq!(reply.text(), said(format, "de", "1.0", &["A word for you."]));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sound_is_there_before_the_last_is_made() {
    let shared = Shared::new();
    let gate = shared.path("gate");
    shared.script(&json!({"steps": [{"raw": "first"}, {"gate": gate}, {"raw": "last"}]}));
    let server = with_voices(&shared).await;
    let body = json!({"input": "One. Two."}).to_string();
    let answer = open(server.management, "POST", SPEECH, JSON, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    let first = patiently("the first sound", body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    std::fs::write(gate, "").unwrap();
    assert_eq!(drain(body).await, b"last");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_hold_the_same_sound() {
    let shared = Shared::new();
    let server = with_voices(&shared).await;
    let body = json!({"input": "Said in events, all of it.", "stream_format": "sse", "response_format": "wav"});
    let reply = post(server.management, SPEECH, &body).await;
    assert!(
        reply.header("content-type").starts_with("text/event-stream"),
        "{reply:?}"
    );
    let text = reply.text();
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let (done, deltas) = events.split_last().unwrap();
    assert_eq!(done["type"], "speech.audio.done");
    assert!(done["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let joined: String = deltas.iter().map(|delta| delta["audio"].as_str().unwrap()).collect();
    let sound = base64::engine::general_purpose::STANDARD.decode(joined).unwrap();
    let expected = said("wav", "alloy", "1.0", &["Said in events, all of it."]);
    assert_eq!(String::from_utf8(sound).unwrap(), expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_fields_are_checked() {
    let shared = Shared::new();
    let server = with_voices(&shared).await;
    let ask = async |body: Value| {
        let reply = post(server.management, SPEECH, &body).await;
        let error = reply.json()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (reply.status.as_u16(), text("code"), text("param"), text("message"))
    };
    for model in [
        "espeak-ng",
        "espeak",
        "ESPEAK-NG",
        "tts-1",
        "tts-1-hd",
        "gpt-4o-mini-tts",
        "",
    ] {
        let body = json!({"model": model, "input": "A word for you."});
        let reply = post(server.management, SPEECH, &body).await;
        assert_eq!(reply.status, StatusCode::OK, "{model}: {}", reply.text());
    }
    let (status, code, param, message) = ask(json!({"input": "x", "voice": "nobody"})).await;
    assert_eq!(
        (status, code.as_str(), param.as_str()),
        (400, "voice_not_found", "voice")
    );
    assert!(message.contains("en-us"), "{message}");
    for (body, expected) in [
        (
            json!({"input": "x".repeat(4097)}),
            (400, "string_above_max_length", "input"),
        ),
        (json!({"input": " \n "}), (400, "invalid_value", "input")),
        (json!({"voice": "alloy"}), (400, "missing_required_parameter", "input")),
        (json!({"input": "x", "speed": 5}), (400, "invalid_value", "speed")),
        (
            json!({"input": "x", "response_format": "wma"}),
            (400, "invalid_value", "response_format"),
        ),
        (
            json!({"input": "x", "model": "nothing-here"}),
            (404, "model_not_found", "model"),
        ),
        (
            json!({"input": "x", "model": "tiny-chat"}),
            (400, "model_not_supported", "model"),
        ),
    ] {
        let (status, code, param, message) = ask(body).await;
        assert_eq!((status, code.as_str(), param.as_str()), expected, "{message}");
    }
    let (status, code, _, message) = ask(json!({"input": "x", "model": "kokoro"})).await;
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    assert!(message.contains("engine voices install kokoro"), "{message}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_before_the_first_sound_is_followed_by_another() {
    let shared = Shared::new();
    shared.script(&json!({"before": [{"die": "signal:9"}], "once": shared.path("once")}));
    let server = with_voices(&shared).await;
    let reply = post(server.management, SPEECH, &json!({"input": "A word for you."})).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(reply.text(), said("mp3", "alloy", "1.0", &["A word for you."]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_always_dies_is_an_error() {
    let shared = Shared::new();
    shared.script(&json!({"before": [{"die": "exit:1"}]}));
    let server = with_voices(&shared).await;
    let reply = post(server.management, SPEECH, &json!({"input": "x"})).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "engine_failed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_that_breaks_off_never_looks_whole() {
    let shared = Shared::new();
    shared.script(&json!({"steps": [{"raw": "half"}, {"die": "exit:1"}]}));
    let server = with_voices(&shared).await;
    let body = json!({"input": "x"}).to_string();
    let answer = open(server.management, "POST", SPEECH, JSON, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let whole = patiently("the end", answer.into_body().collect()).await;
    assert!(whole.is_err(), "{whole:?}");

    let body = json!({"input": "x", "stream_format": "sse"});
    let reply = post(server.management, SPEECH, &body).await;
    let text = reply.text();
    assert!(
        text.contains("\"error\"") && !text.contains("speech.audio.done"),
        "{text}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_stops_when_the_client_leaves() {
    let shared = Shared::new();
    shared.script(&json!({"steps": [{"raw": "first"}, {"gate": shared.path("never")}], "once": shared.path("once")}));
    let server = with_voices(&shared).await;
    let body = json!({"input": "x"}).to_string();
    let answer = open(server.management, "POST", SPEECH, JSON, body).await;
    let mut body = answer.into_body();
    patiently("the first sound", body.frame()).await.unwrap().unwrap();
    drop(body);
    until("the engine to notice", || shared.count("gone") == 1).await;
    // The slot is free: the next one is served.
    let reply = post(server.management, SPEECH, &json!({"input": "A word for you."})).await;
    assert_eq!(reply.status, StatusCode::OK);
    server.stop().await;
}

/// A look at a list must not fetch half a gigabyte.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_voices_installs_nothing() {
    let server = Server::start(Setup {
        library: RegistrySettings {
            voices: vec![voice("espeak-ng", EngineKind::Speech, "espeak-ng", "")],
            ..RegistrySettings::default()
        },
        speech: SpeechSettings {
            python: Some("/nonexistent/python".into()),
            ..SpeechSettings::default()
        },
        ..Setup::default()
    })
    .await;
    let list = get(server.management, "/v1/audio/voices").await.json();
    let names: Vec<&str> = list["voices"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|voice| voice["id"].as_str())
        .collect();
    assert_eq!(names.len(), 13, "{names:?}");
    assert!(names.contains(&"alloy") && names.contains(&"cedar"));
    assert!(server.router.instances().is_empty());
    assert_eq!(
        get(server.management, "/v1/audio/voices?model=espeak-ng").await.status,
        503
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn voices_and_models_are_listed() {
    let shared = Shared::new();
    let server = with_voices(&shared).await;
    let reply = get(server.management, "/v1/audio/voices?model=espeak-ng").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let list = reply.json();
    let expected = json!({"id": "de", "name": "German", "language": "de", "gender": "male", "model": "espeak-ng"});
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1], expected);
    assert_eq!(list["voices"], list["data"]);
    // All that speak, started one after the other.
    let all = get(server.management, "/v1/audio/voices").await.json();
    let models: Vec<&str> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|voice| voice["model"].as_str().unwrap())
        .collect();
    assert!(
        models.contains(&"espeak-ng") && models.contains(&"kokoro-here"),
        "{models:?}"
    );
    assert_eq!(
        get(server.management, "/v1/audio/voices?model=tiny-chat").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        get(server.management, "/v1/audio/voices?model=nobody").await.status,
        StatusCode::NOT_FOUND
    );

    let models = get(server.management, "/v1/audio/models").await.json();
    let names: Vec<&str> = models["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"espeak-ng") && !ids.contains(&"tiny-chat"), "{ids:?}");
    let all = get(server.management, "/v1/models").await.text();
    assert!(all.contains("\"speech\"") && all.contains("espeak-ng"), "{all}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_answer_says_what_to_do() {
    let server = Server::plain().await;
    let reply = post(server.management, SPEECH, &json!({"input": "x"})).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "engine_not_installed");
    assert!(error["message"].as_str().unwrap().contains("espeak-ng"), "{error}");
    server.stop().await;

    // The program's environment is missing and not to be made.
    let shared = Shared::new();
    let server = Server::start(Setup {
        speech: SpeechSettings {
            auto_install: false,
            ..SpeechSettings::default()
        },
        library: library(&shared),
        ..Setup::default()
    })
    .await;
    let reply = post(server.management, SPEECH, &json!({"input": "x"})).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "engine_not_installed");
    server.stop().await;
}
