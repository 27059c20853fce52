//! LM Studio's habits on its port, against llama-server with the tiny models.

use std::time::Duration;

use domain::KeepAlive;
use serde_json::{Value, json};

use crate::harness::{Engine, Server, Setup, get, post, with_engine};

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "ping"}], "temperature": 0, "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn v0_lists_and_statistics() {
    let server = with_engine().await;
    let list = get(server.lmstudio, "/api/v0/models").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 2, "{list}");
    let one = get(server.lmstudio, "/api/v0/models/tiny-chat").await.json();
    assert_eq!(
        (&one["type"], &one["state"], &one["compatibility_type"]),
        (&json!("llm"), &json!("not-loaded"), &json!("gguf"))
    );
    let missing = get(server.lmstudio, "/api/v0/models/nope").await;
    assert_eq!(missing.status, 404);
    let whole = post(server.lmstudio, "/api/v0/chat/completions", &chat("tiny-chat", false))
        .await
        .json();
    assert_eq!(whole["choices"][0]["message"]["content"], "pong", "{whole}");
    assert!(whole["stats"]["tokens_per_second"].as_f64().unwrap() > 0.0, "{whole}");
    assert_eq!(
        (&whole["stats"]["stop_reason"], &whole["model_info"]["format"]),
        (&json!("eosFound"), &json!("gguf"))
    );
    assert!(whole["runtime"]["name"].as_str().unwrap().starts_with("llama.cpp-"));
    let streamed = post(server.lmstudio, "/api/v0/chat/completions", &chat("tiny-chat", true)).await;
    let events = testkit::sse_events(&streamed.body);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert!(
        last["stats"].is_object() && last["model_info"].is_object() && last["runtime"].is_object(),
        "{last}"
    );
    let loaded = get(server.lmstudio, "/api/v0/models/tiny-chat").await.json();
    assert_eq!(loaded["state"], "loaded");
    assert!(loaded["loaded_context_length"].as_u64().unwrap() > 0);
    let vectors = post(
        server.lmstudio,
        "/api/v0/embeddings",
        &json!({"model": "text-embedding-tiny-embed", "input": "cat"}),
    )
    .await;
    assert_eq!(vectors.status, 200, "{}", vectors.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn just_in_time_loading_and_its_time_to_live() {
    let server = with_engine().await;
    let mut first = chat("tiny-chat", false);
    first["ttl"] = json!(77);
    assert_eq!(post(server.lmstudio, "/v1/chat/completions", &first).await.status, 200);
    let instance = server.router.instances().remove(0);
    assert_eq!(
        (instance.jit, instance.keep_alive),
        (true, KeepAlive::For(Duration::from_secs(77)))
    );
    let mut second = chat("tiny-chat", false);
    second["ttl"] = json!(5);
    assert_eq!(post(server.lmstudio, "/v1/chat/completions", &second).await.status, 200);
    assert_eq!(
        server.router.instances()[0].keep_alive,
        KeepAlive::For(Duration::from_secs(77)),
        "ttl counts only with a load"
    );
    // The next just-in-time load replaces it.
    assert_eq!(
        post(
            server.lmstudio,
            "/v1/embeddings",
            &json!({"model": "tiny-embed", "input": "cat"})
        )
        .await
        .status,
        200
    );
    let left: Vec<String> = server
        .router
        .instances()
        .iter()
        .map(|instance| instance.model.to_string())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let refused = post(
        server.lmstudio,
        "/v1/embeddings",
        &json!({"model": "tiny-chat", "input": "cat"}),
    )
    .await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_at_the_same_moment_leave_one_just_in_time_model() {
    let server = Server::start(Setup {
        engine: Engine::Stub(Vec::new()),
        ..Setup::default()
    })
    .await;
    let question = chat("tiny-chat", false);
    let words = json!({"model": "tiny-embed", "input": "cat"});
    let (chat, embedded) = tokio::join!(
        post(server.lmstudio, "/v1/chat/completions", &question),
        post(server.lmstudio, "/v1/embeddings", &words),
    );
    assert_eq!((chat.status.as_u16(), embedded.status.as_u16()), (200, 200));
    assert_eq!(server.router.instances().len(), 1);
    // The other ports' models are neither evicted nor do they evict.
    let asked = post(server.ollama, "/v1/chat/completions", &question).await;
    assert_eq!(asked.status, 200, "{}", asked.text());
    let embedded = post(server.ollama, "/v1/embeddings", &words).await;
    assert_eq!(embedded.status, 200, "{}", embedded.text());
    assert_eq!(server.router.instances().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_answered_by_the_only_loaded_model() {
    let server = with_engine().await;
    let unknown = post(server.lmstudio, "/v1/chat/completions", &chat("gpt-4", false)).await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found")),
        "nothing is loaded"
    );
    assert_eq!(
        post(server.lmstudio, "/v1/chat/completions", &chat("tiny-chat", false))
            .await
            .status,
        200
    );
    for model in ["gpt-4", "", "local-model"] {
        let reply = post(server.lmstudio, "/v1/chat/completions", &chat(model, false)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-llamarunner-model-fallback"), "tiny-chat");
    }
    for path in ["/v1/embeddings", "/api/v0/embeddings"] {
        let vectors = post(server.lmstudio, path, &json!({"model": "gpt-4", "input": "x"})).await;
        assert_eq!(
            (vectors.status.as_u16(), &vectors.json()["error"]["code"]),
            (404, &json!("model_not_found")),
            "{path}"
        );
    }
    assert_eq!(
        post(server.ollama, "/v1/chat/completions", &chat("gpt-4", false))
            .await
            .status,
        404,
        "only on this port"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_just_in_time_loading() {
    let mut setup = Setup {
        engine: Engine::Real,
        ..Setup::default()
    };
    setup.settings.lmstudio_port.jit = false;
    let server = Server::start(setup).await;
    assert_eq!(get(server.lmstudio, "/v1/models").await.json()["data"], json!([]));
    let refused = post(server.lmstudio, "/v1/chat/completions", &chat("tiny-chat", false)).await;
    assert!(refused.status.is_client_error(), "{}", refused.text());
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("No models loaded."),
        "{}",
        refused.text()
    );
    assert_eq!(
        post(server.management, "/v1/models/tiny-chat/start", &json!({"wait": true}))
            .await
            .status,
        200
    );
    assert_eq!(
        post(server.lmstudio, "/v1/chat/completions", &chat("tiny-chat", false))
            .await
            .status,
        200
    );
    server.stop().await;
}
