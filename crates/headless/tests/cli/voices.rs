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
