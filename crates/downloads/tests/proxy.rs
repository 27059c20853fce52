//! The environment's proxy is used, and is no private target. In processes of their own, for the environment is read there.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use downloads::http::Http;
use downloads::{DownloadError, DownloadSettings, Tuning};
use http::{HeaderMap, Method};
use testkit::FakeOrigin;

fn settings() -> DownloadSettings {
    DownloadSettings {
        tuning: Tuning {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            ..Tuning::default()
        },
        ..DownloadSettings::below(Path::new("/nowhere"))
    }
}

/// Run by the test below with a proxy in its environment.
#[tokio::test]
async fn child_behind_a_proxy() {
    let Some(proxy) = std::env::var("LR_TEST_PROXY").ok() else {
        return;
    };
    let http = Http::new(&settings());
    // No resolver knows this name: only a proxy can.
    let url = "http://models.invalid/models/p.gguf".parse().unwrap();
    let answer = http.send(Method::GET, &url, &HeaderMap::new(), None).await.unwrap();
    assert_eq!(&answer.bytes(100).await.unwrap()[..], b"through the proxy");
    // The proxy's own address is a private target like any other.
    let own = format!("{proxy}/models/p.gguf").parse().unwrap();
    let refused = http.send(Method::GET, &own, &HeaderMap::new(), None).await;
    assert!(matches!(refused, Err(DownloadError::Refused(_))), "{refused:?}");
    let local = "http://localhost/models/p.gguf".parse().unwrap();
    let refused = http.send(Method::GET, &local, &HeaderMap::new(), None).await;
    assert!(matches!(refused, Err(DownloadError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_used_and_is_no_target() {
    let origin = FakeOrigin::start().await.unwrap();
    origin.add_file("/models/p.gguf", &b"through the proxy"[..]);
    // By address and by a name that leads to this machine.
    for proxy in [origin.url(), origin.url().replace("127.0.0.1", "localhost")] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child_behind_a_proxy", "--nocapture"])
            .env("LR_TEST_PROXY", &proxy)
            .env("HTTP_PROXY", &proxy)
            .env("http_proxy", &proxy)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .stdin(Stdio::null());
        let child = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            child.status.success(),
            "{proxy}: {}",
            String::from_utf8_lossy(&child.stderr)
        );
    }
    assert_eq!(origin.requests().len(), 2);
}
