//! The ready line, taken ports, and addresses that are refused until keys exist.

use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::client::get;
use crate::server::{Options, Server, binary};

#[test]
fn a_taken_port_disables_that_listener_alone_and_names_the_owner() {
    let owner = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = owner.local_addr().expect("address").port();
    let home = tempfile::tempdir().expect("folder");
    let config = home.path().join("config.json");
    std::fs::write(&config, "{}").expect("written");
    let mut process = Command::new(binary())
        .args([
            "serve",
            "--lmstudio-port",
            "0",
            "--management-port",
            "0",
            "--ollama-port",
            &port.to_string(),
            "--config",
        ])
        .arg(&config)
        .arg("--data-dir")
        .arg(home.path().join("data"))
        .env("HOME", home.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(process.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("ready line");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    process.kill().expect("killed");
    process.wait().expect("reaped");
    assert_eq!(ready["event"], "ready");
    assert!(
        ready["listeners"]["ollama"].is_null() && ready["listeners"]["lmstudio"].is_string(),
        "{ready}"
    );
    let problem = &ready["problems"][0];
    assert_eq!(problem["listener"], "ollama");
    assert_eq!(problem["held_by"]["pid"], std::process::id(), "{problem}");
}

#[test]
fn an_open_address_is_refused_until_keys_exist() {
    let home = tempfile::tempdir().expect("folder");
    let output = Command::new(binary())
        .args([
            "serve",
            "--host",
            "0.0.0.0",
            "--ollama-port",
            "0",
            "--lmstudio-port",
            "0",
            "--management-port",
            "0",
        ])
        .env("HOME", home.path())
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("key"), "{text}");
}

#[test]
fn localhost_works_on_both_families() {
    let server = Server::with(Options {
        config: json!({}),
        ..Options::default()
    });
    let root = get(server.ollama, "/");
    assert_eq!(root.body, b"Ollama is running");
    assert!(root.header("x-request-id").is_some_and(|id| !id.is_empty()));
    let six = std::net::SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), server.ollama.port());
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(get(six, "/").body, b"Ollama is running");
    }
    assert_eq!(server.ready["listeners"]["ollama"], server.ollama.to_string());
}
