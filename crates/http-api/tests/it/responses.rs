//! `/v1/responses`: kept conversations, failures in the middle, compressed bodies.

use std::io::Write as _;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::{Recorded, read_record};

use crate::harness::{Engine, Reply, Server, Setup, call, drain, get, open, patiently, post, with_engine, with_stub};

fn ask(input: &str) -> Value {
    json!({"model": "tiny-chat", "input": input, "temperature": 0})
}

/// The messages of the last chat that the stub engine was asked.
fn asked(record: &std::path::Path) -> Vec<Value> {
    let mut bodies = read_record(record)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|event| match event {
            Recorded::Request { path, body, .. } if path == "/v1/chat/completions" => Some(body),
            _ => None,
        });
    let last: Value = serde_json::from_str(&bodies.next_back().unwrap()).unwrap();
    last["messages"].as_array().unwrap().clone()
}

/// Every event of a stream, with its name checked against its type and its number against its place.
fn events(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let frames = text
        .split("\n\n")
        .filter(|frame| !frame.is_empty() && !frame.starts_with(':'));
    let mut events = Vec::new();
    for frame in frames {
        let (name, data) = frame.split_once('\n').unwrap();
        let value: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), value["type"].as_str());
        assert_eq!(value["sequence_number"], events.len());
        events.push(value);
    }
    events
}

async fn post_to(server: &Server, body: &Value) -> Reply {
    post(server.ollama, "/v1/responses", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_kept_continued_and_forgotten() {
    let (server, record) = with_stub(&[("STUB_TEXT", "Nice to meet you."), ("STUB_TOKENS", "4")]).await;
    let mut first = ask("My name is Alice.");
    first["instructions"] = "Be kind.".into();
    let first = post_to(&server, &first).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 53 && id.starts_with("resp_"), "{id}");
    assert_eq!(first.json()["output"][0]["content"][0]["text"], "Nice to meet you.");
    assert_eq!(
        get(server.lmstudio, &format!("/v1/responses/{id}")).await.json(),
        first.json()
    );
    let items = get(server.ollama, &format!("/v1/responses/{id}/input_items"))
        .await
        .json();
    assert_eq!(items["data"][0]["content"][0]["text"], "My name is Alice.");
    assert!(items["data"][0]["id"].as_str().unwrap().starts_with("msg_"));

    // Instructions do not carry over; what was said does, on every port, streamed or not.
    let mut second = ask("And mine is Bob.");
    second["previous_response_id"] = id.as_str().into();
    second["stream"] = true.into();
    let reply = open(server.lmstudio, "POST", "/v1/responses", &[], second.to_string()).await;
    let all = events(&drain(reply.into_body()).await);
    let last = all.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    let roles = |record: &std::path::Path| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        asked(record)
            .iter()
            .map(|m| (text(&m["role"]), text(&m["content"])))
            .collect()
    };
    let said = |who: &str, what: &str| (who.to_owned(), what.to_owned());
    assert_eq!(
        roles(&record),
        [
            said("user", "My name is Alice."),
            said("assistant", "Nice to meet you."),
            said("user", "And mine is Bob."),
        ]
    );
    let newer = last["response"]["id"].as_str().unwrap();
    let mut third = ask("Well?");
    third["previous_response_id"] = newer.into();
    third["store"] = false.into();
    let third = post_to(&server, &third).await.json();
    assert_eq!(roles(&record).len(), 5);
    assert_eq!(third["previous_response_id"], newer);

    // What was not to be kept cannot be continued, nor what lost its beginning.
    let mut from = ask("x");
    let unkept = third["id"].as_str().unwrap();
    assert_eq!(get(server.ollama, &format!("/v1/responses/{unkept}")).await.status, 404);
    let gone = call(server.ollama, "DELETE", &format!("/v1/responses/{id}"), &[], "").await;
    assert_eq!(gone.json(), json!({"id": id, "object": "response", "deleted": true}));
    for (method, path) in [
        ("GET", format!("/v1/responses/{id}")),
        ("DELETE", format!("/v1/responses/{id}")),
        ("GET", format!("/v1/responses/{id}/input_items")),
    ] {
        let reply = call(server.ollama, method, &path, &[], "").await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (404, &"response_not_found".into())
        );
    }
    for lost in [unkept, id.as_str(), newer, "resp_nonsense"] {
        from["previous_response_id"] = lost.into();
        let refused = post_to(&server, &from).await;
        let error = &refused.json()["error"];
        assert_eq!(
            (refused.status.as_u16(), &error["code"], &error["param"]),
            (
                400,
                &"previous_response_not_found".into(),
                &"previous_response_id".into()
            )
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_says_so_and_is_not_kept() {
    for (variable, value) in [("STUB_CUT_AFTER", "3"), ("STUB_DIE_TOKENS", "3,signal:9")] {
        let (server, _record) = with_stub(&[(variable, value), ("STUB_TOKENS", "9")]).await;
        let mut body = ask("x");
        body["stream"] = true.into();
        let reply = open(server.ollama, "POST", "/v1/responses", &[], body.to_string()).await;
        assert_eq!(reply.status(), 200);
        let all = events(&drain(reply.into_body()).await);
        let last = all.last().unwrap();
        assert_eq!(last["type"], "response.failed", "{variable}");
        assert!(
            last["response"]["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        assert!(!all.iter().any(|event| event["type"] == "response.completed"));
        let id = last["response"]["id"].as_str().unwrap();
        assert_eq!(get(server.ollama, &format!("/v1/responses/{id}")).await.status, 404);
        // Not streamed: a status.
        let whole = post_to(&server, &ask("x")).await;
        assert_eq!(whole.status, 500, "{}", whole.text());
        assert!(whole.json()["error"]["message"].is_string());
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_left_stops_the_engine() {
    let (server, record) = with_stub(&[("STUB_TOKENS", "100000"), ("STUB_RATE", "100")]).await;
    for stream in [true, false] {
        let mut body = ask("x");
        body["stream"] = stream.into();
        if stream {
            let mut reply = open(server.ollama, "POST", "/v1/responses", &[], body.to_string())
                .await
                .into_body();
            patiently("a first event", reply.frame()).await.unwrap().unwrap();
        } else {
            use tokio::io::AsyncWriteExt as _;
            let mut raw = tokio::net::TcpStream::connect(server.ollama).await.unwrap();
            let text = body.to_string();
            let head = format!(
                "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            raw.write_all(head.as_bytes()).await.unwrap();
            raw.write_all(text.as_bytes()).await.unwrap();
            let before = began(&record);
            crate::harness::until("the engine begins", || began(&record) > before || began(&record) == 2).await;
        }
    }
    crate::harness::until("both were cut", || {
        let gone = read_record(&record)
            .unwrap_or_default()
            .into_iter()
            .filter(|event| matches!(event, Recorded::Gone { .. }));
        gone.count() >= 2
    })
    .await;
    server.stop().await;
}

/// Answers that the engine began.
fn began(record: &std::path::Path) -> usize {
    let chats = read_record(record)
        .unwrap_or_default()
        .into_iter()
        .filter(|event| matches!(event, Recorded::Request { path, .. } if path == "/v1/chat/completions"));
    chats.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read_with_a_bound() {
    let (server, _record) = with_stub(&[("STUB_TEXT", "Hi."), ("STUB_TOKENS", "1")]).await;
    let gzip = |body: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    };
    let zstd = |body: &[u8]| ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest);
    let small = ask("x").to_string();
    let bomb = ask(&" ".repeat(24 << 20)).to_string();
    let send = |coding: &'static str, path: &'static str, body: Vec<u8>| {
        let to = server.ollama;
        async move { call(to, "POST", path, &[("content-encoding", coding)], body).await }
    };
    for (coding, packed) in [("gzip", gzip(small.as_bytes())), ("zstd", zstd(small.as_bytes()))] {
        let reply = send(coding, "/v1/responses", packed.clone()).await;
        assert_eq!(reply.status, 200, "{coding}: {}", reply.text());
        let elsewhere = send(coding, "/v1/chat/completions", packed.clone()).await;
        assert_eq!(
            (elsewhere.status.as_u16(), &elsewhere.json()["error"]["code"]),
            (415, &"unsupported_encoding".into())
        );
        let damaged = send(coding, "/v1/responses", packed[..packed.len() - 9].to_vec()).await;
        assert_eq!(damaged.status, 400, "{}", damaged.text());
    }
    for (coding, packed) in [("gzip", gzip(bomb.as_bytes())), ("zstd", zstd(bomb.as_bytes()))] {
        assert!(packed.len() < 1 << 20, "{coding}: {}", packed.len());
        assert_eq!(send(coding, "/v1/responses", packed).await.status, 413, "{coding}");
    }
    assert_eq!(send("br", "/v1/responses", b"x".to_vec()).await.status, 415);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn llama_server_answers_in_items() {
    let server = with_engine().await;
    let weather = json!([{"type": "function", "name": "get_weather", "description": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    let mut body = ask("What is the weather in Paris?");
    body["tools"] = weather.clone();
    let answer = post_to(&server, &body).await.json();
    let item = &answer["output"][0];
    assert_eq!(
        (&item["type"], &item["name"]),
        (&"function_call".into(), &"get_weather".into()),
        "{answer}"
    );
    assert_eq!(answer["status"], "completed");
    assert!(answer["usage"]["input_tokens"].as_u64().unwrap() > 0);

    let mut result =
        json!({"model": "tiny-chat", "temperature": 0, "tools": weather, "previous_response_id": answer["id"]});
    result["input"] = json!([{"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"}]);
    let told = post_to(&server, &result).await.json();
    assert!(
        told["output"][0]["content"][0]["text"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{told}"
    );

    let thought = post_to(&server, &ask("Think: what is 3 times 4?")).await.json();
    assert_eq!(
        thought["output"][0]["summary"][0]["text"].as_str().map(str::trim),
        Some("3 times 4 is 12."),
        "{thought}"
    );
    let thought = post(server.lmstudio, "/v1/responses", &ask("Think: what is 3 times 4?"))
        .await
        .json();
    assert_eq!(
        thought["output"][0]["content"][0]["text"].as_str().map(str::trim),
        Some("3 times 4 is 12.")
    );
    assert!(
        thought["usage"]["output_tokens_details"]["reasoning_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );

    let mut short = ask("Count to 100.");
    short["max_output_tokens"] = 5.into();
    let short = post_to(&server, &short).await.json();
    assert_eq!(
        (&short["status"], &short["incomplete_details"]["reason"]),
        (&"incomplete".into(), &"max_output_tokens".into())
    );

    // A conversation that is too long: refused, or cut at its old end on request.
    let mut long = ask("ping");
    long["input"] = json!([{"role": "user", "content": "word ".repeat(9000)}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "ping"}]);
    let refused = post_to(&server, &long).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (400, &"context_length_exceeded".into())
    );
    long["truncation"] = "auto".into();
    let cut = post_to(&server, &long).await.json();
    assert_eq!(cut["output"][0]["content"][0]["text"], "pong", "{cut}");

    let image = json!({"model": "tiny-chat", "input": [{"role": "user", "content": [
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}]});
    let refused = post_to(&server, &image).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("does not support image input"),
        "{}",
        refused.text()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_gaps_echoes_and_cut_vectors() {
    let server = with_engine().await;
    let chat = |more: Value| {
        let mut body =
            json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "ping"}], "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let path = "/v1/chat/completions";
    let two = post(server.ollama, path, &chat(json!({"n": 2}))).await;
    let many = post(server.ollama, path, &chat(json!({"n": 100}))).await;
    let two = two.json();
    let choices = two["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2, "{two}");
    assert!(
        choices
            .iter()
            .all(|choice| choice["message"]["content"] == "pong" && choice["finish_reason"] == "stop")
    );
    assert_eq!(
        (&two["object"], &two["usage"]["completion_tokens"]),
        (&"chat.completion".into(), &4.into()),
        "{two}"
    );
    let streamed = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let streamed = testkit::sse_events(&post(server.ollama, path, &chat(streamed)).await.body);
    let (done, rest) = streamed.split_last().unwrap();
    let (counts, rest) = rest.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    assert_eq!(
        serde_json::from_str::<Value>(counts).unwrap()["usage"]["completion_tokens"],
        4
    );
    assert!(rest.iter().all(|event| !event.contains("\"choices\":[]")));
    assert_eq!(
        (many.status.as_u16(), &many.json()["error"]["param"]),
        (400, &"n".into()),
        "{}",
        many.text()
    );
    let likely = post(server.ollama, path, &chat(json!({"logprobs": true}))).await.json();
    assert!(
        likely["choices"][0]["logprobs"]["content"][0]["logprob"].is_number(),
        "{likely}"
    );
    let thought = chat(json!({"messages": [{"role": "user", "content": "Think: what is 3 times 4?"}]}));
    let thought = post(server.ollama, path, &thought).await.json();
    let message = &thought["choices"][0]["message"];
    assert_eq!(message["reasoning"], message["reasoning_content"], "{thought}");
    assert!(message["reasoning"].is_string());

    let complete = |more: Value| {
        let mut body = json!({"model": "tiny-chat", "prompt": "Once upon a time", "max_tokens": 6, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let path = "/v1/completions";
    let plain = post(server.ollama, path, &complete(json!({}))).await.json();
    let plain = plain["choices"][0]["text"].as_str().unwrap().to_owned();
    let echoed = post(server.ollama, path, &complete(json!({"echo": true}))).await.json();
    assert_eq!(echoed["choices"][0]["text"], format!("Once upon a time{plain}"));
    let streamed = post(server.ollama, path, &complete(json!({"echo": true, "stream": true}))).await;
    let text: String = testkit::sse_events(&streamed.body)
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, format!("Once upon a time{plain}"));
    let likely = post(server.ollama, path, &complete(json!({"logprobs": 1})))
        .await
        .json();
    let logprobs = &likely["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 6, "{likely}");
    assert!(logprobs["top_logprobs"][0].is_object() && logprobs["text_offset"][0] == 0);
    let tokens = post(server.ollama, path, &complete(json!({"prompt": [[40, 41], [42]]})))
        .await
        .json();
    assert_eq!(tokens["choices"].as_array().map(Vec::len), Some(2), "{tokens}");
    assert_eq!(
        (&tokens["object"], &tokens["usage"]["prompt_tokens"]),
        (&"text_completion".into(), &3.into())
    );
    let gap = post(server.ollama, path, &complete(json!({"suffix": " the end."}))).await;
    assert!(
        gap.status == 200 || gap.text().contains("does not support insert"),
        "{}",
        gap.text()
    );
    let best = post(server.ollama, path, &complete(json!({"best_of": 4}))).await;
    assert_eq!(
        (best.status.as_u16(), &best.json()["error"]["param"]),
        (400, &"best_of".into())
    );

    let embed = |more: Value| {
        let mut body = json!({"model": "tiny-embed", "input": "a cat"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let path = "/v1/embeddings";
    let cut = post(server.ollama, path, &embed(json!({"dimensions": 16})))
        .await
        .json();
    let vector = cut["data"][0]["embedding"].as_array().unwrap();
    let length: f64 = vector.iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!(vector.len() == 16 && (length - 1.0).abs() < 1e-4, "{cut}");
    let lists = post(server.ollama, path, &embed(json!({"input": [[40, 41], [42]]})))
        .await
        .json();
    assert_eq!(lists["data"].as_array().unwrap().len(), 2);
    for (more, words) in [
        (json!({"input": []}), "invalid input"),
        (json!({"input": null}), "invalid input"),
        (
            json!({"encoding_format": "hex"}),
            "Invalid value for 'encoding_format' = hex.",
        ),
        (json!({"dimensions": 4096}), "may be at most 128"),
    ] {
        let refused = post(server.ollama, path, &embed(more)).await;
        assert!(
            refused.status == 400 && refused.text().contains(words),
            "{}",
            refused.text()
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lm_studio_puts_reasoning_where_it_is_told() {
    use config::ReasoningField;
    for (field, members) in [
        (ReasoningField::Auto, ["reasoning_content"].as_slice()),
        (ReasoningField::ReasoningContent, &["reasoning_content"]),
        (ReasoningField::Reasoning, &["reasoning"]),
        (ReasoningField::Inline, &[]),
    ] {
        let mut setup = Setup {
            engine: Engine::Real,
            ..Setup::default()
        };
        setup.settings.lmstudio_port.reasoning_field = field;
        let server = Server::start(setup).await;
        // LM Studio's clients send -1 for "until the end".
        let body = |stream: bool| {
            json!({"model": "tiny-chat", "temperature": 0, "max_tokens": -1, "stream": stream,
                "messages": [{"role": "user", "content": "Think: what is 3 times 4?"}]})
        };
        let whole = post(server.lmstudio, "/v1/chat/completions", &body(false)).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        let message = whole.json()["choices"][0]["message"].clone();
        let streamed = post(server.lmstudio, "/v1/chat/completions", &body(true)).await;
        let deltas: Vec<Value> = testkit::sse_events(&streamed.body)
            .iter()
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .map(|event| event["choices"][0]["delta"].clone())
            .collect();
        for member in ["reasoning", "reasoning_content"] {
            let expected = members.contains(&member);
            assert_eq!(message.get(member).is_some(), expected, "{field:?}: {message}");
            let said: String = deltas.iter().filter_map(|delta| delta[member].as_str()).collect();
            assert_eq!(said.contains("3 times 4"), expected, "{field:?} {member}");
        }
        let text = message["content"].as_str().unwrap();
        assert_eq!(text.contains("<think>"), members.is_empty(), "{text}");
        server.stop().await;
    }
}
