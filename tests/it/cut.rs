//! H1: when clients go away, their work stops within a second and nothing is left behind.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{get, open, post};
use crate::server::{Server, chat};

#[test]
fn a_hundred_clients_cut_at_random_bytes() {
    let server = Server::start();
    assert_eq!(
        post(server.ollama, "/v1/chat/completions", &chat("Hello", &json!({}))).status,
        200
    );
    let root = server.probe().root();
    let before = root.open_fds().expect("/proc");
    let threads = root.threads().expect("/proc");
    std::thread::scope(|scope| {
        for n in 0..100u64 {
            let server = &server;
            scope.spawn(move || {
                // A spread of cut points without a random source: every run cuts at the same bytes.
                let bytes = (n * 7919) % 6000;
                let (path, body) = if n % 3 == 0 {
                    (
                        "/api/chat",
                        json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "Count to 100."}],
                        "options": {"temperature": 0, "num_predict": 3000}}),
                    )
                } else {
                    (
                        "/v1/chat/completions",
                        chat(
                            "Count to 100.",
                            &json!({"stream": n % 3 == 1, "max_tokens": 3000, "ignore_eos": true}),
                        ),
                    )
                };
                if n % 3 == 2 {
                    // Not streamed: leave while the engine works.
                    use std::io::Write;
                    let mut socket = std::net::TcpStream::connect(server.ollama).expect("connects");
                    let body = body.to_string();
                    write!(
                        socket,
                        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                    .expect("sent");
                    std::thread::sleep(Duration::from_millis(bytes / 60));
                    return;
                }
                let mut stream = open(server.ollama, "POST", path, Some(&body)).expect("opens");
                let mut seen = 0;
                while seen < bytes {
                    match stream.piece() {
                        Ok(Some(piece)) => seen += piece.len() as u64,
                        Ok(None) | Err(_) => break,
                    }
                }
            });
        }
    });
    server.wait_for_state("no request left", Duration::from_secs(1), |state| {
        state["requests"].as_array().is_some_and(Vec::is_empty)
            && Server::model(state, "tiny-chat")["instance"]["active"] == 0
    });
    // The engine itself is free again: an answer comes at once.
    let answer = post(server.ollama, "/v1/chat/completions", &chat("ping", &json!({})));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "pong");
    let metrics: Value = server.state();
    assert_eq!(metrics["requests"], json!([]));
    drop(get(server.management, "/health"));
    let mut after = root.open_fds().expect("/proc");
    for _ in 0..500 {
        if after <= before + 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10)); // sockets that the kernel is still closing
        after = root.open_fds().expect("/proc");
    }
    assert!(after <= before + 4, "descriptors: {before} before, {after} after");
    assert!(root.threads().expect("/proc") <= threads + 2);
}
