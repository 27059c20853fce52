use super::*;

fn call(name: &str) -> Message {
    let tool_calls = vec![ToolCall {
        id: Some("c".into()),
        name: name.into(),
        arguments: "{}".into(),
    }];
    Message {
        tool_calls,
        ..Message::text(Role::Assistant, "")
    }
}

#[test]
fn oldest_messages_go_first() {
    let mut request = ChatRequest {
        messages: vec![
            Message::text(Role::System, "s"),
            Message::text(Role::User, "1"),
            call("f"),
            Message::text(Role::Tool, "r1"),
            Message::text(Role::Tool, "r2"),
            Message::text(Role::System, "s2"),
            Message::text(Role::User, "last"),
        ],
        ..ChatRequest::default()
    };
    let texts = |request: &ChatRequest| -> Vec<String> {
        let text = |message: &Message| match message.parts.as_slice() {
            [Part::Text(text)] => text.clone(),
            _ => String::new(),
        };
        request.messages.iter().map(text).collect()
    };
    assert!(drop_oldest(&mut request));
    assert_eq!(texts(&request), ["s", "", "r1", "r2", "s2", "last"]);
    assert!(drop_oldest(&mut request));
    assert_eq!(texts(&request), ["s", "s2", "last"], "results go with their call");
    assert!(!drop_oldest(&mut request));
    assert!(!drop_oldest(&mut ChatRequest::default()));
}

/// What is known to hurt the engine, or to be refused by it, is bounded (promise H8).
#[test]
fn absurd_numbers_are_bounded() {
    let body = |context: Option<u32>, sampling: Sampling| -> Value {
        let request = CompletionRequest {
            prompt: "p".into(),
            sampling,
            ..CompletionRequest::default()
        };
        serde_json::from_slice(&completion_body(&request, Limits { context }).unwrap()).unwrap()
    };
    let fields = json!({"n_keep": -9, "n_discard": -1, "repeat_last_n": -1, "top_k": -5, "id_slot": 99});
    let absurd = || Sampling {
        max_tokens: Some(i64::MAX),
        seed: Some(-1),
        stop: vec![String::new()],
        fields: fields.as_object().cloned().unwrap_or_default(),
    };
    let sent = body(Some(100), absurd());
    assert_eq!(
        sent,
        json!({"prompt": "p", "n_predict": 1000, "n_keep": -1, "n_discard": 0, "repeat_last_n": 100, "top_k": 0,
            "cache_prompt": true, "stream": true})
    );
    let sent = body(None, absurd());
    assert_eq!(
        (&sent["n_predict"], sent.get("repeat_last_n")),
        (&json!(i32::MAX), None)
    );
    let until_the_end = body(
        Some(100),
        Sampling {
            max_tokens: Some(-1),
            ..Sampling::default()
        },
    );
    assert_eq!(until_the_end["n_predict"], 1000);
    let seed = |seed| {
        body(
            None,
            Sampling {
                seed: Some(seed),
                ..Sampling::default()
            },
        )["seed"]
            .clone()
    };
    assert_eq!((seed(7), seed(i64::from(u32::MAX))), (json!(7), json!(0)));
}

#[test]
fn killers_never_reach_the_engine() {
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({"items": deep});
    }
    let request = ChatRequest {
        format: Format::JsonSchema(deep.clone()),
        ..ChatRequest::default()
    };
    assert_eq!(
        chat_body(&request, Limits::default()).unwrap_err().param.as_deref(),
        Some("format")
    );
    let request = ChatRequest {
        tools: vec![deep],
        ..ChatRequest::default()
    };
    assert_eq!(
        chat_body(&request, Limits::default()).unwrap_err().param.as_deref(),
        Some("tools")
    );
    assert!(apply_template_body(&request).is_err());
}

#[test]
fn every_part_has_its_form() {
    let parts = vec![
        Part::Text("t".into()),
        Part::Image {
            mime: "image/png".into(),
            base64: "QQ==".into(),
        },
        Part::Audio {
            format: "wav".into(),
            base64: "Qg==".into(),
        },
    ];
    let message = Message {
        parts,
        reasoning: Some("r".into()),
        ..Message::text(Role::Assistant, "")
    };
    let request = ChatRequest {
        messages: vec![message],
        ..ChatRequest::default()
    };
    let sent: Value = serde_json::from_slice(&apply_template_body(&request).unwrap()).unwrap();
    assert_eq!(
        sent,
        json!({"messages": [{"role": "assistant", "reasoning_content": "r", "content": [
            {"type": "text", "text": "t"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
            {"type": "input_audio", "input_audio": {"data": "Qg==", "format": "wav"}},
        ]}]})
    );
}
