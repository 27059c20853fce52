//! Answers and refusals of the OpenAI routes on LM Studio's port (LM Studio contract 4, 8).

use serde_json::{Value, json};

use super::{chat, stub, with_stub};
use crate::harness::{Server, Setup, get, post, with_engine};

/// LM Studio's form: the prefix and 21 digits of base 36.
fn is_id(id: &Value, prefix: &str) -> bool {
    let rest = id.as_str().and_then(|id| id.strip_prefix(prefix));
    rest.is_some_and(|rest| {
        rest.len() == 21
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_are_lm_studios() {
    let server = with_engine().await;
    let asked = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "ping"}], "temperature": 0,
        "preset": "poet"});
    for (at, path) in [
        (server.lmstudio, "/v1/chat/completions"),
        (server.lmstudio, "/api/v0/chat/completions"),
        // v0 is LM Studio's on every port.
        (server.ollama, "/api/v0/chat/completions"),
    ] {
        let reply = post(at, path, &asked).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let whole = reply.json();
        assert!(is_id(&whole["id"], "chatcmpl-"), "{path}: {whole}");
        assert_eq!(
            (&whole["object"], &whole["model"], &whole["system_fingerprint"]),
            (&json!("chat.completion"), &json!("tiny-chat"), &json!("tiny-chat"))
        );
        let choice = &whole["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["message"]["tool_calls"]),
            (&json!("pong"), &json!([])),
            "{path}: {whole}"
        );
        assert!(choice.as_object().unwrap().get("logprobs").is_some_and(Value::is_null));
        let stats = whole["stats"].as_object().unwrap();
        assert_eq!(stats.is_empty(), path.starts_with("/v1"), "{path}: {whole}");
    }
    let twice = json!({"model": "tiny-chat", "messages": asked["messages"], "n": 2});
    let two = post(server.lmstudio, "/v1/chat/completions", &twice).await.json();
    assert!(
        is_id(&two["id"], "chatcmpl-") && two["choices"][1]["message"]["tool_calls"] == json!([]),
        "{two}"
    );

    let text = |extra: Value| {
        let mut body = json!({"model": "tiny-chat", "prompt": "Once upon", "max_tokens": 2, "temperature": 0});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for extra in [json!({}), json!({"echo": true}), json!({"n": 2})] {
        let whole = post(server.lmstudio, "/v1/completions", &text(extra.clone()))
            .await
            .json();
        assert!(is_id(&whole["id"], "cmpl-"), "{extra}: {whole}");
        assert_eq!(
            (&whole["system_fingerprint"], &whole["stats"]),
            (&json!("tiny-chat"), &json!({})),
            "{extra}"
        );
    }
    let old = post(server.lmstudio, "/api/v0/completions", &text(json!({})))
        .await
        .json();
    assert!(is_id(&old["id"], "cmpl-") && old["runtime"].is_object(), "{old}");

    // Streams of v0 are translated, and so they have it too; the others are relayed as they are.
    let streamed = post(server.lmstudio, "/api/v0/chat/completions", &chat("tiny-chat", true)).await;
    let events = testkit::sse_events(&streamed.body);
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(chunk).unwrap();
        assert!(
            is_id(&chunk["id"], "chatcmpl-") && chunk["system_fingerprint"] == "tiny-chat",
            "{chunk}"
        );
    }

    // The other ports pass the engine's answers on.
    let plain = post(server.ollama, "/v1/chat/completions", &chat("tiny-chat", false))
        .await
        .json();
    assert!(
        plain.get("stats").is_none() && !is_id(&plain["id"], "chatcmpl-"),
        "{plain}"
    );
    for (at, owner) in [(server.lmstudio, "organization_owner"), (server.ollama, "llama-runner")] {
        let list = get(at, "/v1/models").await.json();
        assert_eq!(list["data"][0]["owned_by"], owner);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_wrong() {
    let server = with_stub(&[]).await;
    let body = |field: &str, value: Value| {
        let mut body = chat("tiny-chat", false);
        body[field] = value;
        body["prompt"] = "x".into();
        body
    };
    for (field, value, code) in [
        ("temperature", json!("hot"), "invalid_type"),
        ("top_p", json!([1]), "invalid_type"),
        ("top_k", json!("40"), "invalid_type"),
        ("min_p", json!(true), "invalid_type"),
        ("presence_penalty", json!("x"), "invalid_type"),
        ("frequency_penalty", json!({}), "invalid_type"),
        ("repeat_penalty", json!("1"), "invalid_type"),
        ("seed", json!("7"), "invalid_type"),
        ("stop", json!(5), "invalid_type"),
        ("logit_bias", json!("x"), "invalid_type"),
        ("max_tokens", json!("many"), "invalid_type"),
        ("ttl", json!("1h"), "invalid_type"),
        ("ttl", json!(0), "invalid_value"),
    ] {
        for path in ["/v1/chat/completions", "/v1/completions", "/api/v0/chat/completions"] {
            let refused = post(server.lmstudio, path, &body(field, value.clone())).await;
            let error = refused.json()["error"].clone();
            assert_eq!(
                (refused.status.as_u16(), &error["param"], &error["code"], &error["type"]),
                (400, &json!(field), &json!(code), &json!("invalid_request_error")),
                "{path} {field}: {error}"
            );
        }
    }
    // Roles: LM Studio's words, where the engine would leave it to the template.
    let said = |role: &str| json!({"model": "tiny-chat", "messages": [{"role": role, "content": "x"}]});
    let refused = post(server.lmstudio, "/v1/chat/completions", &said("ai")).await;
    assert_eq!(refused.status, 400);
    let text = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("'messages' array must only contain objects with a 'role' field that is in [user, assistant,")
            && text.ends_with("Got 'ai'"),
        "{text}"
    );
    for role in ["system", "developer", "user"] {
        let taken = post(server.lmstudio, "/v1/chat/completions", &said(role)).await;
        assert_eq!(taken.status, 200, "{role}: {}", taken.text());
    }
    // A preset is LM Studio's own: elsewhere it would be ignored silently.
    let preset = body("preset", json!("poet"));
    assert_eq!(post(server.lmstudio, "/v1/chat/completions", &preset).await.status, 200);
    assert_eq!(post(server.ollama, "/v1/chat/completions", &preset).await.status, 400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_a_limit() {
    let mut setup = Setup {
        engine: stub(&[]),
        ..Setup::default()
    };
    setup.router.max_queue = 0;
    let server = Server::start(setup).await;
    for stream in [false, true] {
        for path in ["/v1/chat/completions", "/api/v0/chat/completions"] {
            let refused = post(server.lmstudio, path, &chat("tiny-chat", stream)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.header("retry-after")),
                (429, "1"),
                "{path}: {}",
                refused.text()
            );
            assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded", "{path}");
            assert_eq!(refused.header("x-llamarunner-state"), "unloaded");
        }
    }
    let own = json!({"model": "tiny-chat", "input": "x"});
    let refused = post(server.lmstudio, "/api/v1/chat", &own).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    // The other ports call it what it is.
    let busy = post(server.ollama, "/v1/chat/completions", &chat("tiny-chat", false)).await;
    assert_eq!(busy.status, 503);
    server.stop().await;
}
