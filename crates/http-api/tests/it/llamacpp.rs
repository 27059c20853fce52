//! llama-server's own routes against the real engine, and those of its router mode.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use testkit::{FakeOrigin, HubRepo};

use crate::harness::{Server, Setup, call, drain, get, open, patiently, post, until, with_engine, with_stub};

const STORY: &str = "Once upon a time";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_as_the_engine_sends_them() {
    let server = with_engine().await;
    let at = server.management;
    for path in ["/completion", "/completions"] {
        let whole = post(
            at,
            path,
            &json!({"model": "tiny-chat", "prompt": STORY, "n_predict": 8, "temperature": 0}),
        )
        .await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        let body = whole.json();
        assert!(
            body["content"].is_string() && body["stop"] == true && body["timings"].is_object(),
            "{body}"
        );
        assert_eq!(body["generation_settings"]["n_predict"], 8);
    }
    let streamed = post(
        at,
        "/completion",
        &json!({"prompt": STORY, "n_predict": 8, "stream": true}),
    )
    .await;
    let events = testkit::sse_events(&streamed.body);
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert!(last["stop"] == true && last.get("error").is_none(), "{last}");

    let fill =
        json!({"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 8, "temperature": 0});
    assert!(
        post(at, "/infill", &fill).await.json()["content"]
            .as_str()
            .unwrap()
            .contains("a + b")
    );
    let tokens = post(at, "/tokenize", &json!({"content": "Hello"})).await.json();
    let text = post(at, "/detokenize", &tokens).await.json();
    assert_eq!(text["content"], "Hello");
    let chat = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let prompt = post(at, "/apply-template", &chat).await.json();
    assert!(
        prompt["prompt"].as_str().unwrap().contains("<|im_start|>user\nHello"),
        "{prompt}"
    );
    for path in ["/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"] {
        assert!(post(at, path, &chat).await.json()["input_tokens"].as_u64().unwrap() > 5);
    }
    let bare = post(at, "/chat/completions", &chat).await;
    assert_eq!(bare.status, 200, "no model is named: {}", bare.text());
    for path in ["/embedding", "/embeddings"] {
        let vectors = post(at, path, &json!({"model": "tiny-embed", "content": "cat"}))
            .await
            .json();
        assert_eq!(vectors[0]["embedding"][0].as_array().unwrap().len(), 128);
    }
    let ask = json!({"model": "tiny-chat", "input": "Hello", "temperature": 0, "max_output_tokens": 20});
    assert_eq!(post(at, "/responses", &ask).await.json()["status"], "completed");
    for path in ["/responses/input_tokens", "/v1/responses/input_tokens"] {
        assert!(post(at, path, &ask).await.json()["input_tokens"].as_u64().unwrap() > 5);
    }
    let ranked = json!({"model": "tiny-rerank", "query": "cat", "texts": ["dog", "cat"]});
    assert_eq!(post(at, "/rerank", &ranked).await.json()[0]["index"], 1);
    // An error in the engine's own words and form.
    let wrong = post(
        at,
        "/completion",
        &json!({"model": "tiny-chat", "prompt": STORY, "grammar": "root ::= nothing"}),
    )
    .await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["error"]["code"]),
        (400, &json!(400)),
        "{}",
        wrong.text()
    );
    let long = post(
        at,
        "/completion",
        &json!({"model": "tiny-chat", "prompt": "word ".repeat(20_000)}),
    )
    .await;
    assert_eq!(
        long.json()["error"]["type"],
        "exceed_context_size_error",
        "{}",
        long.text()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_comes_from_body_or_query_or_use() {
    let server = with_engine().await;
    let at = server.ollama;
    // Nothing loaded yet, several models: which one is meant?
    let open = post(at, "/completion", &json!({"prompt": "x", "n_predict": 1})).await;
    assert!(
        open.status == 200 || open.json()["error"]["code"] == 400,
        "{}",
        open.text()
    );
    let unknown = post(at, "/tokenize", &json!({"content": "x", "model": "nope"})).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    let off = post(
        at,
        "/tokenize?model=tiny-embed&autoload=false",
        &json!({"content": "x"}),
    )
    .await;
    assert_eq!(
        (off.status.as_u16(), &off.json()["error"]["message"]),
        (400, &json!("model is not loaded"))
    );
    let named = post(at, "/tokenize?model=tiny-embed", &json!({"content": "cat"})).await;
    assert_eq!(named.status, 200, "{}", named.text());
    // The one used last.
    let last = post(at, "/tokenize", &json!({"content": "cat"})).await;
    assert_eq!(last.json(), named.json());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_says_of_itself_takes_no_slot() {
    let (server, _record) = with_stub(&[]).await;
    let at = server.management;
    assert_eq!(
        post(at, "/models/load", &json!({"model": "tiny-chat"})).await.json()["success"],
        true
    );
    wait_for(&server, "tiny-chat", "loaded").await;
    let slots = server.router.instances()[0].launch.parallel;
    let body =
        json!({"model": "tiny-chat", "prompt": "x", "stream": true, "stub": {"tokens": 1000, "rate": 5}}).to_string();
    let mut busy = Vec::new();
    for _ in 0..slots {
        busy.push(open(at, "POST", "/completion", &[], body.clone()).await);
    }
    for path in [
        "/props",
        "/slots",
        "/metrics",
        "/props?model=tiny-chat",
        "/slots?model=tiny-chat",
        "/metrics?model=tiny-chat",
    ] {
        let reply = patiently(path, get(at, path)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    // Nor do tokens need one.
    let counted = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "Hello"}]});
    for (path, body) in [
        ("/tokenize", json!({"content": "Hello"})),
        ("/apply-template", counted.clone()),
        ("/v1/messages/count_tokens", counted),
    ] {
        let reply = patiently(path, post(at, path, &body)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    assert_eq!(
        server.router.active_requests().len(),
        busy.len(),
        "a look is no request"
    );
    drop(busy);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn props_slots_metrics_and_adapters() {
    let server = with_engine().await;
    let at = server.management;
    let none = get(at, "/props").await.json();
    assert_eq!(
        (&none["role"], &none["models_autoload"]),
        (&json!("router"), &json!(true))
    );
    assert!(none["build_info"].as_str().unwrap().starts_with('b') && none["max_instances"].is_u64());
    assert_eq!(get(at, "/lora-adapters?model=tiny-chat").await.json(), json!([]));
    let props = get(at, "/props?model=tiny-chat").await.json();
    assert!(props["total_slots"].is_u64() && props.get("role").is_none(), "{props}");
    let merged = get(at, "/props").await.json();
    assert_eq!(
        (&merged["role"], &merged["total_slots"]),
        (&json!("router"), &props["total_slots"])
    );
    let slots = get(at, "/slots").await.json();
    assert_eq!(
        slots.as_array().unwrap().len() as u64,
        props["total_slots"].as_u64().unwrap()
    );
    assert!(slots[0].get("prompt").is_none(), "nobody's prompt is shown");
    assert_eq!(post(at, "/props?model=tiny-chat", &json!({})).await.status, 200);
    assert_eq!(
        call(at, "POST", "/lora-adapters?model=tiny-chat", &[], "[]")
            .await
            .status,
        200
    );

    post(
        at,
        "/completion",
        &json!({"model": "tiny-chat", "prompt": STORY, "n_predict": 4}),
    )
    .await;
    let own = get(at, "/metrics?model=tiny-chat").await;
    assert!(
        own.text().contains("\nllamacpp:tokens_predicted_total 4\n"),
        "{}",
        own.text()
    );
    assert!(!own.text().contains("llamarunner_"));
    let ours = get(at, "/metrics").await;
    assert!(
        ours.header("content-type").starts_with("text/plain"),
        "{:?}",
        ours.headers
    );
    let text = ours.text();
    for sample in [
        "llamarunner_models_loaded 1\n",
        "llamarunner_model_generated_tokens_total{model=\"tiny-chat\"} 4\n",
        "llamacpp:tokens_predicted_total 4\n",
        "llamarunner_requests{phase=\"running\"} 0\n",
    ] {
        assert!(text.contains(sample), "{sample}: {text}");
    }
    assert!(!text.contains("/home/") && !text.contains(".gguf"));
    post(at, "/embedding", &json!({"model": "tiny-embed", "content": "cat"})).await;
    assert!(
        !get(at, "/metrics").await.text().contains("llamacpp:"),
        "of which model?"
    );
    assert_eq!(get(at, "/v1/health").await.json(), json!({"status": "ok"}));
    server.stop().await;
}

/// Waits until the router's list shows a state.
async fn wait_for(server: &Server, model: &str, status: &str) {
    patiently(status, async {
        loop {
            let list = get(server.management, "/models").await.json();
            let shown = list["data"]
                .as_array()
                .unwrap()
                .iter()
                .find(|entry| entry["id"] == model)
                .cloned();
            if shown.is_some_and(|entry| entry["status"]["value"] == status) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Reads events until one tells this status.
async fn told(events: &mut Incoming, seen: &mut String, status: &str) {
    let wanted = format!("\"status\":\"{status}\"");
    patiently(status, async {
        while !seen.contains(&wanted) {
            let frame = events.frame().await.unwrap().unwrap();
            seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routers_own_routes() {
    let server = with_engine().await;
    let at = server.management;
    let events = open(at, "GET", "/models/sse", &[], "").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut events = events.into_body();
    let loaded = post(at, "/models/load", &json!({"model": "tiny-chat"})).await;
    assert_eq!((loaded.status.as_u16(), &loaded.json()["success"]), (200, &json!(true)));
    let mut seen = String::new();
    told(&mut events, &mut seen, "loaded").await;
    wait_for(&server, "tiny-chat", "loaded").await;
    let again = post(at, "/models/load", &json!({"model": "tiny-chat"})).await;
    assert_eq!(again.json()["success"], true);
    let list = get(at, "/models?reload=1").await.json();
    let shown = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["id"] == "tiny-chat")
        .unwrap();
    assert_eq!(shown["status"]["value"], "loaded");
    // Kronk's form of the same call (management contract 6.1).
    let gone = post(at, "/models/unload", &json!({"id": "tiny-chat"})).await.json();
    assert_eq!(gone, json!({"success": true, "status": "unloaded", "id": "tiny-chat"}));
    wait_for(&server, "tiny-chat", "unloaded").await;
    assert_eq!(
        post(at, "/models/unload", &json!({"model": "tiny-chat"})).await.json()["success"],
        true
    );
    for wrong in ["tiny-chat", "nope", "http://x/y"] {
        assert_eq!(
            post(at, "/models", &json!({"model": wrong})).await.status,
            400,
            "{wrong}"
        );
    }
    assert_eq!(post(at, "/models/load", &json!({"model": "nope"})).await.status, 404);
    assert_eq!(post(at, "/models/load", &json!({})).await.status, 400);

    told(&mut events, &mut seen, "unloaded").await;
    for part in [
        "data: {\"model\":\"tiny-chat\",\"event\":\"model_status\",\"data\":{\"status\":\"loading\"",
        "data: {\"model\":\"tiny-chat\",\"event\":\"status_change\",\"data\":{\"status\":\"loaded\"",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    drop(events);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_downloaded_can_be_deleted_and_nothing_else() {
    let origin = FakeOrigin::start().await.unwrap();
    let weights = std::fs::read(testkit::models_dir().join("tiny-embed.gguf")).unwrap();
    origin.add_hub_repo("acme/Words-GGUF", HubRepo::new().lfs("Words-F16.gguf", weights));
    let server = Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await;
    let at = server.management;
    let started = post(at, "/models", &json!({"model": "acme/Words-GGUF"})).await;
    assert_eq!(started.status, 200, "{}", started.text());
    let resolved = |name: &str| server.registry.catalog().resolve(name);
    until("the download is over", || {
        server.downloads.jobs().iter().all(|job| job.view().state.is_final())
    })
    .await;
    let file = resolved("acme/Words-GGUF").unwrap().path.clone();
    assert!(file.exists());
    let gone = call(at, "DELETE", "/models?model=acme%2FWords-GGUF", &[], "").await;
    assert_eq!((gone.status.as_u16(), gone.json()), (200, json!({"success": true})));
    assert!(!file.exists() && resolved("acme/Words-GGUF").is_none());
    for (path, status) in [
        ("/models?model=acme%2FWords-GGUF", 404),
        ("/models?model=tiny-chat", 403),
        ("/models?model=", 400),
        ("/models", 400),
    ] {
        assert_eq!(call(at, "DELETE", path, &[], "").await.status, status, "{path}");
    }
    assert!(resolved("tiny-chat").unwrap().path.exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_completion_says_so() {
    let (server, _record) = with_stub(&[("STUB_CUT_AFTER", "5"), ("STUB_TOKENS", "50")]).await;
    for path in ["/completion", "/infill"] {
        let body = json!({"model": "tiny-chat", "prompt": "x", "stream": true}).to_string();
        let reply = open(server.management, "POST", path, &[], body).await;
        assert_eq!(reply.status(), 200);
        let events = testkit::sse_events(&drain(reply.into_body()).await);
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], 500, "{events:?}");
        assert!(
            !events.iter().any(|event| event.contains("\"stop\":true")),
            "{events:?}"
        );
    }
    server.stop().await;
}
