//! Upgrades, the handshake and the frames (LM Studio contract 10.1 to 10.3).

use std::time::Duration;

use futures_util::SinkExt;
use http::StatusCode;
use http_api::ConnectionLimits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Client, scaled, upgrade};
use crate::harness::{Server, call, get, patiently};

const NAMESPACES: [&str; 8] = [
    "/llm",
    "/embedding",
    "/system",
    "/files",
    "/repository",
    "/diagnostics",
    "/runtime",
    "/plugins",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_on_every_listener() {
    let server = Server::plain().await;
    for to in [server.ollama, server.lmstudio, server.management] {
        for path in NAMESPACES {
            let (mut client, answer) = Client::login(to, path, "guest:a", "b").await;
            assert_eq!(answer, json!({"success": true}), "{path}");
            client.say(&json!({"type": "keepAlive"})).await;
            assert_eq!(client.hear_answer().await, json!({"type": "keepAliveAck"}));
            let error = client.call("noSuchEndpoint", json!({})).await.unwrap_err();
            assert!(error["title"].as_str().unwrap().contains("noSuchEndpoint"), "{error}");
        }
    }
    for path in ["/llms", "/", "/llm/x"] {
        let refused = upgrade(server.lmstudio, path, &[]).await.unwrap_err();
        assert!(matches!(refused, Error::Http(response) if response.status() == 404 || path == "/"));
    }
    let plain = get(server.lmstudio, "/llm").await;
    assert_eq!(
        (plain.status, plain.header("upgrade")),
        (StatusCode::UPGRADE_REQUIRED, "websocket")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_obey_the_guard() {
    let server = Server::plain().await;
    let status = |refused: Result<_, Error>| match refused {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    for (headers, llm, diagnostics) in [
        (&[("origin", "https://evil.example")][..], 403, 403),
        (&[("origin", "null")][..], 403, 403),
        (&[("origin", "http://localhost:3000")][..], 101, 403),
        (&[("sec-fetch-site", "cross-site")][..], 403, 403),
        (&[("host", "evil.example")][..], 403, 403),
        (&[][..], 101, 101),
    ] {
        assert_eq!(
            status(upgrade(server.lmstudio, "/llm", headers).await),
            llm,
            "{headers:?}"
        );
        assert_eq!(
            status(upgrade(server.lmstudio, "/diagnostics", headers).await),
            diagnostics,
            "{headers:?}"
        );
    }
    for path in ["/repository", "/runtime", "/plugins"] {
        let page = [("origin", "http://localhost:3000")];
        assert_eq!(status(upgrade(server.lmstudio, path, &page).await), 403, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_binds_a_client() {
    let limits = ConnectionLimits {
        head_timeout: Duration::from_secs(1),
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    // Silence, and frames that are none.
    let mut silent = Client::bare(server.lmstudio, "/llm").await;
    for frame in [json!({"type": "keepAlive"}), json!(5), json!({"authVersion": 1})] {
        silent.say(&frame).await;
    }
    assert_eq!(
        silent.hear().await.unwrap(),
        json!({"success": false, "error": "Authentication timed out"})
    );
    assert_eq!(silent.hear().await.unwrap_err(), Some(CloseCode::Policy));
    // The first passkey binds the identifier while a socket of it is open.
    let (first, _) = Client::login(server.lmstudio, "/llm", "a", "1").await;
    let (_, second) = Client::login(server.ollama, "/system", "a", "1").await;
    assert_eq!(second["success"], true);
    let (mut other, refused) = Client::login(server.lmstudio, "/llm", "a", "2").await;
    assert!(refused["success"] == false && refused["error"].is_string(), "{refused}");
    assert!(other.hear().await.is_err());
    drop(first);
    patiently("the identifier to become free", async {
        while Client::login(server.lmstudio, "/llm", "a", "2").await.1["success"] != true {}
    })
    .await;
    let mut flood = Client::bare(server.lmstudio, "/llm").await;
    for _ in 0..70 {
        if flood.socket.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    assert!(flood.hear().await.is_ok_and(|answer| answer["success"] == false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_wrong() {
    let server = Server::plain().await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    // At most five warnings per connection, and an answer to every call.
    for n in 0..8 {
        let error = client.call("noSuchEndpoint", json!({})).await.unwrap_err();
        assert_eq!(error["title"], "Unknown endpoint noSuchEndpoint");
        assert_eq!(client.warnings.len(), 5.min(n + 1));
    }
    assert_eq!(
        client.warnings[0],
        "Received rpcCall for unknown endpoint, endpoint = noSuchEndpoint"
    );
    let mut client = Client::open(server.lmstudio, "/llm").await;
    let error = client.call("tokenize", json!({"specifier": 5})).await.unwrap_err();
    assert!(
        error["title"]
            .as_str()
            .unwrap()
            .starts_with("The parameter of tokenize"),
        "{error}"
    );
    assert!(client.warnings[0].contains("invalid parameter"));
    let failed = client.channel("predict", json!({})).await;
    assert!(failed.error.unwrap()["title"].as_str().unwrap().contains("predict"));
    for frame in ["not json", "{}", "[]", r#"{"type":"rpcCall"}"#] {
        client.socket.send(Message::text(frame)).await.unwrap();
    }
    client.socket.send(Message::binary(vec![1, 2])).await.unwrap();
    client
        .say(&json!({"type": "channelSend", "channelId": 99, "message": {"type": "cancel"}, "ackId": 7}))
        .await;
    let ack = client.hear_answer().await;
    assert_eq!(ack, json!({"type": "channelAck", "channelId": 99, "ackId": 7}));
    assert_eq!(client.warnings.len(), 5);
    client
        .say(&json!({"type": "signalSubscribe", "subscribeId": 4, "endpoint": "x"}))
        .await;
    assert_eq!(client.hear_answer().await["type"], "signalError");
    client
        .say(&json!({"type": "communicationWarning", "warning": "no idea"}))
        .await;
    assert!(
        client.call("listLoaded", Value::Null).await.is_ok(),
        "the socket still serves"
    );

    // Larger than 64 MiB: said in the frame's head, nothing of it is read.
    let mut stream = client.socket.into_inner();
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&((64_u64 << 20) + 1).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    stream.write_all(&head).await.unwrap();
    let mut answer = Vec::new();
    patiently("the close", stream.read_to_end(&mut answer)).await.unwrap();
    let code = u16::from(CloseCode::Size).to_be_bytes();
    assert!(answer.windows(2).any(|pair| pair == code), "{answer:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_upgrade_are_frames_not_http() {
    let server = Server::plain().await;
    // All in one write: the head, and frames that would be a refused request.
    let mut bytes = format!(
        "GET /llm HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.lmstudio
    )
    .into_bytes();
    let auth = br#"{"authVersion":1,"clientIdentifier":"early\n","clientPasskey":"b"}"#;
    bytes.extend_from_slice(&[0x81, 0x80 | u8::try_from(auth.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend_from_slice(auth);
    let mut stream = TcpStream::connect(server.lmstudio).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = String::new();
    let expected = r#"{"success":true}"#;
    while !answer.contains(expected) {
        let mut piece = [0; 512];
        let read = patiently("the answer", stream.read(&mut piece)).await.unwrap();
        assert!(read > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{answer}"
    );
    // A request that is not upgraded keeps the strict framing.
    let refused = call(
        server.lmstudio,
        "GET",
        "/llm",
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
        "",
    )
    .await;
    assert_eq!(refused.status, StatusCode::UPGRADE_REQUIRED);
    server.stop().await;
}
