//! Secure connections: what the system trusts is trusted, nothing else is. In processes of their own, for the system's
//! certificates are found through the environment. The key in `fixtures` is for this test alone.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use downloads::http::Http;
use downloads::{DownloadError, DownloadSettings, Tuning};
use http::{HeaderMap, Method};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn settings() -> DownloadSettings {
    DownloadSettings {
        allow_private_hosts: true,
        tuning: Tuning {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            ..Tuning::default()
        },
        ..DownloadSettings::below(Path::new("/nowhere"))
    }
}

/// Run by the test below with certificates of its choice.
#[tokio::test]
async fn child_that_connects() {
    let Ok(url) = std::env::var("LR_TEST_TLS") else { return };
    let http = Http::new(&settings());
    let answer = http
        .send(Method::GET, &url.parse().unwrap(), &HeaderMap::new(), None)
        .await;
    if std::env::var_os("LR_TEST_TRUSTED").is_some() {
        assert_eq!(&answer.unwrap().bytes(100).await.unwrap()[..], b"secure");
    } else {
        assert!(matches!(answer, Err(DownloadError::Network(_))), "{answer:?}");
    }
}

/// Answers every connection with six bytes; a client that hangs up during the handshake is no reason to end.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(socket).await else {
            continue;
        };
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecure";
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn what_the_system_trusts_is_trusted_and_nothing_else() {
    let chain = vec![CertificateDer::from_pem_file(format!("{FIXTURES}/server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(format!("{FIXTURES}/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = format!("{FIXTURES}/authority.pem");
    let empty = tempfile::tempdir().unwrap();
    let none = empty.path().join("none.pem");
    std::fs::write(&none, "").unwrap();
    let clients = async {
        for (host, certificates, trusted) in [
            ("localhost", authority.as_str(), true),
            ("127.0.0.1", authority.as_str(), true),
            // The name in the certificate is another one.
            ("127.0.0.2", authority.as_str(), false),
            ("localhost", none.to_str().unwrap(), false),
        ] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "child_that_connects", "--nocapture"])
                .env("LR_TEST_TLS", format!("https://{host}:{port}/"))
                .env("SSL_CERT_FILE", certificates)
                .env_remove("SSL_CERT_DIR")
                .env("NO_PROXY", "*")
                .stdin(Stdio::null());
            if trusted {
                command.env("LR_TEST_TRUSTED", "1");
            }
            let child = tokio::task::spawn_blocking(move || command.output())
                .await
                .unwrap()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success(), "{host} with {certificates}: {said}");
        }
    };
    tokio::select! {
        () = serve(listener, TlsAcceptor::from(Arc::new(config))) => {}
        () = clients => {}
    }
}
