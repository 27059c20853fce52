//! H5 with scaled-down times: silent and slow clients are closed, others are served meanwhile.

use std::time::{Duration, Instant};

use http_api::{ApiSettings, ConnectionLimits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Server, Setup, get, raw, read_all, statuses};

fn impatient() -> Setup {
    let connections = ConnectionLimits {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        body_grace: Duration::from_millis(300),
        body_min_rate: 1 << 20,
        ..ConnectionLimits::default()
    };
    Setup {
        settings: ApiSettings {
            connections,
            ..ApiSettings::default()
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
