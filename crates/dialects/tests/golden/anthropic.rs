use std::path::Path;

use dialects::anthropic::{self, Call, MessageForm, MessageStream, ReplyHead};
use dialects::engine::{self, AnswerCollector, Limits, Wire};
use dialects::openai::{Ids, ModelListOptions};
use dialects::{StreamForm, Transcoder};
use domain::RunnerError;
use serde_json::{Value, json};

use crate::support::{cases, compare, find, folder, pretty, replay, replay_all, views};

const REQUEST_ID: &str = "req_1";

struct Parsed {
    head: ReplyHead,
    stream: bool,
    path: &'static str,
    body: Vec<u8>,
}

/// What a handler does up to the engine.
fn run(count: bool, body: &[u8]) -> Result<Parsed, RunnerError> {
    let call = if count {
        Call::parse_count(body)
    } else {
        Call::parse(body)
    }?;
    let (model, stream, caches, hides_thinking) = (call.model.clone(), call.stream, call.caches, call.hides_thinking);
    let entry = find(&model).ok_or_else(|| RunnerError::model_not_found(&model))?;
    let job = call.plan(&entry)?;
    let (path, body) = if count {
        (engine::COUNT_CHAT, engine::apply_template_body(&job.request)?)
    } else {
        let limits = Limits { context: Some(2048) };
        (engine::CHAT, engine::chat_body(&job.request, limits)?)
    };
    let head = ReplyHead {
        id: "msg_0123456789abcdef01234567".into(),
        model,
        stops: job.request.sampling.stop.clone(),
        caches,
        hides_thinking,
        estimated_tokens: job.estimated_tokens,
        request_id: Some(REQUEST_ID.into()),
    };
    Ok(Parsed {
        head,
        stream,
        path,
        body,
    })
}

#[test]
fn messages_and_counts() {
    for case in cases("anthropic") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let request = std::fs::read(case.join("request.json")).unwrap();
        let parsed = match run(name.starts_with("count"), &request) {
            Ok(parsed) => parsed,
            Err(error) => {
                let rendered = anthropic::error(&error, Some(REQUEST_ID));
                let text = format!("{}\n{}\n", rendered.status, String::from_utf8(rendered.body).unwrap());
                compare(&case.join("error.txt"), text.as_bytes());
                continue;
            }
        };
        let body: Value = serde_json::from_slice(&parsed.body).unwrap();
        // The recordings are made with a model without eyes.
        let record = !name.contains("images");
        let upstream = json!({"path": parsed.path, "record": record, "body": body});
        compare(&case.join("upstream.json"), &pretty(upstream.to_string().as_bytes()));
        if let Ok(counted) = std::fs::read(case.join("upstream.reply.json")) {
            let tokens = engine::parse_input_tokens(&counted).unwrap();
            compare(&case.join("response.json"), &pretty(&anthropic::count_reply(tokens)));
        }
        let Ok(stream) = std::fs::read(case.join("upstream.sse")) else {
            continue;
        };
        if parsed.stream {
            streams(&case, &parsed.head, &stream);
        } else {
            let mut collector = AnswerCollector::new(Wire::Chat);
            stream.chunks(1).for_each(|byte| collector.push(byte));
            let reply = anthropic::reply(&parsed.head, &collector.finish().unwrap());
            compare(&case.join("response.json"), &pretty(&reply));
        }
    }
}

fn streams(case: &Path, head: &ReplyHead, stream: &[u8]) {
    let make = || -> Box<dyn Transcoder> { Box::new(MessageStream::new(head.clone())) };
    let whole = replay_all(make, stream);
    compare(&case.join("response.sse"), &whole);
    check(&whole, "message_stop");

    // Cut anywhere: never as if complete (promise H3).
    let cut = stream.len() * 3 / 5;
    compare(&case.join("cut.sse"), &replay_all(make, &stream[..cut]));
    let finished = memchr::memmem::find(stream, b"\"finish_reason\":\"").unwrap();
    for cut in (0..finished).step_by(97) {
        check(&replay(make, &stream[..cut], stream.len()), "error");
    }

    // A piece of text goes out with the engine's event that holds it.
    let mut coder = make();
    let mut out = Vec::new();
    for event in stream.split_inclusive(|byte| *byte == b'\n') {
        out.clear();
        coder.push(event, &mut out);
        let text = String::from_utf8_lossy(event);
        let empty = text.contains("\"arguments\":\"\"");
        if empty || !text.contains("\"arguments\":\"") && !text.contains("\"delta\":{\"content\":\"") {
            continue;
        }
        coder.push(b"\n", &mut out);
        assert!(
            String::from_utf8_lossy(&out).contains("content_block_"),
            "held back: {text}"
        );
    }
}

/// What every reader of these streams relies on.
fn check(stream: &[u8], last: &str) {
    let text = std::str::from_utf8(stream).unwrap();
    assert!(text.ends_with("\n\n"), "{text}");
    let mut open: Option<u64> = None;
    let mut next = 0;
    let mut seen = Vec::new();
    for frame in text.trim_end().split("\n\n") {
        let (event, data) = frame.split_once('\n').unwrap();
        let (event, data) = (
            event.strip_prefix("event: ").unwrap(),
            data.strip_prefix("data: ").unwrap(),
        );
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], event);
        match event {
            "content_block_start" => {
                assert_eq!((open, data["index"].as_u64()), (None, Some(next)));
                open = Some(next);
                next += 1;
            }
            "content_block_delta" => assert_eq!(data["index"].as_u64(), open),
            "content_block_stop" => assert_eq!(data["index"].as_u64(), open.take()),
            "message_delta" => assert!(data["delta"]["stop_reason"].is_string() && open.is_none()),
            _ => {}
        }
        seen.push(event);
    }
    assert_eq!(seen.last(), Some(&last), "{text}");
    if last == "message_stop" {
        assert_eq!(seen[..2], ["message_start", "ping"]);
    }
}

#[test]
fn an_older_engine_tells_the_prompt_at_the_end() {
    let head = ReplyHead {
        id: "msg_1".into(),
        estimated_tokens: 9,
        ..ReplyHead::default()
    };
    let stream = std::fs::read(folder("engine").join("tools2.sse")).unwrap();
    let make = || -> Box<dyn Transcoder> { Box::new(MessageStream::new(head.clone())) };
    let whole = replay_all(make, &stream);
    check(&whole, "message_stop");
    let text = String::from_utf8(whole).unwrap();
    assert!(text.contains("\"input_tokens\":9,"), "{text}");
    assert_eq!(text.matches("\"type\":\"tool_use\"").count(), 2);
}

#[test]
fn an_error_before_the_first_event_is_left_to_the_handler() {
    let head = ReplyHead {
        request_id: Some(REQUEST_ID.into()),
        ..ReplyHead::default()
    };
    let mut coder = MessageStream::new(head);
    let mut out = Vec::new();
    coder.push(b"data: {\"error\":{\"code\":500,\"message\":\"broke\"}}\n\n", &mut out);
    assert!(out.is_empty() && coder.ended());
    assert_eq!(coder.error().unwrap().message, "broke");
    coder.finish(&mut out);
    coder.finish(&mut out);
    let expected = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"broke\"},\"request_id\":\"req_1\"}\n\n";
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    out.clear();
    let form = MessageForm {
        request_id: Some(REQUEST_ID.into()),
    };
    form.fail(coder.error().unwrap(), &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_prompt_too_long_is_said_in_the_words_clients_know() {
    let error = RunnerError::new(
        domain::ErrorKind::ContextExceeded {
            prompt: 5000,
            context: 4096,
        },
        "Words.",
    );
    let body = String::from_utf8(anthropic::error(&error, None).body).unwrap();
    assert!(
        body.contains("prompt is too long: 5000 tokens > 4096 maximum"),
        "{body}"
    );
}

#[test]
fn models() {
    let options = ModelListOptions {
        ids: Ids::Ollama,
        ..ModelListOptions::default()
    };
    compare(
        &folder("anthropic").join("models.json"),
        &pretty(&anthropic::models_list(&views()[..2], options)),
    );
    let none: Value = serde_json::from_slice(&anthropic::models_list(&[], options)).unwrap();
    assert_eq!(none["first_id"], Value::Null);
    let one: Value = serde_json::from_slice(&anthropic::model(&views()[0], "alias", options)).unwrap();
    assert_eq!((&one["id"], &one["type"]), (&"alias".into(), &"model".into()));
}
