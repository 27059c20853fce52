//! Loading on demand (LM Studio contract 2, 3).

use std::time::Duration;

use domain::{KeepAlive, ModelState};
use serde_json::json;

use super::{chat, ids, with_stub};
use crate::harness::{Engine, Server, Setup, get, post, until, with_engine};

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

#[tokio::test(flavor = "multi_thread")]
async fn auto_evict_waits_for_the_running_answer() {
    let server = with_stub(&[("STUB_TOKENS", "20"), ("STUB_RATE", "20")]).await;
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    let words = json!({"model": "tiny-embed", "input": "cat"});
    let running = async {
        let reply = post(server.lmstudio, "/v1/chat/completions", &chat).await;
        (reply, server.router.instances())
    };
    let evicting = async {
        let busy = || {
            let instances = server.router.instances();
            instances.iter().any(|i| i.state == ModelState::Ready && i.active > 0)
        };
        until("the running answer", busy).await;
        // Queued behind it: as many as come, one load.
        tokio::join!(
            post(server.lmstudio, "/v1/embeddings", &words),
            post(server.lmstudio, "/v1/embeddings", &words),
        )
    };
    let ((answer, after), (first, second)) = tokio::join!(running, evicting);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 20, "nothing was cut");
    assert!(
        after
            .iter()
            .all(|i| i.model.as_str() != "tiny-embed" || i.state != ModelState::Ready)
    );
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(ids(&server), ["tiny-embed"], "an embedding model counts like any other");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_one_unloaded_model_load_it_once() {
    let server = with_stub(&[("STUB_LOAD_MS", "300"), ("STUB_TOKENS", "2")]).await;
    let chat = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}]});
    let own = json!({"model": "tiny-chat", "input": "x"});
    let asks = (0..6).map(|n| {
        let (path, body) = if n % 2 == 0 {
            ("/v1/chat/completions", &chat)
        } else {
            ("/api/v1/chat", &own)
        };
        post(server.lmstudio, path, body)
    });
    for reply in futures_util::future::join_all(asks).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let instances = server.router.instances();
    assert_eq!(instances.len(), 1);
    // Ids rise with every start: this is the first.
    assert_eq!(instances[0].id.0, 1);
    server.stop().await;
}
