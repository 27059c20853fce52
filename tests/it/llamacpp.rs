//! Programs made for one llama-server, or for its router, work against the product (issue: llama.cpp).

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{get, open, post};
use crate::server::Server;

#[test]
fn a_program_for_one_llama_server_finds_what_it_looks_for() {
    let server = Server::start();
    let at = server.ollama;
    assert_eq!(get(at, "/v1/health").json(), json!({"status": "ok"}));
    let story = post(
        at,
        "/completion?model=tiny-chat",
        &json!({"prompt": "Once upon a time", "n_predict": 4}),
    );
    assert_eq!(story.status, 200);
    assert_eq!(story.json()["tokens_predicted"], 4);
    let tokens = post(at, "/tokenize", &json!({"content": "Hello"})).json();
    assert_eq!(post(at, "/detokenize", &tokens).json()["content"], "Hello");
    let chat = json!({"messages": [{"role": "user", "content": "Hello"}], "temperature": 0});
    assert_eq!(
        post(at, "/chat/completions", &chat).json()["choices"][0]["message"]["content"],
        "Hello! How can I help you today?"
    );
    let props = get(at, "/props").json();
    assert!(props["total_slots"].is_u64() && props["role"] == "router", "{props}");
    assert!(
        get(at, "/slots")
            .json()
            .as_array()
            .is_some_and(|slots| !slots.is_empty())
    );
    let metrics = String::from_utf8(get(at, "/metrics").body).expect("UTF-8");
    assert!(metrics.contains("llamacpp:tokens_predicted_total ") && metrics.contains("llamarunner_models_loaded 1\n"));
    let cut = open(
        at,
        "POST",
        "/completion",
        Some(&json!({"prompt": "x", "stream": true, "n_predict": 500, "ignore_eos": true})),
    );
    let mut stream = cut.expect("a stream");
    let first = stream.piece().expect("a piece").expect("not over");
    assert!(
        first.starts_with(b"data: {\"index\":0,\"content\":"),
        "{}",
        String::from_utf8_lossy(&first)
    );
    drop(stream);
    server.wait_for_state(
        "the slot of a client that left is free",
        Duration::from_secs(10),
        |state| state["requests"].as_array().is_some_and(Vec::is_empty),
    );
}

#[test]
fn a_program_for_the_router_loads_and_unloads() {
    let server = Server::start();
    let at = server.management;
    let mut events = open(at, "GET", "/models/sse", None).expect("a stream");
    let mut seen = String::new();
    let mut told = |wanted: &str| {
        while !seen.contains(wanted) {
            let piece = events.piece().expect("a piece").expect("the stream goes on");
            seen.push_str(&String::from_utf8_lossy(&piece));
        }
    };
    assert_eq!(
        post(at, "/models/load", &json!({"model": "tiny-chat"})).json()["success"],
        true
    );
    told("\"event\":\"status_change\",\"data\":{\"status\":\"loaded\"");
    let status = |model: &str| -> Value {
        let list = get(at, "/models?reload=1").json();
        let shown = list["data"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["id"] == model);
        shown.map_or(Value::Null, |entry| entry["status"]["value"].clone())
    };
    assert_eq!(
        (status("tiny-chat"), status("tiny-embed")),
        (json!("loaded"), json!("unloaded"))
    );
    let off = post(
        at,
        "/v1/embeddings?autoload=false",
        &json!({"model": "tiny-embed", "input": "cat"}),
    );
    assert_eq!((off.status, status("tiny-embed")), (400, json!("unloaded")));
    assert_eq!(
        post(at, "/models/unload", &json!({"model": "tiny-chat"})).json()["success"],
        true
    );
    told("\"event\":\"status_change\",\"data\":{\"status\":\"unloaded\"");
    assert_eq!(status("tiny-chat"), "unloaded");
}
