//! C1 and C4: a bad file changes nothing; a good one touches only what it changes.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::client::{open, post};
use crate::server::{Options, Server, chat};

#[test]
fn a_stream_survives_a_hundred_saves_and_a_broken_file() {
    let server = Server::with(Options {
        config: json!({"scheduler": {"max_loaded_models": 2}}),
        ..Options::default()
    });
    let file = server.home.path().join("config.json");
    let body = chat(
        "Count to 100.",
        &json!({"stream": true, "max_tokens": 1500, "ignore_eos": true}),
    );
    let mut stream = open(server.ollama, "POST", "/v1/chat/completions", Some(&body)).expect("opens");
    assert!(stream.piece().expect("first piece").is_some());
    let instance = Server::model(&server.state(), "tiny-chat")["instance"]["id"].clone();
    for n in 0..100 {
        fs::write(
            &file,
            json!({"defaults": {"threads": 1}, "scheduler": {"max_loaded_models": 2 + n % 3}, "model_aliases": {"mine": "tiny-chat"}}).to_string(),
        )
        .expect("saved");
    }
    let text = stream.rest().expect("not cut");
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    server.wait_for_state("the alias", Duration::from_secs(10), |_| {
        post(server.ollama, "/v1/chat/completions", &{
            let mut ask = chat("ping", &json!({}));
            ask["model"] = json!("mine");
            ask
        })
        .status
            == 200
    });
    assert_eq!(
        Server::model(&server.state(), "tiny-chat")["instance"]["id"],
        instance,
        "the model kept its process"
    );
    fs::write(&file, "{\"scheduler\": {\"max_loaded_models\": ").expect("saved");
    let state = server.wait_for_state("the refusal", Duration::from_secs(10), |s| s["config"]["ok"] == false);
    assert!(
        state["config"]["error"].as_str().is_some_and(|e| e.contains("line")),
        "{}",
        state["config"]
    );
    assert_eq!(
        post(server.ollama, "/v1/chat/completions", &chat("ping", &json!({}))).status,
        200
    );
}
