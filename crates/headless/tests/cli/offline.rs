//! Verbs that need no server, and what the others say without one.

use serde_json::json;

use crate::kit::{Home, json, stderr, stdout};

#[test]
fn wrong_usage_is_code_2() {
    let home = Home::new();
    for arguments in [
        &["nonsense"][..],
        &["serve", "--ollama-port", "x"],
        &["serve", "--ollama-port", "70000"],
        &[],
    ] {
        assert_eq!(home.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(home.run(&["--version"]).status.code(), Some(0));
    let help = stdout(&home.run(&["--help"]));
    for verb in [
        "serve",
        "list",
        "ps",
        "show",
        "run",
        "transcribe",
        "speak",
        "start",
        "stop",
        "logs",
        "config",
        "engine",
        "doctor",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {verb}")), "{verb} in {help}");
    }
}

#[test]
fn verbs_without_a_server_say_how_to_start_one() {
    let home = Home::new();
    // A port that is certainly closed.
    let url = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    for verb in [
        &["list"][..],
        &["ps"],
        &["show", "m"],
        &["start", "m"],
        &["stop", "m"],
        &["logs", "m"],
        &["run", "m", "hi"],
        &["transcribe", "-"],
        &["speak", "hi", "-o", "x.mp3"],
        &["speak", "--voices"],
    ] {
        let output = home.run(&[verb, &["--management-url", &url]].concat());
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert!(
            stderr(&output).contains("Start one with: llama-runner serve"),
            "{verb:?}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{verb:?}");
    }
}

#[test]
fn config_check_names_line_column_and_field() {
    let home = Home::new();
    let valid = home.run(&["config", "check"]);
    assert_eq!(valid.status.code(), Some(0));
    assert!(!home.config().exists(), "checking makes nothing");
    home.write_config("{\n  \"scheduler\": {\n    \"max_queue\": \"many\"\n  }\n}");
    let broken = home.run(&["config", "check"]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(
        stderr(&broken).contains("config.json line 3, column 18: scheduler.max_queue:"),
        "{}",
        stderr(&broken)
    );
    let broken = home.run(&["--json", "config", "check"]);
    assert_eq!(broken.status.code(), Some(2));
    let document = json(&broken);
    assert_eq!(
        (&document["ok"], &document["errors"][0]["line"]),
        (&json!(false), &json!(3))
    );
    home.write_config("{\"scheduler\": {\"max_queu\": 1}}");
    let warned = home.run(&["config", "check"]);
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        stdout(&warned).contains("Did you mean \"max_queue\"?"),
        "{}",
        stdout(&warned)
    );
    assert_eq!(
        home.run(&["--config", "/none.json", "config", "check"]).status.code(),
        Some(2)
    );
}

#[test]
fn config_path_and_schema() {
    let home = Home::new();
    let path = stdout(&home.run(&["config", "path"]));
    assert_eq!(path.trim_end(), home.config().display().to_string());
    let schema = json(&home.run(&["config", "schema"]));
    assert!(schema["properties"]["proxies"].is_object());
}

#[test]
fn a_setting_that_only_the_engine_crate_can_judge_is_checked() {
    let home = Home::new();
    home.write_config(r#"{"engines": {"llama_server": {"args": ["--host", "0.0.0.0"]}}}"#);
    let output = home.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("engines.llama_server.args: The engine argument '--host' is not allowed"));
}

#[test]
fn doctor_reports_and_fails_on_a_problem() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    home.write_config(&format!(
        r#"{{"proxies": {{"ollama": {{"port": {port}}}, "lmstudio": {{"port": 0}}, "management": {{"port": 0}}}}}}"#
    ));
    let output = home.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let checks = json(&output)["checks"].as_array().unwrap().clone();
    let of = |name: &str| {
        checks
            .iter()
            .find(|c| c["name"] == name)
            .unwrap_or_else(|| panic!("{name} in {checks:#?}"))
    };
    assert_eq!(of("port ollama")["outcome"], "problem");
    let message = of("port ollama")["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("process {}", std::process::id())),
        "{message}"
    );
    assert_eq!(of("port lmstudio")["outcome"], "ok");
    assert_eq!(of("engine")["outcome"], "ok", "{checks:#?}");
    drop(taken);
    let text = stdout(&home.run(&["doctor"]));
    assert!(
        text.contains("graphics") && text.contains("disk (data)") && text.contains("memory"),
        "{text}"
    );
}

#[test]
fn engine_info_shows_the_engine_or_what_to_do() {
    let home = Home::new();
    let info = json(&home.run(&["engine", "info", "--json"]));
    assert_eq!(info["available"], true, "{info}");
    let output = home
        .command(&["engine", "info"])
        .env("LLAMARUNNER_LLAMA_SERVER", "/none")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/none"), "{}", stderr(&output));
}

/// Stands for the system's Python and for pip; the environment it makes has the stub speech engine for an interpreter.
const PYTHON: &str = r#"#!/bin/sh
case "$*" in
*ensurepip*) echo '{"version": [3, 12, 1], "executable": "%/python3", "venv": true, "tag": "", "gil": true}' ;;
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; ln -s %/python3 "$last/bin/python" ;;
*"-m pip install"*) [ -e %/offline ] && { echo "ERROR: Failed to establish a new connection" >&2; exit 1; }
    echo "Collecting av==17.1.0" ;;
*) exec STUB "$@" ;;
esac
"#;

#[test]
fn the_speech_engine_is_shown_and_installed() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let folder = home.home.path().join("programs");
    std::fs::create_dir_all(&folder).unwrap();
    let stub = testkit::stub_speech_path();
    let text = PYTHON
        .replace('%', &folder.to_string_lossy())
        .replace("STUB", &stub.to_string_lossy());
    std::fs::write(folder.join("python3"), text).unwrap();
    std::fs::set_permissions(folder.join("python3"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let whisper = |arguments: &[&str]| {
        let mut command = home.command(&[&["engine", "whisper"], arguments].concat());
        command
            .env_remove("LLAMARUNNER_SPEECH_PYTHON")
            .env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        command.output().unwrap()
    };
    let output = whisper(&["info"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("engine whisper install"),
        "{}",
        stdout(&output)
    );

    std::fs::write(folder.join("offline"), "").unwrap();
    let output = whisper(&["install"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("Connect to the internet"),
        "{}",
        stderr(&output)
    );
    std::fs::remove_file(folder.join("offline")).unwrap();

    let output = whisper(&["install"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("The speech engine is ready"),
        "{}",
        stdout(&output)
    );
    assert!(stderr(&output).contains("fetching packages"), "{}", stderr(&output));
    let python = json(&whisper(&["install", "--json"]))["python"].clone();
    let output = whisper(&["info", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let info = json(&output);
    assert_eq!(
        (&info["state"], &info["python"]),
        (&serde_json::json!("ready"), &python)
    );
    assert_eq!(info["faster_whisper"], "1.2.1");

    // An interpreter that somebody named is used as it is.
    let output = home.run(&["engine", "whisper", "install"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("LLAMARUNNER_SPEECH_PYTHON"),
        "{}",
        stderr(&output)
    );
    let info = json(&home.run(&["engine", "info", "--json"]));
    assert_eq!(info["speech"]["named_by"], "LLAMARUNNER_SPEECH_PYTHON", "{info}");
    let doctor = |python: &std::path::Path| {
        let mut command = home.command(&["doctor", "--json"]);
        let report = json(&command.env("LLAMARUNNER_SPEECH_PYTHON", python).output().unwrap());
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "speech").unwrap()
    };
    assert_eq!(doctor(&stub)["outcome"], "ok");
    assert_eq!(doctor(std::path::Path::new("/none"))["outcome"], "problem");
}

#[test]
fn completions_and_routes() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&home.run(&["completions", shell])).contains("doctor"), "{shell}");
    }
    let routes = json(&home.run(&["routes", "--json"]));
    let has = |path: &str| routes.as_array().unwrap().iter().any(|r| r["path"] == path);
    assert!(has("/api/chat") && has("/v1/chat/completions") && has("/v1/state"));
}
