//! Programs other tests start as processes of their own, because they get killed or measured.

use std::io::Read;
use std::time::Duration;

use testkit::ProcessId;
use tokio::io::AsyncWriteExt;

use crate::kit::{Kit, get, line_with};

#[test]
#[ignore = "started by other tests"]
fn role() {
    let (Ok(role), Some(folder)) = (
        std::env::var("SUPERVISOR_TEST_ROLE"),
        std::env::var_os("SUPERVISOR_TEST_FOLDER"),
    ) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let kit = Kit::at(folder.as_ref());
        match role.as_str() {
            "three-engines" => three_engines(kit).await,
            "grandchild" => grandchild(kit).await,
            "flood" => flood(kit).await,
            other => panic!("no role {other}"),
        }
    });
}

/// Says `ready` with these words and stays until the test ends it.
fn ready(words: &[u64]) {
    let words: Vec<String> = words.iter().map(u64::to_string).collect();
    println!("ready: {}", words.join(" "));
    let _ = std::io::stdin().read(&mut [0]);
}

/// The app with one engine loading, one idle and one streaming. The idle one ignores the end of its stdin, and the
/// loading one does not read it yet: only the parent-death signal can end those.
async fn three_engines(kit: Kit) {
    let _loading = kit
        .supervisor
        .spawn(kit.stub("loading", &[("STUB_LOAD_MS", "600000")]))
        .await
        .unwrap();
    let (_idle, idle_port, _lines) = kit.ready(kit.stub("idle", &[("STUB_IGNORE_TERM", "1")])).await;
    let (_streaming, port, _lines) = kit.ready(kit.stub("streaming", &[("STUB_RATE", "50")])).await;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let body = r#"{"messages":[],"stream":true,"max_tokens":1000000}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + body).as_bytes()).await.unwrap();
    socket.readable().await.unwrap();
    ready(&[u64::from(idle_port), u64::from(port)]);
}

async fn grandchild(kit: Kit) {
    let (child, port, _lines) = kit.ready(kit.stub("forking", &[("STUB_GRANDCHILD", "1")])).await;
    ready(&[
        u64::from(child.pid()),
        u64::from(kit.grandchild("forking")),
        u64::from(port),
    ]);
}

/// 50 MiB without newline, then 20 MB of lines; says by how many bytes the process grew and the slowest answer in ms.
async fn flood(kit: Kit) {
    let me = ProcessId::of(std::process::id()).unwrap();
    // A calm child first, so that what every first child costs is not counted.
    let (calm, _, _lines) = kit.ready(kit.stub("calm", &[])).await;
    calm.stop().await;
    let before = me.rss_bytes().unwrap();
    let spec = kit.stub(
        "flood",
        &[
            ("STUB_STDERR_MIB", "50"),
            ("STUB_STDERR_LINES", "200001"),
            ("STUB_THREADS", "2"),
        ],
    );
    let (_child, port, mut lines) = kit.ready(spec).await;
    let slowest = tokio::sync::Mutex::new((Duration::ZERO, 0));
    let ask = async {
        loop {
            let start = std::time::Instant::now();
            assert!(get(port, "/health").await.contains("200"));
            let mut slowest = slowest.lock().await;
            *slowest = (slowest.0.max(start.elapsed()), slowest.1.max(me.rss_bytes().unwrap()));
        }
    };
    tokio::select! {
        () = ask => {}
        // Lines may be lost here, that is the promise; one near the end says that everything was read.
        _ = line_with(&mut lines, "00200") => {}
    }
    let (slowest, largest) = *slowest.lock().await;
    ready(&[largest.saturating_sub(before), slowest.as_millis() as u64]);
}
