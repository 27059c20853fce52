//! H5 with scaled-down times: silent and slow clients are closed, others are served meanwhile.

use std::time::{Duration, Instant};

use http_api::{ApiSettings, ConnectionLimits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Engine, Server, Setup, get, post, raw, read_all, settings, statuses, until};

fn impatient() -> Setup {
    let connections = ConnectionLimits {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        body_grace: Duration::from_millis(300),
        body_min_rate: 1 << 20,
        write_timeout: Duration::from_millis(500),
        ..ConnectionLimits::default()
    };
    Setup {
        settings: ApiSettings {
            connections,
            ..settings()
        },
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_clients_are_closed_and_others_served() {
    let server = Server::start(impatient()).await;
    let mut held = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(server.ollama).await.unwrap();
        let start: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /hea",
            _ => b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        };
        stream.write_all(start).await.unwrap();
        held.push(stream);
    }
    assert_eq!(get(server.ollama, "/health").await.status, 200);
    for (n, stream) in held.into_iter().enumerate() {
        let answer = read_all(stream).await;
        let expected: &[u16] = if n % 3 == 2 { &[408] } else { &[] };
        assert_eq!(statuses(&answer), expected, "{n}: {answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let server = Server::start(impatient()).await;
    let started = Instant::now();
    let answer = raw(server.ollama, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(statuses(&answer), [200]);
    assert!(
        started.elapsed() >= Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_are_told_so() {
    let mut setup = Setup::default();
    setup.settings.connections.per_peer = 2;
    let server = Server::start(setup).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.ollama).await.unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte)
            .await
            .unwrap();
        open.push(stream);
    }
    assert_eq!(statuses(&raw(server.ollama, b"").await), [503]);
    drop(open);
    // The places come back; how fast is the runtime's business.
    while statuses(
        &raw(
            server.ollama,
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .await,
    ) != [200]
    {
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stopped_reading_loses_its_engine() {
    let mut setup = impatient();
    setup.engine = Engine::Stub(vec![("STUB_TOKENS", "10000000".into())]);
    let server = Server::start(setup).await;
    assert_eq!(
        post(
            server.ollama,
            "/api/generate",
            &serde_json::json!({"model": "tiny-chat"})
        )
        .await
        .status,
        200
    );
    let body = r#"{"model":"tiny-chat","messages":[{"role":"user","content":"x"}]}"#;
    let request = format!(
        "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.ollama).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the request to run", || server.router.active_requests().len() == 1).await;
    until("its end", || server.router.active_requests().is_empty()).await;
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_hold_up_the_end() {
    let server = Server::plain().await;
    let mut silent = TcpStream::connect(server.ollama).await.unwrap();
    let mut partial = TcpStream::connect(server.ollama).await.unwrap();
    partial.write_all(b"GET /hea").await.unwrap();
    let mut idle = TcpStream::connect(server.ollama).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut idle, &mut byte).await.unwrap();
    until("the connections to be served", || server.tracker.len() >= 6).await;
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for stream in [&mut silent, &mut partial] {
        assert!(matches!(
            tokio::io::AsyncReadExt::read(stream, &mut byte).await,
            Ok(0) | Err(_)
        ));
    }
}
