//! The same with the real llama-server, which `cargo xtask test` provides; without one there is nothing to prove here.

use std::time::{Duration, Instant};

use supervisor::ChildSpec;
use testkit::{ProcessProbe, real_engine_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Kit, get, line_with};

fn real(kit: &Kit, label: &str) -> Option<ChildSpec> {
    let mut spec = kit.stub(label, &[]);
    spec.program = real_engine_path()?;
    spec.args
        .extend(["--offline", "--no-ui", "-c", "512", "--cache-ram", "16"].map(Into::into));
    Some(spec)
}

#[tokio::test]
async fn it_loads_and_ends_by_the_message() {
    let kit = Kit::new();
    for n in 0..10 {
        let Some(spec) = real(&kit, "real") else { return };
        let (child, mut lines) = kit.supervisor.spawn(spec).await.unwrap();
        // Two pipes: which of the two lines comes first is not certain.
        let ready = line_with(
            &mut lines,
            if n % 2 == 0 {
                "\"state\":\"ready\""
            } else {
                "listening on"
            },
        )
        .await;
        assert!(!ready.is_empty() && child.memory_bytes().unwrap() > 1 << 20);
        let start = Instant::now();
        let report = child.stop().await;
        assert_eq!((report.code, report.signal), (Some(0), None), "{report:?}");
        // Mostly 20 ms. A message in the instant before its main loop starts is lost by the engine (b11549: terminate
        // comes before start_loop); then SIGTERM follows a second later.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_stop_in_mid_stream_ends_within_the_plan() {
    let kit = Kit::new();
    let Some(mut spec) = real(&kit, "busy") else { return };
    spec.stop.grace = Duration::from_secs(2);
    spec.stop.second_term_grace = Duration::from_secs(1);
    let (child, mut lines) = kit.supervisor.spawn(spec).await.unwrap();
    let line = line_with(&mut lines, "listening on http://127.0.0.1:").await;
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    assert!(get(port, "/health").await.contains("200"));
    let body = r#"{"prompt":"a","stream":true,"n_predict":-1,"ignore_eos":true,"max_tokens":-1}"#;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).await.unwrap();
    assert!(socket.read(&mut [0; 64]).await.unwrap() > 0);
    let start = Instant::now();
    child.stop().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(ProcessProbe::listeners_on(port).is_empty());
}
