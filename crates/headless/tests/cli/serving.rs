//! `serve`: ready line, ports, exit codes, signals, reload, and what is left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::ProcessProbe;

use crate::kit::{Home, Server, get, models_dir, stderr, stdout, wait};

#[test]
fn one_ready_line_then_quiet_and_code_0_on_sigterm() {
    let home = Home::new();
    let mut server = home.serve(&[]);
    let ready = server.ready.clone();
    assert_eq!(ready["event"], "ready");
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(ready["pid"], server.child.id());
    assert!(ready.get("problems").is_none(), "{ready}");
    assert!(
        server.line.starts_with("{\"event\":\"ready\",\"version\":\""),
        "{}",
        server.line
    );
    for listener in ["ollama", "lmstudio", "management"] {
        assert!(
            get(server.address(listener), "/health").0.starts_with("HTTP/1.1 200"),
            "{listener}"
        );
    }
    server.signal("TERM");
    assert_eq!(server.ended(), (Some(0), String::new()));
    // First start: everything private, in the documented places.
    use std::os::unix::fs::PermissionsExt;
    let data = home.home.data().join("llama-runner");
    for (path, mode) in [
        (home.config(), 0o600),
        (data.clone(), 0o700),
        (data.join("logs/llama-runner.log"), 0o600),
    ] {
        let found = std::fs::metadata(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn ctrl_c_stops_too() {
    let home = Home::new();
    let mut server = home.serve(&[]);
    server.signal("INT");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_taken_port_is_named_and_only_that_listener_is_off() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let server = home.serve_with(&["--ollama-port", &port, "--lmstudio-port", "0", "--management-port", "0"]);
    assert!(server.ready["listeners"]["ollama"].is_null());
    server.address("lmstudio");
    let problem = &server.ready["problems"][0];
    assert_eq!(problem["listener"], "ollama");
    assert_eq!(problem["held_by"]["pid"], std::process::id());
    assert!(problem["held_by"]["name"].is_string());
    assert!(problem["error"].as_str().unwrap().contains(&port));
    assert_eq!(
        server.get("/v1/state")["listeners"]["ollama"]["problem"]["held_by"]["pid"],
        std::process::id()
    );
}

#[test]
fn nothing_bound_is_code_3() {
    let home = Home::new();
    let sockets: Vec<_> = (0..3)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let port = |n: usize| sockets[n].local_addr().unwrap().port().to_string();
    let (a, b, c) = (port(0), port(1), port(2));
    let output = home.run(&[
        "serve",
        "--ollama-port",
        &a,
        "--lmstudio-port",
        &b,
        "--management-port",
        &c,
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let ready: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(ready["problems"].as_array().unwrap().len(), 3);
    assert!(stderr(&output).contains(&a));
}

#[test]
fn an_invalid_config_is_code_2_and_says_where() {
    let home = Home::new();
    home.write_config("{\n\"proxies\": {\"ollama\": {\"port\": 1234}}}");
    let output = home.run(&["serve"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("config.json line 2"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let output = Home::new().run(&["serve", "--host", "0.0.0.0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("API key"), "{}", stderr(&output));
}

#[test]
fn one_server_per_data_folder() {
    let home = Home::new();
    let server = home.serve(&[]);
    let second = home.run(&[
        "serve",
        "--ollama-port",
        "0",
        "--lmstudio-port",
        "0",
        "--management-port",
        "0",
    ]);
    assert_eq!(second.status.code(), Some(1));
    let text = stderr(&second);
    assert!(
        text.contains("already running") && text.contains(&server.child.id().to_string()),
        "{text}"
    );
    // Killed without a chance to clean up: the next start takes over.
    server.signal("KILL");
    drop(server);
    drop(home.serve(&[]));
}

#[test]
fn of_starts_at_once_exactly_one_serves() {
    for _ in 0..5 {
        let home = Home::new();
        let ports = [
            "serve",
            "--ollama-port",
            "0",
            "--lmstudio-port",
            "0",
            "--management-port",
            "0",
        ];
        let start = || {
            home.command(&ports)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut starts = [start(), start()];
        // The loser ends by itself; the winner must be told.
        let since = std::time::Instant::now();
        let loser = loop {
            if let Some(at) = starts.iter_mut().position(|s| s.try_wait().unwrap().is_some()) {
                break at;
            }
            assert!(since.elapsed() < crate::kit::PATIENCE, "both run");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(wait(&mut starts[loser]), Some(1));
        let winner = &mut starts[1 - loser];
        let mut line = String::new();
        let mut out = std::io::BufReader::new(winner.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert!(line.contains("\"event\":\"ready\""), "{line}");
        crate::kit::signal(winner.id(), "TERM");
        assert_eq!(wait(winner), Some(0));
    }
}

#[test]
fn a_changed_file_is_followed_and_a_broken_one_refused() {
    let home = Home::new();
    let config = |extra: &str| {
        format!(
            r#"{{"proxies": {{"ollama": {{"port": 0}}, "lmstudio": {{"port": 0}}, "management": {{"port": 0}}}}{extra}}}"#
        )
    };
    home.write_config(&config(""));
    let server = home.serve_with(&[]);
    let dir = home.home.path().join("mine");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(
        testkit::models_dir().join("tiny-embed.gguf"),
        dir.join("tiny-embed.gguf"),
    )
    .unwrap();
    home.write_config(&config(&format!(r#", "models": {{"dirs": [{}]}}"#, json!(dir))));
    let listed = |state: &Value, key: &str| state["models"].as_array().unwrap().iter().any(|m| m["key"] == key);
    server.until("the new folder", |state| listed(state, "tiny-embed"));
    // Broken: the old settings stay and the state says why.
    home.write_config("{");
    let state = server.until("the refusal", |state| state["config"]["ok"] == false);
    assert!(state["config"]["error"].as_str().unwrap().contains("line 1"), "{state}");
    assert!(listed(&state, "tiny-embed"));
    // SIGHUP reads a repaired file at once; so does the watch.
    home.write_config(&config(""));
    server.signal("HUP");
    server.until("the repair", |state| {
        state["config"]["ok"] == true && !listed(state, "tiny-embed")
    });
}

#[test]
fn a_listener_moves_when_its_port_changes_and_the_others_stay() {
    let home = Home::new();
    let config = |lmstudio: u16, enabled: bool| {
        format!(
            r#"{{"proxies": {{"ollama": {{"port": 0}}, "management": {{"port": 0}}, "lmstudio": {{"port": {lmstudio}, "enabled": {enabled}}}}}}}"#
        )
    };
    home.write_config(&config(0, true));
    let server = home.serve_with(&[]);
    let old = server.address("lmstudio");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    home.write_config(&config(free.port(), true));
    server.until("the new port", |state| {
        state["listeners"]["lmstudio"]["address"] == free.to_string()
    });
    assert!(get(free, "/health").0.starts_with("HTTP/1.1 200"));
    let state = server.get("/v1/state");
    assert_eq!(
        state["listeners"]["ollama"]["address"],
        server.ready["listeners"]["ollama"]
    );
    home.write_config(&config(free.port(), false));
    server.until("the listener to go", |state| {
        state["listeners"]["lmstudio"]["address"].is_null()
    });
    // The accept loop ends a moment after it was told to.
    let since = std::time::Instant::now();
    while std::net::TcpStream::connect(free).is_ok() || std::net::TcpStream::connect(old).is_ok() {
        assert!(since.elapsed() < crate::kit::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn no_child_outlives_a_stop_or_a_kill() {
    for signal in ["TERM", "KILL"] {
        let home = Home::new();
        let mut server = home.serve(&["--models-dir", &models_dir()]);
        let started = server.verb(&["start", "tiny-chat"]);
        assert_eq!(started.status.code(), Some(0), "{}", stderr(&started));
        let mut probe = ProcessProbe::of(server.child.id()).unwrap();
        assert_eq!(probe.refresh().len(), 1);
        server.signal(signal);
        let code = wait(&mut server.child);
        assert_eq!(code, (signal == "TERM").then_some(0));
        probe
            .wait_gone(Duration::from_secs(2))
            .unwrap_or_else(|left| panic!("{signal}: left behind: {left:?}"));
    }
}

/// Opens a stream and waits for its first event.
fn stream(server: &Server<'_>) -> BufReader<TcpStream> {
    let body =
        json!({"model": "tiny-chat", "stream": true, "messages": [{"role": "user", "content": "x"}]}).to_string();
    let mut socket = TcpStream::connect(server.address("management")).unwrap();
    let length = body.len();
    write!(
        socket,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended early");
    }
    reader
}

fn paced(home: &Home, tokens: u32) {
    home.write_config(
        &json!({"engines": {"llama_server": {"env": {"STUB_TOKENS": tokens.to_string(), "STUB_RATE": "50"}}}})
            .to_string(),
    );
}

/// Promise H9: what runs may finish, nothing new is taken.
#[test]
fn sigterm_lets_a_running_answer_finish() {
    let home = Home::new();
    paced(&home, 60);
    let mut server = home.serve(&["--models-dir", &models_dir()]);
    let mut answer = stream(&server);
    let address = server.address("ollama");
    server.signal("TERM");
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "cut: {rest}");
    assert_eq!(server.ended().0, Some(0));
    assert!(TcpStream::connect(address).is_err());
}

/// Promise H9: the second signal means now, and still nothing is left behind.
#[test]
fn a_second_sigterm_cuts_the_drain_short() {
    let home = Home::new();
    paced(&home, 100_000);
    let mut server = home.serve(&["--models-dir", &models_dir()]);
    let mut answer = stream(&server);
    let mut probe = ProcessProbe::of(server.child.id()).unwrap();
    assert_eq!(probe.refresh().len(), 1);
    server.signal("TERM");
    // Draining has begun when no new connection is taken.
    let since = Instant::now();
    while TcpStream::connect(server.address("ollama")).is_ok() {
        assert!(since.elapsed() < crate::kit::PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for the answer");
    let second = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().0, Some(0));
    assert!(second.elapsed() < Duration::from_secs(10), "{:?}", second.elapsed());
    let mut rest = String::new();
    let _ = answer.read_to_string(&mut rest);
    assert!(!rest.contains("[DONE]"), "a cut stream must not look complete");
    probe
        .wait_gone(Duration::from_secs(2))
        .unwrap_or_else(|left| panic!("left behind: {left:?}"));
}
