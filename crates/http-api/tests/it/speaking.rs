//! `/v1/audio/speech` and its lists, with the stub of the speech program and a custom engine in Python.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use domain::{EngineKind, LaunchOptions};
use engines::CustomSettings;
use engines::speech::SpeechSettings;
use http::StatusCode;
use http_body_util::BodyExt;
use models::{EntrySettings, RegistrySettings, VoiceEngine};
use serde_json::{Value, json};

use testkit::{FakeOrigin, HubRepo};

use crate::harness::{Server, Setup, call, drain, get, open, patiently, post, until};

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

/// An engine of the user's: answers in two chunks, tells what it was asked, and knows two voices.
const CUSTOM: &str = r#"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def whole(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/v1/audio/voices":
            self.whole(200, b'{"voices": ["loud", "low"]}')
        else:
            self.whole(200 if self.path == "/ready" else 404, b"{}")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"].startswith("multipart"):
            heard = {"path": self.path, "form": body.decode()}
            return self.whole(200, json.dumps(heard).encode())
        asked = json.loads(body)
        if asked.get("input") == "refuse":
            return self.whole(422, b'{"error": {"message": "No such voice.", "type": "invalid_request_error", "code": "bad_voice"}}')
        self.send_response(200)
        self.send_header("content-type", "audio/x-mine")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (sys.argv[2].encode() + b" " + self.path.encode() + b" ", body):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_engine_is_asked_in_the_clients_words() {
    let shared = Shared::new();
    let script = shared.path("engine.py");
    std::fs::write(&script, CUSTOM).unwrap();
    let python = which("python3");
    let words = [python.as_path(), &script, Path::new("{port}"), Path::new("{model}")];
    let command = words.map(|word| word.to_string_lossy().into_owned()).into();
    let settings = CustomSettings {
        command,
        health_path: "/ready".into(),
        ..CustomSettings::default()
    };
    let mut mine = voice("mine-hd", EngineKind::Custom, "mine", "hd");
    mine.aliases = vec!["mine/hd".into()];
    mine.display_name = "hd".into();
    let ear = VoiceEngine {
        hears: true,
        ..voice("ear", EngineKind::Custom, "mine", "ear")
    };
    let server = Server::start(Setup {
        custom: BTreeMap::from([("mine".to_owned(), settings)]),
        library: RegistrySettings {
            voices: vec![mine, ear],
            ..RegistrySettings::default()
        },
        ..Setup::default()
    })
    .await;
    // Longer than OpenAI allows, with fields of its own, and its own format: none of our business.
    let long = "long ".repeat(1000);
    let sent = format!(r#"{{"input": "{long}", "model":"mine-hd", "mood" : [1,2], "response_format": "mine"}}"#);
    let reply = call(server.management, "POST", SPEECH, JSON, sent.clone()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "audio/x-mine");
    assert_eq!(reply.header("content-length"), "");
    assert_eq!(reply.text(), format!("hd {SPEECH} {}", sent.replace("mine-hd", "hd")));
    // It is the only one, so OpenAI's names mean it too.
    let reply = post(server.management, SPEECH, &json!({"input": "x", "model": "mine/hd"})).await;
    assert!(
        reply.text().ends_with(r#"{"input":"x","model":"hd"}"#),
        "{}",
        reply.text()
    );
    let reply = post(server.management, SPEECH, &json!({"input": "x"})).await;
    assert!(reply.text().contains(r#""model":"hd""#), "{}", reply.text());
    let reply = post(server.management, SPEECH, &json!({"input": "refuse"})).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.text());
    assert_eq!(reply.json()["error"]["message"], "No such voice.");
    let voices = get(server.management, "/v1/audio/voices?model=mine-hd").await.json();
    assert_eq!(voices["data"][1]["id"], "low");
    assert_eq!(voices["data"][1]["model"], "mine-hd");

    // A recording goes the same way.
    let form = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\near\r\n--x\r\nContent-Disposition: form-data; \
                name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--x\r\nContent-Disposition: form-data; name=\"mood\"\
                \r\n\r\nglad\r\n--x--\r\n";
    let multipart = [("content-type", "multipart/form-data; boundary=x")];
    let reply = call(server.management, "POST", "/v1/audio/transcriptions", &multipart, form).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let heard = reply.json();
    assert_eq!(heard["path"], "/v1/audio/transcriptions");
    for part in ["name=\"model\"\r\n\r\near\r\n", "RIFF", "glad"] {
        assert!(heard["form"].as_str().unwrap().contains(part), "{part}: {heard}");
    }
    // Text to speech by OpenAI's names never means a model that only hears.
    let reply = post(server.management, SPEECH, &json!({"input": "x", "model": "ear"})).await;
    assert_eq!(reply.json()["error"]["code"], "model_not_supported");
    server.stop().await;
}

fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.expect("cargo xtask test needs Python")
}

const VOICE: &str = "en/en_US/ljspeech/medium/en_US-ljspeech-medium.onnx";

/// The hub with one voice of Piper's, and Kokoro's files.
async fn hub() -> FakeOrigin {
    let origin = FakeOrigin::start().await.unwrap();
    let piper = HubRepo::new()
        .lfs(VOICE, vec![7; 5000])
        .plain(&format!("{VOICE}.json"), &b"{}"[..])
        .plain(
            "en/en_US/ljspeech/medium/MODEL_CARD",
            &b"* License: public domain\n"[..],
        )
        .plain("de/de_DE/other/low/MODEL_CARD", &b"* License: other\n"[..]);
    origin.add_hub_repo("rhasspy/piper-voices", piper);
    let kokoro = HubRepo::new()
        .lfs("kokoro-v1.0.onnx", vec![1; 3000])
        .lfs("voices-v1.0.bin", vec![2; 2000])
        .plain("README.md", &b"x"[..]);
    origin.add_hub_repo("fastrtc/kokoro-onnx", kokoro);
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn voices_are_fetched_on_request_and_their_licences_shown() {
    let origin = hub().await;
    let server = Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await;
    let packs = get(server.management, "/v1/audio/packs").await.json();
    assert_eq!(packs["packs"][0]["name"], "kokoro");
    assert!(
        packs["packs"][1]["licence"]
            .as_str()
            .unwrap()
            .contains("GPL-3.0-or-later")
    );
    let offer = get(server.management, "/v1/audio/packs?name=piper%2Fen_US-ljspeech-medium")
        .await
        .json();
    assert_eq!(offer["card"], "* License: public domain");
    assert_eq!(
        (offer["bytes"].as_u64(), &offer["downloaded"]),
        (Some(5027), &json!(false))
    );

    for name in ["piper", "kokoro"] {
        let job = post(server.management, "/v1/downloads", &json!({ "voices": name })).await;
        assert_eq!(job.status, StatusCode::ACCEPTED, "{}", job.text());
        let id = domain::JobId(job.json()["id"].as_str().unwrap().to_owned());
        until("the voices", || {
            let view = server.downloads.job(&id).unwrap().view();
            assert_ne!(view.state, domain::JobState::Failed, "{view:?}");
            view.state == domain::JobState::Completed
        })
        .await;
    }
    let folder = server.home.data().join("models/voices");
    let names = |pack: &str| {
        let mut names: Vec<String> = std::fs::read_dir(folder.join(pack))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("piper"),
        [
            "en_US-ljspeech-medium.MODEL_CARD",
            "en_US-ljspeech-medium.onnx",
            "en_US-ljspeech-medium.onnx.json"
        ]
    );
    assert_eq!(names("kokoro"), ["kokoro-v1.0.onnx", "voices-v1.0.bin"]);
    let offer = get(server.management, "/v1/audio/packs?name=piper").await.json();
    assert_eq!(offer["downloaded"], true);

    for (name, status) in [
        ("nothing", StatusCode::BAD_REQUEST),
        ("piper%2F..%2F..%2Fx", StatusCode::BAD_REQUEST),
        ("piper%2Fxx_YY-nobody-low", StatusCode::NOT_FOUND),
        ("kokoro%2Faf_heart", StatusCode::BAD_REQUEST),
    ] {
        let reply = get(server.management, &format!("/v1/audio/packs?name={name}")).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
    }
    server.stop().await;
}
