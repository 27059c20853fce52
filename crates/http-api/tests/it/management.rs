//! LlamaRunner Pro and the window's API.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Engine, Server, Setup, call, drain, get, open, patiently, post, until, with_engine, with_stub};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_from_start_to_stop() {
    let server = with_engine().await;
    let status = get(server.ollama, "/v1/models/tiny-chat/status").await.json();
    assert_eq!(
        (&status["id"], &status["status"], &status["port"], &status["uptime"]),
        (&json!("tiny-chat"), &json!("unloaded"), &json!(null), &json!(0))
    );
    let info = get(server.lmstudio, "/v1/models/tiny-chat/info").await.json();
    assert_eq!(
        (&info["format"], &info["architecture"], &info["context_length"]),
        (&json!("GGUF"), &json!("llama"), &json!(4096))
    );
    let started = post(server.management, "/v1/models/tiny-chat/start", &json!({"wait": true})).await;
    assert_eq!(
        (started.status.as_u16(), &started.json()["success"]),
        (200, &json!(true)),
        "{}",
        started.text()
    );
    let status = get(server.ollama, "/v1/models/tiny-chat/status").await.json();
    assert_eq!(status["status"], "loaded");
    assert!(status["port"].as_u64().is_some());
    let again = post(server.management, "/v1/models/tiny-chat/start", &json!({}))
        .await
        .json();
    assert_eq!(again["status"], "loaded");
    let logs = get(server.management, "/v1/models/tiny-chat/logs?lines=50").await;
    assert!(logs.status == 200 && logs.text().lines().count() > 3, "{}", logs.text());
    assert_eq!(
        get(server.management, "/v1/models/tiny-chat/logs?lines=x").await.status,
        400
    );
    for _ in 0..2 {
        let stopped = call(server.management, "POST", "/v1/models/tiny-chat/stop", &[], "").await;
        assert_eq!(
            (stopped.status.as_u16(), stopped.json()),
            (200, json!({"success": true, "status": "stopped"}))
        );
    }
    assert_eq!(
        get(server.ollama, "/v1/models/tiny-chat/status").await.json()["status"],
        "unloaded"
    );
    let unknown = post(server.management, "/v1/models/a/b/start", &json!({})).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_model_is_gone_is_seen_and_can_be_stopped() {
    let (server, _record) = with_stub(&[]).await;
    let folder = server.home.data().join("models/zoe/gone");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(testkit::models_dir().join("tiny-chat.gguf"), folder.join("gone.gguf")).unwrap();
    server.registry.rescan().await;
    let started = post(server.management, "/v1/models/gone/start", &json!({"wait": true})).await;
    assert_eq!(started.status, 200, "{}", started.text());
    std::fs::remove_dir_all(&folder).unwrap();
    server.registry.rescan().await;
    let shown = async || {
        let state = get(server.management, "/v1/state").await.json();
        let models = state["models"].as_array().unwrap().clone();
        let found = models.into_iter().filter(|model| model["key"] == "gone");
        found.map(|model| model["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown().await, ["ready"]);
    let stopped = call(server.management, "POST", "/v1/models/gone/stop", &[], "").await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    assert!(shown().await.is_empty());
    let again = call(server.management, "POST", "/v1/models/gone/stop", &[], "").await;
    assert_eq!(again.status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_about_itself() {
    let server = with_engine().await;
    for port in [server.ollama, server.lmstudio, server.management] {
        let health = get(port, "/health").await;
        assert_eq!(
            (health.status.as_u16(), &health.json()["status"]),
            (200, &json!("healthy"))
        );
        assert_eq!(
            call(port, "GET", "/health", &[("accept", "text/plain")], "")
                .await
                .text(),
            "OK"
        );
        let system = get(port, "/v1/system/status").await.json();
        assert_eq!(
            (&system["status"], &system["models"]["total"]),
            (&json!("running"), &json!(4)),
            "{system}"
        );
        assert_eq!(system["proxies"]["ollama"]["port"], server.ollama.port());
        let info = get(port, "/v1/server/info").await.json();
        assert!(
            info["features"].as_array().unwrap().contains(&json!("embeddings")),
            "{info}"
        );
        assert!(info["runtime_info"]["llama_server"].as_str().is_some(), "{info}");
        let state = get(port, "/v1/state").await.json();
        let speech = &state["engine"]["speech"];
        assert!(speech["state"].is_string(), "{state}");
        assert_eq!(system["engines"]["speech"]["state"], speech["state"]);
        assert_eq!(info["runtime_info"]["faster_whisper"], speech["faster_whisper"]);
    }
    let state = get(server.management, "/v1/state").await.json();
    assert_eq!(state["engine"]["available"], true, "{state}");
    let keys: Vec<&str> = state["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["tiny-chat", "tiny-embed", "tiny-rerank", "tiny-whisper"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_as_events() {
    let (server, _record) = with_stub(&[]).await;
    let mut events = open(server.management, "GET", "/v1/events", &[], "").await.into_body();
    let next = async |body: &mut hyper::body::Incoming| {
        let frame = patiently("an event", body.frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        String::from_utf8(frame.to_vec()).unwrap()
    };
    let first = next(&mut events).await;
    assert!(first.contains("event: state\n") && first.ends_with("\n\n"), "{first}");
    let data: Value =
        serde_json::from_str(first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap()).unwrap();
    assert_eq!(data["models"].as_array().unwrap().len(), 4);
    assert_eq!(
        post(server.management, "/v1/models/tiny-chat/start", &json!({"wait": true}))
            .await
            .status,
        200
    );
    let mut seen = String::new();
    while !seen.contains("\"state\":\"ready\"") {
        seen += &next(&mut events).await;
    }
    assert!(seen.contains("event: instance\n"), "{seen}");
    // The end of the server ends the stream, with a word.
    server.cancel.cancel();
    let rest = String::from_utf8(drain(events).await).unwrap();
    assert!(rest.contains("event: shutting_down\n"), "{rest}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_running_answers_no_longer_than_the_drain_time() {
    let mut setup = Setup {
        engine: Engine::Stub(Vec::new()),
        ..Setup::default()
    };
    setup.settings.drain = std::time::Duration::from_millis(300);
    let server = Server::start(setup).await;
    let body = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": true,
        "stub": {"tokens": 1_000_000, "rate": 50}});
    let stream = open(server.ollama, "POST", "/v1/chat/completions", &[], body.to_string()).await;
    let politely = json!({});
    let stop = post(server.management, "/v1/models/tiny-chat/stop", &politely);
    let (stopped, cut) = tokio::join!(stop, drain(stream.into_body()));
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    assert!(!String::from_utf8_lossy(&cut).contains("[DONE]"));
    assert_eq!(server.router.instances().len(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_grows() {
    let (server, _record) = with_stub(&[]).await;
    let mut log = open(
        server.management,
        "GET",
        "/v1/models/tiny-chat/logs?follow=true",
        &[],
        "",
    )
    .await
    .into_body();
    assert_eq!(
        post(server.management, "/v1/models/tiny-chat/start", &json!({"wait": true}))
            .await
            .status,
        200
    );
    let line = patiently("a log line", log.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert!(line.ends_with(b"\n"));
    drop(log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_requests_are_shown_with_their_ids() {
    let (server, _record) = with_stub(&[]).await;
    let body = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": true, "stub": {"tokens": 100_000, "rate": 200}});
    let agent = [("user-agent", "my-app/1.0")];
    let stream = open(server.ollama, "POST", "/v1/chat/completions", &agent, body.to_string()).await;
    let id = stream.headers()["x-request-id"].to_str().unwrap().to_owned();
    let state = get(server.management, "/v1/state").await.json();
    assert!(
        state["config"]["warnings"][0].as_str().unwrap().contains("levle"),
        "{state}"
    );
    let request = &state["requests"][0];
    assert_eq!(
        (&request["model"], &request["operation"], &request["client"]),
        (&json!("tiny-chat"), &json!("openai chat"), &json!("my-app/1.0")),
        "{state}"
    );
    assert_eq!(format!("{:016x}", request["id"].as_u64().unwrap()), id);
    drop(stream);
    until("the request to end", || server.router.active_requests().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bare_list_is_llama_cpps_on_every_listener() {
    let server = Server::plain().await;
    for at in [server.ollama, server.lmstudio, server.management] {
        let bare = get(at, "/models").await.json();
        assert_eq!(
            bare["data"].as_array().map(Vec::len),
            bare["models"].as_array().map(Vec::len),
            "{bare}"
        );
        assert_eq!(bare["data"][0]["owned_by"], "", "the publisher: {bare}");
        let listed = get(at, "/v1/models").await.json();
        let owner = if at == server.lmstudio {
            "organization_owner"
        } else {
            "llama-runner"
        };
        assert_eq!(listed["data"][0]["owned_by"], owner);
        assert!(listed.get("models").is_none());
    }
    server.stop().await;
}
