//! Keep-alive and TTL: an idle model goes, and its process with it.

use std::time::Duration;

use serde_json::json;

use crate::client::post;
use crate::server::Server;

#[test]
fn an_idle_model_is_unloaded_after_its_keep_alive() {
    let server = Server::start();
    let ask = |keep_alive| {
        let body = json!({"model": "tiny-chat", "prompt": "ping", "stream": false, "keep_alive": keep_alive});
        assert_eq!(post(server.ollama, "/api/generate", &body).status, 200);
    };
    // Asked before there is a process: "unknown" must not stick (it did, for a second).
    drop(server.state());
    ask(json!("300ms"));
    assert_eq!(server.children(), 1);
    assert!(
        Server::model(&server.state(), "tiny-chat")["instance"]["memory_bytes"]
            .as_u64()
            .is_some_and(|b| b > 1 << 20)
    );
    server.wait_for_state("unloaded", Duration::from_secs(5), |s| {
        Server::model(s, "tiny-chat")["state"] == "unloaded"
    });
    assert_eq!(server.children(), 0);
    ask(json!(0));
    server.wait_for_state("unloaded", Duration::from_secs(5), |s| {
        Server::model(s, "tiny-chat")["state"] == "unloaded"
    });
    let ttl = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "ping"}], "ttl": 1});
    assert_eq!(post(server.lmstudio, "/v1/chat/completions", &ttl).status, 200);
    server.wait_for_state("unloaded", Duration::from_secs(5), |s| {
        Server::model(s, "tiny-chat")["state"] == "unloaded"
    });
}
