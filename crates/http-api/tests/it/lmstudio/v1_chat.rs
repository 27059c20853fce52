//! Chats of REST v1 (LM Studio contract 7.5).

use serde_json::{Value, json};
use store::ResponseKind;

use super::{events, with_stub};
use crate::harness::{open, post, until, with_engine};

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_kept_and_branches() {
    let server = with_engine().await;
    let at = server.lmstudio;
    let ask = |input: &'static str, previous: Option<String>, store: bool| async move {
        let body = json!({"model": "tiny-chat", "input": input, "temperature": 0, "previous_response_id": previous,
            "store": store});
        let reply = post(at, "/api/v1/chat", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    };
    let id = |result: &Value| result["response_id"].as_str().map(str::to_owned);
    let first = ask("ping", None, true).await;
    assert_eq!(
        first["output"],
        json!([{"type": "message", "content": "pong"}]),
        "{first}"
    );
    assert_eq!(first["model_instance_id"], "tiny-chat");
    let stats = &first["stats"];
    assert!(stats["model_load_time_seconds"].as_f64().unwrap() > 0.0, "{stats}");
    assert!(stats["input_tokens"].as_u64().unwrap() > 0 && stats["total_output_tokens"].as_u64().unwrap() > 0);
    let first_id = id(&first).unwrap();
    assert!(first_id.len() == 53 && first_id.starts_with("resp_"), "{first_id}");
    // The second turn's prompt holds the first; a branch from the first does not hold the second.
    let second = ask("ping", Some(first_id.clone()), true).await;
    assert!(second["stats"].get("model_load_time_seconds").is_none());
    let third = ask("ping", id(&second), true).await;
    let branch = ask("ping", Some(first_id.clone()), true).await;
    let tokens = |result: &Value| result["stats"]["input_tokens"].as_u64().unwrap();
    assert!(tokens(&first) < tokens(&second) && tokens(&second) < tokens(&third));
    assert_eq!(tokens(&second), tokens(&branch));
    let forgotten = ask("ping", Some(first_id.clone()), false).await;
    assert!(id(&forgotten).is_none(), "{forgotten}");
    // An unknown answer, and one whose conversation lost its beginning: half a conversation is not continued as a whole.
    let gone = server.store.delete_response(ResponseKind::LmStudio, &first_id).await;
    assert!(gone.unwrap());
    for previous in ["resp_0", id(&third).unwrap().as_str()] {
        let refused = post(
            at,
            "/api/v1/chat",
            &json!({"model": "tiny-chat", "input": "a", "previous_response_id": previous}),
        )
        .await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["code"]),
            (400, &json!("previous_response_not_found")),
            "{}",
            refused.text()
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_start_to_end() {
    let server = with_engine().await;
    let body =
        json!({"model": "tiny-chat", "input": [{"type": "text", "content": "ping"}], "temperature": 0, "stream": true});
    let first = post(server.lmstudio, "/api/v1/chat", &body).await;
    assert!(first.header("content-type").starts_with("text/event-stream"));
    let told = events(&first);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["chat.start", "model_load.start"], "{names:?}");
    let place = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .unwrap_or_else(|| panic!("{name} in {names:?}"))
    };
    let order = [
        "model_load.end",
        "prompt_processing.start",
        "prompt_processing.end",
        "message.start",
        "message.delta",
        "message.end",
        "chat.end",
    ];
    assert!(
        order.windows(2).all(|pair| place(pair[0]) < place(pair[1])),
        "{names:?}"
    );
    assert_eq!(place("chat.end"), names.len() - 1);
    let text: String = told
        .iter()
        .filter(|(name, _)| name == "message.delta")
        .map(|(_, data)| data["content"].as_str().unwrap())
        .collect();
    let result = &told.last().unwrap().1["result"];
    assert_eq!(result["output"], json!([{"type": "message", "content": text}]));
    assert!(result["stats"]["model_load_time_seconds"].as_f64().unwrap() > 0.0);
    let mut next = body.clone();
    next["previous_response_id"] = result["response_id"].clone();
    let second = events(&post(server.lmstudio, "/api/v1/chat", &next).await);
    assert!(
        second.iter().all(|(name, _)| !name.starts_with("model_load")),
        "{second:?}"
    );
    let names: Vec<&str> = second.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["chat.start", "prompt_processing.start"], "{names:?}");
    // Too long, and the model is loaded: a status, no stream.
    let long = "ping ".repeat(6_000);
    let refused = post(
        server.lmstudio,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": long, "stream": true}),
    )
    .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (400, &json!("context_length_exceeded")),
        "{}",
        refused.text()
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_load_and_failures_are_events() {
    let server = with_stub(&[("STUB_LOAD_MS", "1500"), ("STUB_LOAD_STEPS", "6"), ("STUB_TOKENS", "5")]).await;
    let body = json!({"model": "tiny-chat", "input": "a", "stream": true});
    let told = events(&post(server.lmstudio, "/api/v1/chat", &body).await);
    let progress: Vec<f64> = told
        .iter()
        .filter(|(name, _)| name == "model_load.progress")
        .map(|(_, data)| data["progress"].as_f64().unwrap())
        .collect();
    assert!(!progress.is_empty(), "{told:?}");
    assert!(progress.windows(2).all(|pair| pair[0] < pair[1]), "{progress:?}");
    assert!(
        told.iter()
            .all(|(_, data)| data.get("model_instance_id").is_none_or(|id| id == "tiny-chat"))
    );
    server.stop().await;

    let broken = with_stub(&[
        ("STUB_DIE_LOADING", "exit:1"),
        ("STUB_DIE_MESSAGE", "gguf_init_from_file: invalid magic"),
    ])
    .await;
    let told = events(&post(broken.lmstudio, "/api/v1/chat", &body).await);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["chat.start", "model_load.start", "error", "chat.end"],
        "{told:?}"
    );
    assert_eq!(told[2].1["error"]["code"], "model_load_failed");
    assert_eq!(told[3].1["result"]["output"], json!([]));
    broken.stop().await;

    let cut = with_stub(&[("STUB_CUT_AFTER", "3")]).await;
    let told = events(&post(cut.lmstudio, "/api/v1/chat", &body).await);
    let names: Vec<&str> = told.iter().rev().take(3).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["chat.end", "error", "message.end"], "{told:?}");
    let whole = post(
        cut.lmstudio,
        "/api/v1/chat",
        &json!({"model": "tiny-chat", "input": "a"}),
    )
    .await;
    assert_eq!(
        (whole.status.as_u16(), &whole.json()["error"]["type"]),
        (500, &json!("internal_error"))
    );
    cut.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_load_and_the_answer() {
    let server = with_stub(&[("STUB_LOAD_MS", "60000")]).await;
    let body = json!({"model": "tiny-chat", "input": "a", "stream": true});
    let answer = open(server.lmstudio, "POST", "/api/v1/chat", &[], body.to_string()).await;
    until("the load", || !server.router.instances().is_empty()).await;
    drop(answer);
    until("the end of the load", || server.router.instances().is_empty()).await;
    server.stop().await;
}
