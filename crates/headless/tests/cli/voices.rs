//! `engine voices`, against a hub of our own and the stub of the speech engine.

use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo};

use crate::kit::{Home, json, stderr, stdout};

/// A hub with one German voice of Piper's.
fn hub(runtime: &tokio::runtime::Runtime) -> FakeOrigin {
    let origin = runtime.block_on(FakeOrigin::start()).unwrap();
    let folder = "de/de_DE/thorsten/low";
    let repo = HubRepo::new()
        .lfs(&format!("{folder}/de_DE-thorsten-low.onnx"), vec![7; 5000])
        .plain(&format!("{folder}/de_DE-thorsten-low.onnx.json"), &b"{}"[..])
        .plain(&format!("{folder}/MODEL_CARD"), &b"* License: CC0\n"[..]);
    origin.add_hub_repo("rhasspy/piper-voices", repo);
    origin
}

/// The models that speak.
fn names(models: &Value) -> Vec<&str> {
    let models = models["models"].as_array().unwrap().iter();
    models.map(|model| model["id"].as_str().unwrap()).collect()
}

#[test]
fn voices_are_listed_with_their_licences() {
    let home = Home::new();
    let listed = home.run(&["engine", "voices"]);
    let text = stdout(&listed);
    assert_eq!(listed.status.code(), Some(0), "{}", stderr(&listed));
    for part in [
        "kokoro",
        "Apache-2.0",
        "piper",
        "GPL-3.0-or-later",
        "not installed",
        "354.0 MB",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let listed = json(&home.run(&["engine", "voices", "list", "--json"]));
    assert_eq!(listed[0]["name"], "kokoro");
    assert_eq!(
        (&listed[1]["files"], &listed[1]["environment"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn voices_are_installed_after_their_licence_was_agreed_to() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (home, origin) = (Home::new(), hub(&runtime));
    home.write_config(
        &json!({ "downloads": { "huggingface_base_url": origin.url(), "allow_private_hosts": true } }).to_string(),
    );
    let install = ["engine", "voices", "install", "piper", "--voice", "de_DE-thorsten-low"];
    // Nobody is there to agree.
    let refused = home.run(&install);
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(said.contains("CC0") && said.contains("--yes"), "{said}");
    assert_eq!(json(&home.run(&["engine", "voices", "--json"]))[1]["files"], false);

    // Without a server running, and with one; then it speaks at once.
    let installed = home.run(&[&install[..], &["--yes"]].concat());
    assert_eq!(installed.status.code(), Some(0), "{}", stderr(&installed));
    assert!(stdout(&installed).contains("piper-tts"), "{}", stdout(&installed));
    assert_eq!(json(&home.run(&["engine", "voices", "--json"]))[1]["files"], true);
    let server = home.serve(&[]);
    let models = server.get("/v1/audio/models");
    assert!(names(&models).contains(&"piper"), "{models:#}");
    let file = home.home.path().join("said.mp3");
    let spoken = server.verb(&[
        "speak",
        "--model",
        "piper",
        "--voice",
        "alloy",
        "-o",
        &file.display().to_string(),
        "Guten Tag.",
    ]);
    assert_eq!(spoken.status.code(), Some(0), "{}", stderr(&spoken));
    assert!(std::fs::read_to_string(&file).unwrap().contains("Guten Tag."));
}

#[test]
fn voices_installed_while_the_server_runs_are_there_at_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (home, origin) = (Home::new(), hub(&runtime));
    home.write_config(
        &json!({ "downloads": { "huggingface_base_url": origin.url(), "allow_private_hosts": true } }).to_string(),
    );
    let server = home.serve(&[]);
    let wrong = server.verb(&[
        "engine",
        "voices",
        "install",
        "piper",
        "--voice",
        "de_DE-nobody-low",
        "--yes",
    ]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("piper-voices"), "{}", stderr(&wrong));
    let done = server.verb(&[
        "engine",
        "voices",
        "install",
        "piper",
        "--voice",
        "de_DE-thorsten-low",
        "--yes",
        "--json",
    ]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(json(&done)["voices"], "piper/de_DE-thorsten-low");
    let models = server.get("/v1/audio/models");
    assert!(names(&models).contains(&"piper"), "{models:#}");
}

/// An engine of the user's that speaks OpenAI's API: the sound is what it was asked.
const ENGINE: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "audio/wav")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[test]
fn a_command_of_the_settings_speaks() {
    let home = Home::new();
    let script = home.home.path().join("engine.py");
    std::fs::write(&script, ENGINE).unwrap();
    let engine = json!({ "command": ["python3", script, "{port}"], "speaks": ["grand-voice"] });
    home.write_config(&json!({ "engines": { "custom": { "mine": engine } } }).to_string());
    let server = home.serve(&[]);
    assert!(names(&server.get("/v1/audio/models")).contains(&"grand-voice"));
    let file = home.home.path().join("said.wav");
    let out = file.display().to_string();
    let spoken = server.verb(&[
        "speak",
        "--model",
        "mine/grand-voice",
        "--voice",
        "any",
        "-o",
        &out,
        "Hello.",
    ]);
    assert_eq!(spoken.status.code(), Some(0), "{}", stderr(&spoken));
    let asked: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(
        (&asked["model"], &asked["voice"]),
        (&json!("grand-voice"), &json!("any"))
    );
    assert!(asked["input"].as_str().unwrap().starts_with("Hello."));
}
