//! Verbs that talk to a server.

use serde_json::json;

use crate::kit::{Home, json, models_dir, stderr, stdout};

#[test]
fn the_life_of_a_model() {
    let home = Home::new();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let listed = stdout(&server.verb(&["list"]));
    assert!(
        listed.starts_with("NAME") && listed.contains("tiny-embed") && listed.contains("MB"),
        "{listed}"
    );
    let whisper = listed
        .lines()
        .find(|line| line.starts_with("tiny-whisper "))
        .expect("it is listed");
    let columns: Vec<&str> = whisper
        .split("   ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(
        columns,
        [
            "tiny-whisper",
            "speech to text",
            "8.8 MB",
            "INT8",
            "5.7M",
            "–",
            "unloaded"
        ]
    );
    let shown = stdout(&server.verb(&["show", "tiny-whisper"]));
    assert!(
        shown.contains("CTranslate2") && shown.contains("transcription, translation"),
        "{shown}"
    );
    let refused = server.verb(&["run", "tiny-whisper", "Hello"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(stderr(&refused).contains("tiny-whisper"), "{}", stderr(&refused));
    let models = json(&server.verb(&["list", "--json"]));
    assert!(
        models["models"]
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["key"] == "tiny-chat"),
        "{models}"
    );
    assert_eq!(json(&server.verb(&["ps", "--json"]))["instances"], json!([]));

    let started = server.verb(&["start", "tiny-chat"]);
    assert_eq!(started.status.code(), Some(0), "{}", stderr(&started));
    assert!(
        stdout(&started).starts_with("tiny-chat is loaded"),
        "{}",
        stdout(&started)
    );
    assert!(stdout(&server.verb(&["start", "tiny-chat"])).contains("already loaded"));
    let instances = json(&server.verb(&["ps", "--json"]));
    assert_eq!(instances["instances"][0]["model"], "tiny-chat");
    assert!(stdout(&server.verb(&["ps"])).contains("tiny-chat"));

    let shown = stdout(&server.verb(&["show", "tiny-chat"]));
    assert!(shown.contains("architecture") && shown.contains("ready"), "{shown}");
    let logs = server.verb(&["logs", "tiny-chat"]);
    assert_eq!(logs.status.code(), Some(0), "{}", stderr(&logs));
    assert!(!stdout(&logs).is_empty());
    assert!(
        stdout(&server.verb(&["logs"])).contains("ready"),
        "the server's own log"
    );

    let stopped = server.verb(&["stop", "tiny-chat"]);
    assert_eq!(stopped.status.code(), Some(0), "{}", stderr(&stopped));
    assert_eq!(json(&server.verb(&["ps", "--json"]))["instances"], json!([]));
}

#[test]
fn an_unknown_model_is_a_clear_failure() {
    let home = Home::new();
    let server = home.serve(&[]);
    for verb in [
        &["show", "none"][..],
        &["start", "none"],
        &["stop", "none"],
        &["logs", "none"],
        &["run", "none", "hi"],
    ] {
        let output = server.verb(verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(stderr(&output).contains("none"), "{verb:?}: {}", stderr(&output));
    }
}

#[test]
fn run_answers_with_a_server_of_its_own() {
    let home = Home::real();
    let output = home.run(&["run", "tiny-chat", "--temperature", "0", "What", "is", "2", "+", "3?"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "5\n");
}

#[test]
fn run_uses_the_running_server_and_reads_a_pipe() {
    let home = Home::real();
    let server = home.serve(&["--models-dir", &models_dir()]);
    let output = server.verb(&["run", "--json", "--temperature", "0", "tiny-chat", "ping"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer = json(&output);
    assert_eq!(
        (&answer["content"], &answer["finish_reason"]),
        (&json!("pong"), &json!("stop"))
    );
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    assert_eq!(
        json(&server.verb(&["ps", "--json"]))["instances"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    use std::io::Write;
    let mut piped = home
        .command(&["run", "tiny-chat", "--temperature", "0"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(b"Who are you?\n").unwrap();
    let output = piped.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "I am Tiny, a test model.\n");
}
