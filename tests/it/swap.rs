//! R11: a second model swaps in without cutting a running answer.

use serde_json::{Value, json};

use crate::client::{open, post};
use crate::server::{Options, Server, chat};

#[test]
fn a_second_model_waits_for_the_running_stream() {
    let server = Server::with(Options {
        config: json!({"scheduler": {"max_loaded_models": 1}}),
        ..Options::default()
    });
    let body = chat(
        "Count to 100.",
        &json!({"stream": true, "max_tokens": 1200, "ignore_eos": true,
        "stream_options": {"include_usage": true}}),
    );
    let mut stream = open(server.ollama, "POST", "/v1/chat/completions", Some(&body)).expect("stream opens");
    assert_eq!(stream.status, 200);
    assert!(
        stream
            .header("content-type")
            .is_some_and(|v| v.starts_with("text/event-stream"))
    );
    assert_eq!(stream.header("cache-control"), Some("no-cache"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    let mut text = stream.piece().expect("a piece").expect("not over yet");
    let address = server.lmstudio;
    let second = std::thread::spawn(move || {
        post(
            address,
            "/v1/embeddings",
            &json!({"model": "tiny-embed", "input": "cat"}),
        )
    });
    text.extend(stream.rest().expect("the stream is not cut"));
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(
        text.ends_with("data: [DONE]\n\n"),
        "…{}",
        &text[text.len().saturating_sub(200)..]
    );
    let usage = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .find_map(|chunk| chunk["usage"]["completion_tokens"].as_u64());
    assert_eq!(usage, Some(1200));
    let answer = second.join().expect("no panic");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["data"][0]["embedding"].as_array().map(Vec::len),
        Some(128)
    );
    assert_eq!(server.children(), 1, "one model at a time");
}
