//! `/v1/responses`: request to engine body, recorded engine stream to events and to one object, what is kept.

use std::fmt::Write;

use dialects::Transcoder;
use dialects::engine::{self, Limits};
use dialects::openai::responses::{
    self as api, Defaults, Page, ReasoningForm, ResponseHead, ResponseStream, ResponsesCall,
};
use dialects::{openai, sse};
use domain::RunnerError;
use domain::chat::{Message, Role};
use serde_json::Value;

use crate::support::{cases, clock, compare, folder, pretty, replay, replay_all};

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// The engine's part of each case.
fn recording(case: &str) -> &'static str {
    match case {
        "thinking" | "thinking-summary" => "think",
        "tools" | "tools-named" | "tools-allowed" | "tools-namespace" => "tools2",
        "schema" | "json" => "schema",
        "length" => "length",
        "logprobs" => "logprobs",
        _ => "chat",
    }
}

fn defaults(case: &str) -> Defaults {
    // Both ports are shown: Ollama's in the cases with reasoning summaries.
    if case == "thinking-off" {
        Defaults {
            temperature: Some(1.0),
            reasoning: ReasoningForm::Summary,
        }
    } else {
        Defaults::default()
    }
}

fn error_file(case: &std::path::Path, error: &RunnerError) {
    let rendered = openai::error(error);
    let text = format!("{}\n{}\n", rendered.status, String::from_utf8(rendered.body).unwrap());
    compare(&case.join("error.txt"), text.as_bytes());
}

/// Every event: its name equals its type, numbers rise by one, none is `[DONE]`.
fn events(stream: &[u8]) -> Vec<Value> {
    let mut all = Vec::new();
    sse::SseSplitter::new().push(stream, |event| {
        let value: Value = serde_json::from_slice(event.data).unwrap();
        assert_eq!(value["type"].as_str().unwrap().as_bytes(), event.event);
        assert_eq!(value["sequence_number"], all.len());
        all.push(value);
    });
    all
}

#[test]
fn requests_and_streams() {
    for case in cases("responses") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let request = std::fs::read(case.join("request.json")).unwrap();
        let call = match ResponsesCall::parse(&request, defaults(&name)) {
            Ok(call) => call,
            Err(error) => {
                assert!(name.starts_with("error-"), "{name}: {error}");
                error_file(&case, &error);
                continue;
            }
        };
        assert!(!name.starts_with("error-"), "{name} is accepted");
        let earlier = if call.previous.is_some() {
            vec![
                Message::text(Role::User, "Hi"),
                Message::text(Role::Assistant, "Hello!"),
            ]
        } else {
            Vec::new()
        };
        let chat = call.chat(earlier);
        let limits = Limits { context: Some(2048) };
        compare(
            &case.join("upstream.json"),
            &pretty(&engine::chat_body(&chat, limits).unwrap()),
        );

        let mut upstream = std::fs::read(folder("engine").join(format!("{}.sse", recording(&name)))).unwrap();
        if name == "tools-namespace" {
            // What the model was offered.
            upstream = String::from_utf8(upstream)
                .unwrap()
                .replace("get_weather", "get__weather")
                .into_bytes();
        }
        let make = || -> Box<dyn Transcoder> {
            let head = ResponseHead::new(&call, HEX, "tiny-chat", clock());
            Box::new(ResponseStream::new(head, chat.logprobs.is_some()))
        };
        if name == "broken" {
            let cut = replay(make, &upstream[..upstream.len() / 2], 9);
            compare(&case.join("cut.sse"), &cut);
            let all = events(&cut);
            let last = all.last().unwrap();
            assert_eq!(
                (&last["type"], &last["response"]["status"]),
                (&"response.failed".into(), &"failed".into())
            );
            let failed = [
                &upstream[..upstream.len() / 2],
                b"\n\nerror: {\"code\":500,\"message\":\"boom\"}\n\n",
            ]
            .concat();
            events(&replay_all(make, &failed));
            continue;
        }
        let whole = replay_all(make, &upstream);
        compare(&case.join("response.sse"), &whole);
        let all = events(&whole);
        let last = all.last().unwrap();

        // The same as one object, and what is kept of it.
        let head = ResponseHead::new(&call, HEX, "tiny-chat", clock());
        let mut coder = ResponseStream::new(head, chat.logprobs.is_some());
        coder.push(&upstream, &mut Vec::new());
        let stored = coder.into_stored().unwrap();
        assert_eq!(stored.response, last["response"], "{name}");
        let page = Page::parse(None, Some("asc"), None).unwrap();
        compare(
            &case.join("input_items.json"),
            &pretty(&stored.input_items(&page).unwrap()),
        );
        let said = stored.output_messages().unwrap();
        assert!(said.iter().all(|message| message.role == Role::Assistant));
        let kept: api::StoredResponse = serde_json::from_slice(&serde_json::to_vec(&stored).unwrap()).unwrap();
        assert_eq!(kept, stored);
    }
}

#[test]
fn what_was_said_first_is_never_held_back() {
    let call = ResponsesCall::parse(br#"{"input":"x"}"#, Defaults::default()).unwrap();
    for recording in ["chat", "think", "tools2"] {
        let upstream = std::fs::read(folder("engine").join(format!("{recording}.sse"))).unwrap();
        let mut coder = ResponseStream::new(ResponseHead::new(&call, HEX, "m", clock()), false);
        // Each event of the engine's that says something gives an event of ours at once.
        for event in upstream
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.len() > 1)
        {
            let mut out = Vec::new();
            coder.push(event, &mut out);
            coder.push(b"\n", &mut out);
            let says = [&b"\"content\":\""[..], b"\"reasoning_content\":\"", b"\"arguments\":\""]
                .iter()
                .any(|member| memchr::memmem::find(event, member).is_some());
            assert!(!says || !out.is_empty(), "{}", String::from_utf8_lossy(event));
        }
    }
}

#[test]
fn kept_answers() {
    let call = ResponsesCall::parse(
        br#"{"input":[{"role":"user","content":"a"},{"id":"mine","role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
        Defaults::default(),
    )
    .unwrap();
    let mut coder = ResponseStream::new(ResponseHead::new(&call, HEX, "m", clock()), false);
    coder.push(
        &std::fs::read(folder("engine").join("chat.sse")).unwrap(),
        &mut Vec::new(),
    );
    let stored = coder.into_stored().unwrap();
    let page = |limit, order, after: Option<&str>| {
        let page = Page::parse(limit, order, after.map(str::to_owned)).unwrap();
        serde_json::from_slice::<Value>(&stored.input_items(&page).unwrap()).unwrap()
    };
    let newest = page(Some("1"), None, None);
    assert_eq!(newest["data"][0]["content"][0]["text"], "c");
    assert_eq!(
        (&newest["has_more"], &newest["first_id"]),
        (&true.into(), &newest["last_id"])
    );
    let rest = page(None, Some("asc"), Some("mine"));
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &false.into())
    );
    for bad in [
        Page::parse(Some("0"), None, None),
        Page::parse(Some("101"), None, None),
        Page::parse(None, Some("up"), None),
    ] {
        assert!(bad.is_err());
    }
    let unknown = Page::parse(None, None, Some("nope".into())).unwrap();
    assert!(stored.input_items(&unknown).is_err());
    assert_eq!(
        api::deleted("resp_1"),
        br#"{"id":"resp_1","object":"response","deleted":true}"#
    );
    let mut text = String::new();
    for error in [api::not_found("resp_1"), api::previous_not_found("resp_1")] {
        let rendered = openai::error(&error);
        let body = String::from_utf8(rendered.body).unwrap();
        writeln!(text, "{} {body}", rendered.status).unwrap();
    }
    compare(&folder("responses").join("unknown.txt"), text.as_bytes());
}
