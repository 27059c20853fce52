//! R6: exactly one start per model, however many requests ask for it at once.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::client::post;
use crate::server::{Engine, Options, Server, chat};

#[test]
fn two_hundred_first_requests_start_one_process() {
    let record = tempfile::tempdir().expect("folder");
    let file = record.path().join("record.jsonl");
    let server = Server::with(Options {
        engine: Engine::Stub,
        // The engine's environment is an allow-list (S10): the config file may add to it.
        config: json!({"engines": {"llama_server": {"env": {
            "STUB_RECORD": file.to_string_lossy(), "STUB_LOAD_MS": "300"}}}}),
        ..Options::default()
    });
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..200)
            .map(|n| {
                let address = if n % 2 == 0 { server.ollama } else { server.lmstudio };
                scope.spawn(move || {
                    post(
                        address,
                        "/v1/chat/completions",
                        &chat("Hello", &json!({"max_tokens": 3})),
                    )
                    .status
                })
            })
            .collect();
        asks.into_iter().map(|ask| ask.join().expect("no panic")).collect()
    });
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    let pids: BTreeSet<u64> = fs::read_to_string(&file)
        .expect("the stub recorded")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["event"] == "request")
        .filter_map(|line| line["pid"].as_u64())
        .collect();
    assert_eq!(pids.len(), 1, "engine processes: {pids:?}");
}

#[test]
fn two_hundred_first_requests_to_the_real_engine() {
    let server = Server::start();
    let right = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..200)
            .map(|_| {
                scope.spawn(|| {
                    post(
                        server.ollama,
                        "/v1/chat/completions",
                        &chat("What is 2 + 3?", &json!({})),
                    )
                    .json()
                })
            })
            .collect();
        asks.into_iter()
            .map(|ask| ask.join().expect("no panic"))
            .filter(|answer| answer["choices"][0]["message"]["content"] == "5")
            .count()
    });
    assert_eq!(right, 200);
    assert_eq!(server.children(), 1);
}
