//! OpenAI routes against llama-server with the tiny models.

use serde_json::{Value, json};

use crate::harness::{Server, call, get, post, with_engine};

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "tiny-chat", "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_whole_and_streamed_on_every_port() {
    let server = with_engine().await;
    for port in [server.ollama, server.lmstudio, server.management] {
        let whole = post(
            port,
            "/v1/chat/completions",
            &chat("What is the capital of France?", false),
        )
        .await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(whole.json()["choices"][0]["message"]["content"], "Paris.");
        assert!(
            whole.header("content-length").parse::<usize>().is_ok(),
            "{:?}",
            whole.headers
        );
        let streamed = post(
            port,
            "/v1/chat/completions",
            &chat("What is the capital of France?", true),
        )
        .await;
        assert_eq!(streamed.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(streamed.header("cache-control"), "no-cache");
        assert_eq!(streamed.header("x-accel-buffering"), "no");
        assert_eq!(
            streamed.header("access-control-allow-origin"),
            "",
            "the engine's own CORS fields are gone"
        );
        let events = testkit::sse_events(&streamed.body);
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        assert_eq!(text_of(&events), "Paris.");
    }
    assert_eq!(server.router.instances().len(), 1);
    server.stop().await;
}

/// The answer text of a chat stream.
fn text_of(events: &[String]) -> String {
    events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_reasoning_and_schema_pass_through() {
    let server = with_engine().await;
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "description": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let mut asked = chat("What is the weather in Paris?", false);
    asked["tools"] = tools;
    let answer = post(server.ollama, "/v1/chat/completions", &asked).await.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "get_weather"
    );
    let thought = post(
        server.ollama,
        "/v1/chat/completions",
        &chat("Think: what is 3 times 4?", false),
    )
    .await
    .json();
    assert_eq!(
        thought["choices"][0]["message"]["reasoning_content"]
            .as_str()
            .map(str::trim),
        Some("3 times 4 is 12.")
    );
    let mut shaped = chat("Give me the capital of France as JSON.", false);
    shaped["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object",
        "properties": {"country": {"type": "string"}, "capital": {"type": "string"}}, "required": ["country", "capital"]}}});
    let answer = post(server.ollama, "/v1/chat/completions", &shaped).await.json();
    let content: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(content["capital"], "Paris");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_embeddings_and_rerank() {
    let server = with_engine().await;
    let raw = json!({"model": "tiny-chat", "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0});
    let completed = post(server.ollama, "/v1/completions", &raw).await;
    assert_eq!(completed.status, 200, "{}", completed.text());
    assert!(!completed.json()["choices"][0]["text"].as_str().unwrap().is_empty());
    let embedded = post(
        server.ollama,
        "/v1/embeddings",
        &json!({"model": "tiny-embed", "input": ["a cat", "a dog"]}),
    )
    .await;
    assert_eq!(embedded.status, 200, "{}", embedded.text());
    assert_eq!(embedded.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(embedded.json()["data"][0]["embedding"].as_array().unwrap().len(), 128);
    let question = json!({"model": "tiny-rerank", "query": "What is the capital of France?",
        "documents": ["Bread is baked.", "Paris is the capital of France."]});
    for path in ["/v1/rerank", "/v1/reranking", "/rerank", "/reranking"] {
        let ranked = post(server.lmstudio, path, &question).await;
        assert_eq!(ranked.status, 200, "{}", ranked.text());
        for list in ["results", "data"] {
            let best = ranked.json()[list]
                .as_array()
                .unwrap()
                .iter()
                .max_by(|a, b| {
                    a["relevance_score"]
                        .as_f64()
                        .partial_cmp(&b["relevance_score"].as_f64())
                        .unwrap()
                })
                .unwrap()["index"]
                .clone();
            assert_eq!(best, 1, "{path} {list}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn model_lists_and_names() {
    let server = Server::plain().await;
    for port in [server.ollama, server.lmstudio, server.management] {
        let list = get(port, "/v1/models").await.json();
        assert_eq!(list["object"], "list");
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 4, "{ids:?}");
        for id in ids {
            for path in [
                format!("/v1/models/{id}"),
                format!("/v1/models/{}", id.replace(':', "%3A")),
            ] {
                let one = get(port, &path).await;
                assert_eq!((one.status.as_u16(), &one.json()["id"]), (200, &json!(id)), "{path}");
            }
        }
    }
    // A name of OpenAI's that answers requests is shown too, as what stands behind it.
    let heard = get(server.ollama, "/v1/models/whisper-1").await;
    assert_eq!(heard.status, 200);
    assert_eq!(heard.json()["capabilities"], json!(["transcription", "translation"]));
    let missing = get(server.ollama, "/v1/models/no/such:model").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_before_any_engine_starts() {
    let server = with_engine().await;
    for (path, body, status, code) in [
        (
            "/v1/chat/completions",
            json!({"messages": []}),
            400,
            "missing_required_parameter",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]}),
            404,
            "model_not_found",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "tiny-embed", "messages": [{"role": "user", "content": "x"}]}),
            400,
            "",
        ),
        (
            "/v1/rerank",
            json!({"model": "tiny-chat", "query": "x", "documents": ["y"]}),
            400,
            "",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}),
            400,
            "invalid_type",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "ttl": 0}),
            400,
            "invalid_value",
        ),
    ] {
        let reply = post(server.ollama, path, &body).await;
        assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.text());
        let error = &reply.json()["error"];
        for member in ["message", "type", "param", "code"] {
            assert!(error.get(member).is_some(), "{error}");
        }
        assert!(code.is_empty() || error["code"] == code, "{error}");
    }
    assert!(server.router.instances().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_a_400_even_streamed() {
    let server = with_engine().await;
    let long = "word ".repeat(6000);
    for stream in [false, true] {
        let reply = post(server.ollama, "/v1/chat/completions", &chat(&long, stream)).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert_eq!(
            reply.json()["error"]["code"],
            "context_length_exceeded",
            "{}",
            reply.text()
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_parallel_first_requests_start_one_process() {
    let server = with_engine().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let port = if n % 2 == 0 { server.ollama } else { server.lmstudio };
        tasks.spawn(async move {
            call(
                port,
                "POST",
                "/v1/chat/completions",
                &[],
                chat("ping", n % 3 == 0).to_string(),
            )
            .await
        });
    }
    while let Some(reply) = tasks.join_next().await {
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains("pong"), "{}", reply.text());
    }
    let instances = server.router.instances();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].id.0, server.router.instances()[0].id.0);
    server.stop().await;
}
