//! REST v0 (LM Studio contract 6).

use serde_json::{Value, json};

use super::{chat, with_stub};
use crate::harness::{get, post, with_engine};

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

/// One entry of a kind that LM Studio does not know makes its clients refuse the whole list.
#[tokio::test(flavor = "multi_thread")]
async fn speech_models_are_in_openais_list_alone() {
    let server = with_stub(&[]).await;
    let at = server.lmstudio;
    let own = get(at, "/api/v0/models").await.json();
    let native = get(at, "/api/v1/models").await.json();
    for list in [&own, &native] {
        assert!(
            list.to_string().contains("tiny-chat") && !list.to_string().contains("tiny-whisper"),
            "{list}"
        );
    }
    for port in [at, server.ollama, server.management] {
        let list = get(port, "/v1/models").await.json();
        assert!(list.to_string().contains("tiny-whisper"), "{list}");
    }
    assert_eq!(get(at, "/api/v0/models/tiny-whisper").await.status, 404);
    assert_eq!(get(at, "/v1/models/tiny-whisper").await.status, 200);
    let load = json!({"model": "tiny-whisper"});
    let refused = post(at, "/api/v1/models/load", &load).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    server.stop().await;
}
