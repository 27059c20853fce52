//! `/v1/messages` against llama-server with the tiny models, and against a stub that breaks.

use serde_json::{Value, json};

use crate::harness::{call, drain, get, open, post, with_engine, with_stub};

fn ask(text: &str) -> Value {
    json!({"model": "tiny-chat", "max_tokens": 300, "temperature": 0, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_answers_whole_and_streamed() {
    let server = with_engine().await;
    for port in [server.ollama, server.lmstudio, server.management] {
        let whole = post(port, "/v1/messages", &ask("What is the capital of France?")).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        let body = whole.json();
        assert_eq!(body["content"], json!([{"type": "text", "text": "Paris."}]));
        assert_eq!(
            (&body["type"], &body["role"], &body["model"]),
            (&json!("message"), &json!("assistant"), &json!("tiny-chat"))
        );
        let id = format!("req_{}", whole.header("x-request-id"));
        assert_eq!(whole.header("request-id"), id);

        let mut streamed = ask("What is the capital of France?");
        streamed["stream"] = true.into();
        let streamed = call(
            port,
            "POST",
            "/v1/messages?beta=true",
            &[
                ("x-api-key", "sk-ant-none"),
                ("anthropic-version", "2023-06-01"),
                ("anthropic-beta", "x"),
            ],
            streamed.to_string(),
        )
        .await;
        assert_eq!(streamed.header("content-type"), "text/event-stream; charset=utf-8");
        let text = streamed.text();
        assert!(text.starts_with("event: message_start\n"), "{text}");
        assert!(
            text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
            "{text}"
        );
        assert!(text.contains("\"text\":\"Paris\""), "{text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_with_the_models_own_template() {
    let server = with_engine().await;
    let count = |body: Value| async move {
        let reply = post(server.ollama, "/v1/messages/count_tokens", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["input_tokens"].as_u64().unwrap()
    };
    let hello = json!([{"role": "user", "content": "Hello"}]);
    let plain = count(json!({"model": "tiny-chat", "messages": hello})).await;
    let system = count(json!({"model": "tiny-chat", "messages": hello, "system": "You are a pirate."})).await;
    let tool = json!([{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
    let tools = count(json!({"model": "tiny-chat", "messages": hello, "tools": tool})).await;
    assert!(plain > 5 && system > plain && tools > plain);
    let answer = post(server.ollama, "/v1/messages", &ask("Hello")).await;
    assert_eq!(answer.json()["usage"]["input_tokens"], plain);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_anthropics_shape_wherever_they_arise() {
    let server = with_engine().await;
    let unknown = json!({"model": "nope", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    let deep = "[".repeat(200);
    for (method, path, body, status, kind) in [
        ("POST", "/v1/messages", unknown.to_string(), 404, "not_found_error"),
        ("POST", "/v1/messages", "{}".into(), 400, "invalid_request_error"),
        ("POST", "/v1/messages", deep, 400, "invalid_request_error"),
        (
            "POST",
            "/v1/messages",
            ask(&"word ".repeat(20_000)).to_string(),
            400,
            "invalid_request_error",
        ),
        ("GET", "/v1/messages", String::new(), 405, "api_error"),
        ("POST", "/v1/messages/batches", String::new(), 404, "not_found_error"),
    ] {
        let reply = call(server.ollama, method, path, &[], body).await;
        let shown = reply.text();
        assert_eq!(reply.status, status, "{shown}");
        let error = reply.json();
        assert_eq!(
            (&error["type"], &error["error"]["type"]),
            (&json!("error"), &json!(kind)),
            "{shown}"
        );
        assert!(error["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        let id = error["request_id"].as_str().unwrap();
        assert_eq!(
            (id, reply.header("request-id")),
            (format!("req_{}", reply.header("x-request-id")).as_str(), id)
        );
    }
    let given = call(
        server.ollama,
        "POST",
        "/v1/messages",
        &[("x-request-id", "mine-1")],
        "{}",
    )
    .await;
    assert_eq!(given.json()["request_id"], "req_mine-1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_ends_with_an_error_event() {
    for (variable, value) in [("STUB_CUT_AFTER", "5"), ("STUB_DIE_TOKENS", "5,signal:9")] {
        let (server, _record) = with_stub(&[(variable, value), ("STUB_TOKENS", "50")]).await;
        let mut body = ask("x");
        body["stream"] = true.into();
        let reply = open(server.ollama, "POST", "/v1/messages", &[], body.to_string()).await;
        assert_eq!(reply.status(), 200);
        let text = String::from_utf8(drain(reply.into_body()).await).unwrap();
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        assert!(
            last.starts_with("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\""),
            "{text}"
        );
        assert!(last.contains("\"request_id\":\"req_"), "{last}");
        assert!(
            !text.contains("message_stop") && !text.contains("message_delta"),
            "{text}"
        );

        let whole = post(server.ollama, "/v1/messages", &ask("x")).await;
        assert!(whole.status.is_server_error(), "{}", whole.text());
        assert_eq!(whole.json()["error"]["type"], "api_error");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_models_has_both_forms_for_those_who_ask() {
    let server = with_engine().await;
    for port in [server.ollama, server.lmstudio, server.management] {
        let anthropic = [("anthropic-version", "2023-06-01")];
        let list = call(port, "GET", "/v1/models", &anthropic, "").await.json();
        assert_eq!(list["has_more"], false);
        let first = &list["data"][0];
        assert_eq!((&first["type"], &first["object"]), (&json!("model"), &json!("model")));
        assert_eq!(list["first_id"], first["id"]);
        assert!(first["display_name"].is_string() && first["created_at"].is_string() && first["created"].is_number());
        let one = call(port, "GET", "/v1/models/tiny-chat", &anthropic, "").await.json();
        assert_eq!((&one["id"], &one["type"]), (&json!("tiny-chat"), &json!("model")));
        assert!(get(port, "/v1/models").await.json().get("has_more").is_none());
    }
    server.stop().await;
}
