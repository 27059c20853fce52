//! LM Studio's own REST API over restarts, its downloads, and the place where its libraries look.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo};

use crate::client::{self, Answer};
use crate::server::{Engine, Options, Server};

fn ask(server: &Server, body: &Value) -> Value {
    let answer = client::post(server.lmstudio, "/api/v1/chat", body);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[test]
fn a_conversation_survives_a_restart_and_branches() {
    let mut server = Server::start();
    let say = |previous: &Value, store: bool| json!({"model": "tiny-chat", "input": "ping", "temperature": 0, "previous_response_id": previous, "store": store});
    let first = ask(&server, &say(&Value::Null, true));
    assert_eq!(first["output"][0]["content"], "pong", "{first}");
    let second = ask(&server, &say(&first["response_id"], true));
    server.restart();
    let tokens = |result: &Value| result["stats"]["input_tokens"].as_u64().expect("a count");
    let third = ask(&server, &say(&second["response_id"], true));
    let branch = ask(&server, &say(&first["response_id"], false));
    assert!(tokens(&third) > tokens(&second) && tokens(&second) > tokens(&first));
    assert_eq!(tokens(&branch), tokens(&second), "a branch from the first turn");
    assert!(branch.get("response_id").is_none());
    let streamed = client::post(
        server.lmstudio,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "ping", "temperature": 0, "stream": true,
            "previous_response_id": third["response_id"]}),
    );
    let text = String::from_utf8(streamed.body).expect("text");
    assert!(text.starts_with("event: chat.start\n"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().expect("an event");
    assert!(
        last.starts_with("event: chat.end\n") && last.contains("resp_"),
        "{last}"
    );
    assert_eq!(server.stop(), Some(0));
}

/// Waits until a download is at its end.
fn finished(at: SocketAddr, id: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = client::get(at, &format!("/api/v1/models/download/status/{id}")).json();
        if status["status"] != "downloading" {
            return status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_model_is_downloaded_and_answers() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let origin = runtime.block_on(FakeOrigin::start()).expect("the origin listens");
    let file = fs::read(testkit::models_dir().join("tiny-chat.gguf")).expect("the fixture");
    let size = file.len();
    origin.add_hub_repo("acme/Fresh-GGUF", HubRepo::new().lfs("fresh-F16.gguf", file));
    let mut server = Server::with(Options {
        config: json!({"downloads": {"huggingface_base_url": origin.url(), "allow_private_hosts": true}}),
        ..Options::default()
    });
    let start = |server: &Server, model: &str| -> Answer {
        client::post(server.lmstudio, "/api/v1/models/download", &json!({ "model": model }))
    };
    let started = start(&server, "acme/Fresh-GGUF");
    assert_eq!(started.status, 200, "{}", String::from_utf8_lossy(&started.body));
    let started = started.json();
    assert_eq!(started["total_size_bytes"], size, "{started}");
    let id = started["job_id"].as_str().expect("an id").to_owned();
    assert!(id.len() == 14 && id.starts_with("job_"), "{id}");
    let status = finished(server.lmstudio, &id);
    assert_eq!(
        (&status["status"], &status["downloaded_bytes"]),
        (&json!("completed"), &json!(size)),
        "{status}"
    );
    assert!(
        status["completed_at"].as_str().is_some_and(|at| at.ends_with('Z')),
        "{status}"
    );
    let answer = ask(
        &server,
        &json!({"model": "acme/fresh", "input": "ping", "temperature": 0}),
    );
    assert_eq!(answer["output"][0]["content"], "pong", "{answer}");

    let again = start(&server, "https://huggingface.co/acme/Fresh-GGUF").json();
    assert_eq!(again, json!({"status": "already_downloaded"}));
    let unknown = start(&server, "acme/nothing");
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["type"]),
        (404, &json!("model_not_found")),
        "{}",
        String::from_utf8_lossy(&unknown.body)
    );
    // Known after a restart, to both status routes.
    server.restart();
    assert_eq!(finished(server.lmstudio, &id)["status"], "completed");
    let all = client::get(server.lmstudio, "/api/v1/models/download/status").json();
    let ids: BTreeSet<&str> = all["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .filter_map(|job| job["job_id"].as_str())
        .collect();
    assert!(ids.contains(id.as_str()), "{all}");
}

#[test]
fn the_libraries_find_the_server() {
    let server = Server::with(Options {
        engine: Engine::Stub,
        // Port 0: any free one. The well-known ports belong to whoever runs the tests.
        config: json!({"lmstudio": {"sdk_discovery_ports": [0], "reported_version": "0.4.99"}}),
        ..Options::default()
    });
    let state = server.state();
    let place: SocketAddr = state["listeners"]["sdk_discovery"]["address"]
        .as_str()
        .and_then(|address| address.parse().ok())
        .unwrap_or_else(|| panic!("{}", state["listeners"]));
    assert!(place.ip().is_loopback());
    for at in [place, server.lmstudio] {
        assert_eq!(client::get(at, "/lmstudio-greeting").json(), json!({"lmstudio": true}));
        assert_eq!(client::get(at, "/lms-status").json()["version"], "0.4.99");
    }
    // The same app in full.
    let list = client::get(place, "/api/v1/models").json();
    assert!(list["models"].as_array().is_some_and(|models| !models.is_empty()));
    let silent = Server::with(Options {
        engine: Engine::Stub,
        ..Options::default()
    });
    let listeners = &silent.state()["listeners"];
    assert_eq!(listeners["sdk_discovery"]["enabled"], false, "{listeners}");
}

#[test]
fn parallel_requests_start_one_engine() {
    let server = Server::start();
    let started = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..8)
            .map(|n| {
                let server = &server;
                scope.spawn(move || {
                    let (path, body) = if n % 2 == 0 {
                        ("/v1/chat/completions", crate::server::chat("ping", &json!({})))
                    } else {
                        ("/api/v1/chat", json!({"model": "tiny-chat", "input": "ping"}))
                    };
                    let answer = client::post(server.lmstudio, path, &body);
                    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                    server.children()
                })
            })
            .collect();
        asks.into_iter()
            .map(|ask| ask.join().expect("an answer"))
            .max()
            .expect("some")
    });
    assert_eq!(started, 1);
}
