//! Clients that stop reading or vanish (promise W3).

use std::time::Duration;

use futures_util::SinkExt;
use http_api::ConnectionLimits;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, prompt, scaled, tokens, upgrade};
use crate::harness::{patiently, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed() {
    let limits = ConnectionLimits {
        write_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    for _ in 0..3 {
        client.begin("predict", prompt("tiny-chat", &tokens(2_000_000))).await;
    }
    until("the predictions", || !server.router.active_requests().is_empty()).await;
    // Nothing is read from here on: the queue fills, the engine waits, then the socket is given up.
    until("the slots", || server.router.active_requests().is_empty()).await;
    // Nor is a flood of questions taken whose answers nobody takes.
    let mut flood = Client::open(server.lmstudio, "/llm").await;
    let frame = Message::text(json!({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1}).to_string());
    patiently("the end of the flood", async {
        while flood.socket.send(frame.clone()).await.is_ok() {}
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_socket_is_closed() {
    let limits = ConnectionLimits {
        idle_timeout: Duration::from_secs(1),
        total: 2,
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    // Sockets count as connections.
    let one = Client::open(server.lmstudio, "/llm").await;
    let mut two = Client::open(server.lmstudio, "/llm").await;
    assert!(upgrade(server.lmstudio, "/llm", &[]).await.is_err());
    // One never answers pings (its socket is not even read), the other does.
    let until_free = async {
        loop {
            let alive = two.call("listLoaded", Value::Null).await;
            assert!(alive.is_ok());
            if let Ok(socket) = upgrade(server.lmstudio, "/llm", &[]).await {
                return socket;
            }
        }
    };
    drop(patiently("the silent socket's place", until_free).await);
    drop(one);
    server.stop().await;
}
