//! Engines of the user's own, and voices that are fetched on request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::engines::CustomSettings;
use domain::EngineKind;
use http::StatusCode;
use models::{RegistrySettings, VoiceEngine};
use serde_json::json;
use testkit::{FakeOrigin, HubRepo};

use super::{JSON, SPEECH, Shared, voice};
use crate::harness::{Server, Setup, call, get, post, until};

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
        if self.path == "/v1/audio/voices" and sys.argv[2] == "hd":
            self.whole(200, b'{"voices": ["loud", "low"]}')
        elif self.path == "/v1/audio/voices" and sys.argv[2] == "dead":
            self.close_connection = True
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

/// A server whose models are all of that engine.
async fn with_custom(shared: &Shared, voices: Vec<VoiceEngine>) -> Server {
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
    Server::start(Setup {
        custom: BTreeMap::from([("mine".to_owned(), settings)]),
        library: RegistrySettings {
            voices,
            ..RegistrySettings::default()
        },
        ..Setup::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn voices_of_an_engine_that_breaks_off_are_not_just_none() {
    let shared = Shared::new();
    let voices = ["mute", "dead"].map(|name| voice(name, EngineKind::Custom, "mine", name));
    let server = with_custom(&shared, voices.into()).await;
    let mute = get(server.management, "/v1/audio/voices?model=mute").await;
    assert_eq!(mute.json()["data"], json!([]), "OpenAI's API has no such route");
    let dead = get(server.management, "/v1/audio/voices?model=dead").await;
    assert_eq!(dead.status, StatusCode::BAD_GATEWAY, "{}", dead.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_engine_is_asked_in_the_clients_words() {
    let shared = Shared::new();
    let mut mine = voice("mine-hd", EngineKind::Custom, "mine", "hd");
    mine.aliases = vec!["mine/hd".into()];
    mine.display_name = "hd".into();
    let ear = VoiceEngine {
        hears: true,
        ..voice("ear", EngineKind::Custom, "mine", "ear")
    };
    let server = with_custom(&shared, vec![mine, ear]).await;
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
