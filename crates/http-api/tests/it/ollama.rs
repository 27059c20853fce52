//! Ollama's routes against llama-server with the tiny models.

use serde_json::{Value, json};

use crate::harness::{Server, call, get, lines, post, with_engine};

fn zero() -> Value {
    json!({"temperature": 0})
}

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "tiny-chat", "messages": [{"role": "user", "content": text}], "options": zero(), "stream": stream})
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_details() {
    let server = Server::plain().await;
    let tags = get(server.ollama, "/api/tags").await;
    assert_eq!(tags.header("content-type"), "application/json; charset=utf-8");
    let models = tags.json()["models"].as_array().unwrap().clone();
    assert_eq!(models.len(), 3);
    for model in &models {
        assert_eq!(model["digest"].as_str().unwrap().len(), 64);
        assert!(model["name"].as_str().unwrap().contains(':'), "{model}");
        let name = &model["name"];
        let show = post(server.ollama, "/api/show", &json!({"model": name})).await;
        assert_eq!(show.status, 200, "{}", show.text());
        assert!(
            show.json()["model_info"]
                .as_object()
                .is_some_and(|info| info.contains_key("general.architecture"))
        );
        assert!(!show.json()["capabilities"].as_array().unwrap().is_empty());
    }
    assert_eq!(get(server.ollama, "/api/ps").await.json(), json!({"models": []}));
    assert_eq!(get(server.ollama, "/api/version").await.json()["version"], "0.33.0");
    assert_eq!(
        get(server.ollama, "/api/status").await.json()["cloud"]["disabled"],
        true
    );
    assert_eq!(call(server.ollama, "POST", "/api/me", &[], "").await.status, 401);
    let search = post(server.ollama, "/api/experimental/web_search", &json!({"query": "x"})).await;
    assert_eq!(
        (search.status.as_u16(), &search.json()["error"]),
        (403, &json!("ollama cloud is disabled: web search is unavailable"))
    );
    let fetch = post(
        server.ollama,
        "/api/experimental/web_fetch",
        &json!({"url": "https://x"}),
    )
    .await;
    assert_eq!(
        (fetch.status.as_u16(), &fetch.json()["error"]),
        (403, &json!("ollama cloud is disabled: web fetch is unavailable"))
    );
    assert_eq!(
        get(server.ollama, "/api/experimental/model-recommendations")
            .await
            .json(),
        json!({"recommendations": []})
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_missing_bad_or_unknown() {
    let server = Server::plain().await;
    for (path, model, status, error) in [
        ("/api/generate", "", 404, "model '' not found"),
        ("/api/chat", "", 400, "model is required"),
        ("/api/embed", "", 404, "model '' not found"),
        ("/api/embeddings", "", 400, "model is required"),
        ("/api/show", "", 400, "model is required"),
        ("/api/generate", "x", 404, "model 'x' not found"),
        ("/api/chat", "x", 404, "model 'x' not found"),
        ("/api/embed", "x", 404, "model \"x\" not found, try pulling it first"),
        (
            "/api/embeddings",
            "x",
            404,
            "model \"x\" not found, try pulling it first",
        ),
        ("/api/show", "x", 404, "model 'x:latest' not found"),
        ("/api/chat", "a b c/!", 400, "invalid model name"),
    ] {
        let reply = post(server.ollama, path, &json!({"model": model, "stream": true})).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()),
            (status, json!({ "error": error })),
            "{path} {model:?}"
        );
    }
    for (body, error) in [
        ("", "missing request body"),
        (
            r#"{"model":"x","keep_alive":"10"}"#,
            "time: missing unit in duration \"10\"",
        ),
    ] {
        let reply = call(server.ollama, "POST", "/api/chat", &[], body).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (400, json!({ "error": error })));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_streamed_and_whole() {
    let server = with_engine().await;
    let reply = post(
        server.ollama,
        "/api/chat",
        &chat("What is the capital of France?", true),
    )
    .await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let stream = lines(&reply.body);
    let text: String = stream
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "Paris.");
    let last = stream.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["model"]),
        (&json!(true), &json!("stop"), &json!("tiny-chat"))
    );
    for metric in [
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ] {
        assert!(last[metric].as_u64().is_some_and(|value| value > 0), "{metric}: {last}");
    }
    let whole = post(
        server.ollama,
        "/api/chat",
        &chat("What is the capital of France?", false),
    )
    .await;
    assert_eq!(whole.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(whole.json()["message"]["content"], "Paris.");
    // curl -d as in the documentation, without a JSON content type, and the name in another case with its tag.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut other = chat("ping", false);
    other["model"] = json!("TINY-chat:latest");
    let reply = call(server.ollama, "POST", "/api/chat", &form, other.to_string()).await;
    assert_eq!(
        (&reply.json()["message"]["content"], &reply.json()["model"]),
        (&json!("pong"), &json!("TINY-chat:latest"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_tools_and_format() {
    let server = with_engine().await;
    let thought = post(server.ollama, "/api/chat", &chat("Think: what is 3 times 4?", false))
        .await
        .json();
    assert_eq!(
        thought["message"]["thinking"].as_str().map(str::trim),
        Some("3 times 4 is 12.")
    );
    assert_eq!(thought["message"]["content"], "12.");
    let mut without = chat("Think: what is 3 times 4?", false);
    without["think"] = json!(false);
    let answer = post(server.ollama, "/api/chat", &without).await.json();
    assert_eq!(answer["message"], json!({"role": "assistant", "content": "12."}));
    let tool = json!({"type": "function", "function": {"name": "get_weather", "description": "w",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}});
    for stream in [false, true] {
        let mut asked = chat("What is the weather in Paris?", stream);
        asked["tools"] = json!([tool]);
        let reply = post(server.ollama, "/api/chat", &asked).await;
        let calls: Vec<Value> = lines_or_one(&reply.body)
            .iter()
            .filter_map(|line| line["message"]["tool_calls"].as_array().cloned())
            .flatten()
            .collect();
        assert_eq!(calls.len(), 1, "{}", reply.text());
        assert_eq!(calls[0]["function"]["arguments"], json!({"city": "Paris"}));
    }
    let mut shaped = chat("Give me the capital of France as JSON.", false);
    shaped["format"] = json!({"type": "object", "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
        "required": ["country", "capital"]});
    let answer = post(server.ollama, "/api/chat", &shaped).await.json();
    let content: Value = serde_json::from_str(answer["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(content["capital"], "Paris");
    server.stop().await;
}

fn lines_or_one(body: &[u8]) -> Vec<Value> {
    if body.ends_with(b"\n") {
        lines(body)
    } else {
        vec![serde_json::from_slice(body).unwrap()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_in_all_its_modes() {
    let server = with_engine().await;
    let ask = |extra: Value| {
        let mut body = json!({"model": "tiny-chat", "prompt": "What is the capital of France?", "stream": false, "options": zero()});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let whole = post(server.ollama, "/api/generate", &ask(json!({}))).await.json();
    assert_eq!(
        (&whole["response"], &whole["done_reason"]),
        (&json!("Paris."), &json!("stop"))
    );
    let context = whole["context"].as_array().expect("context").clone();
    assert!(context.len() > 10, "{whole}");
    let streamed = lines(
        &post(server.ollama, "/api/generate", &ask(json!({"stream": true})))
            .await
            .body,
    );
    let text: String = streamed.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(text, "Paris.");
    assert_eq!(
        streamed.last().unwrap()["context"].as_array(),
        Some(&context),
        "streamed and whole agree"
    );
    let name = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"prompt": "My name is Alice."})),
    )
    .await
    .json();
    let again = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"prompt": "What is my name?", "context": name["context"]})),
    )
    .await
    .json();
    assert_eq!(again["response"], "Your name is Alice.", "{again}");
    let pirate = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"prompt": "Hello", "system": "You are a pirate."})),
    )
    .await
    .json();
    assert_eq!(pirate["response"], "Ahoy, matey!");
    let raw = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"prompt": "Once upon a time", "raw": true, "options": {"temperature": 0, "num_predict": 8}})),
    )
    .await
    .json();
    assert_eq!(
        (raw.get("context"), &raw["done_reason"]),
        (None, &json!("length")),
        "{raw}"
    );
    let gap = post(server.ollama, "/api/generate", &ask(json!({"prompt": "def add(a, b):\n    return ", "suffix": "\n", "options": {"temperature": 0, "num_predict": 16}}))).await.json();
    assert_eq!(gap["response"].as_str().map(str::trim), Some("a + b"), "{gap}");
    let rendered = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"_debug_render_only": true})),
    )
    .await
    .json();
    assert!(
        rendered["_debug_info"]["rendered_template"]
            .as_str()
            .unwrap()
            .contains("<|im_start|>user"),
        "{rendered}"
    );
    let clash = post(
        server.ollama,
        "/api/generate",
        &ask(json!({"raw": true, "system": "x"})),
    )
    .await;
    assert_eq!(
        (clash.status.as_u16(), clash.json()),
        (
            400,
            json!({"error": "raw mode does not support template, system, or context"})
        )
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_unload_and_ps() {
    let server = with_engine().await;
    let loaded = post(server.ollama, "/api/generate", &json!({"model": "tiny-chat"})).await;
    assert_eq!(loaded.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(
        (&loaded.json()["done_reason"], &loaded.json()["response"]),
        (&json!("load"), &json!(""))
    );
    let ps = get(server.ollama, "/api/ps").await.json();
    assert_eq!(ps["models"][0]["name"], "tiny-chat:latest", "{ps}");
    assert!(
        ps["models"][0]["size"].as_u64().unwrap() > 0 && ps["models"][0]["context_length"].as_u64().unwrap() > 0,
        "{ps}"
    );
    let forever = post(
        server.ollama,
        "/api/chat",
        &json!({"model": "tiny-chat", "keep_alive": -1}),
    )
    .await;
    assert_eq!(forever.json()["message"], json!({"role": "assistant", "content": ""}));
    let year = get(server.ollama, "/api/ps").await.json()["models"][0]["expires_at"]
        .as_str()
        .unwrap()[..4]
        .parse::<u32>()
        .unwrap();
    assert!(year > 2300, "{year}");
    for _ in 0..2 {
        let gone = post(
            server.ollama,
            "/api/chat",
            &json!({"model": "tiny-chat", "messages": [], "keep_alive": 0}),
        )
        .await;
        assert_eq!(
            (gone.status.as_u16(), &gone.json()["done_reason"]),
            (200, &json!("unload"))
        );
    }
    assert_eq!(get(server.ollama, "/api/ps").await.json(), json!({"models": []}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings() {
    let server = with_engine().await;
    let two = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": ["The cat sleeps.", "A dog and a kitten play."]}),
    )
    .await
    .json();
    let vectors: Vec<Vec<f64>> = serde_json::from_value(two["embeddings"].clone()).unwrap();
    assert_eq!((vectors.len(), vectors[0].len()), (2, 128));
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    assert!((length(&vectors[0]) - 1.0).abs() < 1e-4);
    assert!(two["prompt_eval_count"].as_u64().unwrap() > 0);
    let short = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": "The cat sleeps.", "dimensions": 16}),
    )
    .await
    .json();
    let vector: Vec<f64> = serde_json::from_value(short["embeddings"][0].clone()).unwrap();
    assert!(vector.len() == 16 && (length(&vector) - 1.0).abs() < 1e-4);
    let none = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": []}),
    )
    .await;
    assert_eq!((none.status.as_u16(), &none.json()["embeddings"]), (200, &json!([])));
    let old = post(
        server.ollama,
        "/api/embeddings",
        &json!({"model": "tiny-embed", "prompt": "The cat sleeps."}),
    )
    .await
    .json();
    assert_eq!(old["embedding"].as_array().unwrap().len(), 128);
    let long = "cat dog ".repeat(2000);
    let cut = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": long}),
    )
    .await;
    assert_eq!(cut.status, 200, "{}", cut.text());
    let whole = post(
        server.ollama,
        "/api/embed",
        &json!({"model": "tiny-embed", "input": long, "truncate": false}),
    )
    .await;
    assert_eq!(
        (whole.status.as_u16(), whole.json()),
        (400, json!({"error": "the input length exceeds the context length"}))
    );
    // The request's own context counts, though the loaded model has room for more.
    let within = |tokens: u32, truncate: bool| {
        let body = json!({"model": "tiny-embed", "input": long, "truncate": truncate, "options": {"num_ctx": tokens}});
        async move { post(server.ollama, "/api/embed", &body).await.json() }
    };
    assert_eq!(within(8, true).await["prompt_eval_count"], 8);
    assert_eq!(
        within(8, false).await,
        json!({"error": "the input length exceeds the context length"})
    );
    let none = json!({"error": "input after truncation exceeds maximum context length"});
    assert_eq!((within(0, true).await, within(1, true).await), (none.clone(), none));
    assert_eq!(within(100_000, true).await["error"], Value::Null);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chats_lose_their_oldest_messages() {
    let server = with_engine().await;
    let filler: Vec<Value> = (0..60)
        .flat_map(|n| {
            [
                json!({"role": "user", "content": format!("{n} {}", "word ".repeat(60))}),
                json!({"role": "assistant", "content": "I do not know that."}),
            ]
        })
        .collect();
    let mut messages = vec![json!({"role": "system", "content": "You are a pirate."})];
    messages.extend(filler);
    messages.push(json!({"role": "user", "content": "Hello"}));
    let body = |truncate: bool| json!({"model": "tiny-chat", "messages": messages, "stream": false, "truncate": truncate, "options": {"temperature": 0, "num_ctx": 1024, "num_predict": 8}});
    let fitted = post(server.ollama, "/api/chat", &body(true)).await;
    assert_eq!(fitted.status, 200, "{}", fitted.text());
    let prompt = fitted.json()["prompt_eval_count"].as_u64().unwrap();
    assert!((200..=4096).contains(&prompt), "{prompt}");
    let refused = post(server.ollama, "/api/chat", &body(false)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.json()["error"].as_str().unwrap().contains("context"),
        "{}",
        refused.text()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_cannot_fit_is_refused_with_both_counts() {
    let server = with_engine().await;
    let long = "word ".repeat(9000);
    for (path, mut body) in [
        ("/api/chat", json!({"messages": [{"role": "user", "content": long}]})),
        (
            "/api/chat",
            json!({"messages": [{"role": "user", "content": long}], "truncate": false}),
        ),
        ("/api/generate", json!({"prompt": long})),
        ("/api/generate", json!({"prompt": long, "raw": true})),
        ("/api/generate", json!({"prompt": long, "context": [1, 2]})),
        ("/api/generate", json!({"prompt": long, "suffix": "x"})),
    ] {
        for stream in [true, false] {
            body["model"] = "tiny-chat".into();
            body["stream"] = stream.into();
            let reply = post(server.ollama, path, &body).await;
            let text = reply.json()["error"].as_str().unwrap().to_owned();
            assert_eq!(reply.status, 400, "{path}: {text}");
            assert!(
                text.starts_with("the input (90")
                    && text.ends_with(" tokens) exceeds the context length (4096 tokens)"),
                "{text}"
            );
        }
    }
    server.stop().await;
}
