//! R1: no child outlives the app, even on SIGKILL; a clean stop leaves nothing either.

use std::time::Duration;

use serde_json::json;

use crate::client::{open, post};
use crate::server::{Engine, Options, Server, chat};

fn killed_leaves_nothing(mut server: Server) {
    let mut probe = server.probe();
    assert!(!probe.refresh().is_empty(), "there must be a child to outlive us");
    server.process.kill().expect("SIGKILL");
    server.process.wait().expect("reaped");
    probe
        .wait_gone(Duration::from_secs(2))
        .expect("nobody outlives the app by 2 s");
}

#[test]
fn sigkill_while_idle() {
    let server = Server::start();
    assert_eq!(
        post(server.ollama, "/v1/chat/completions", &chat("Hello", &json!({}))).status,
        200
    );
    assert_eq!(
        post(
            server.ollama,
            "/v1/embeddings",
            &json!({"model": "tiny-embed", "input": "cat"})
        )
        .status,
        200
    );
    assert_eq!(server.children(), 2);
    killed_leaves_nothing(server);
}

#[test]
fn sigkill_while_streaming() {
    let server = Server::start();
    let body = chat(
        "Count to 100.",
        &json!({"stream": true, "max_tokens": 2000, "ignore_eos": true}),
    );
    let mut stream = open(server.lmstudio, "POST", "/v1/chat/completions", Some(&body)).expect("stream opens");
    assert!(stream.piece().expect("first piece").is_some());
    killed_leaves_nothing(server);
}

#[test]
fn sigkill_while_loading() {
    let server = Server::with(Options {
        engine: Engine::Stub,
        config: json!({"engines": {"llama_server": {"env": {"STUB_LOAD_MS": "60000"}}}}),
        ..Options::default()
    });
    let address = server.ollama;
    let asking = std::thread::spawn(move || {
        open(
            address,
            "POST",
            "/v1/chat/completions",
            Some(&chat("Hello", &json!({}))),
        )
    });
    server.wait_for_state("a loading process", Duration::from_secs(10), |s| {
        let model = Server::model(s, "tiny-chat");
        model["state"] == "loading" && model["instance"]["pid"].is_u64()
    });
    killed_leaves_nothing(server);
    drop(asking.join());
}

#[test]
fn sigterm_ends_everything_with_code_0() {
    let mut server = Server::start();
    assert_eq!(
        post(server.ollama, "/v1/chat/completions", &chat("Hello", &json!({}))).status,
        200
    );
    let mut probe = server.probe();
    probe.refresh();
    assert_eq!(server.stop(), Some(0));
    assert_eq!(probe.survivors(), []);
}
