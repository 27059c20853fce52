use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dialects::engine::{self, AnswerCollector, Limits, Wire};
use dialects::ollama::{
    self, ChatCall, EmbedCall, GenerateCall, GenerateMode, LoadReason, ModelHeader, Plan, ReplyHead, ReplyStream,
    Route, Shape, ShowCall,
};
use dialects::{Transcoder, ollama::continue_prompt};
use domain::{ErrorKind, LaunchOptions, ModelEntry, RunnerError};
use serde_json::{Value, json};

use crate::support::{START_MS, START_NS, cases, clock, compare, find, folder, pretty, replay, replay_all, views};

fn head(model: &str, top_logprobs: u32) -> ReplyHead {
    ReplyHead {
        model: model.to_owned(),
        clock: clock(),
        started_ns: START_NS - 50_000_000,
        load: Duration::from_millis(45),
        top_logprobs,
    }
}

/// What became of a request.
enum Outcome {
    Load(LaunchOptions),
    Unload,
    Upstream {
        path: &'static str,
        body: Vec<u8>,
        launch: LaunchOptions,
        wire: Wire,
        top: u32,
        raw: bool,
    },
}

struct Parsed {
    model: String,
    stream: bool,
    outcome: Result<Outcome, RunnerError>,
}

fn lookup(model: &str, route: Route) -> Result<Arc<ModelEntry>, RunnerError> {
    find(&ollama::lookup_name(model)?).ok_or_else(|| ollama::unknown_model(model, route))
}

/// What a handler does up to the engine.
fn run(shape: Shape, body: &[u8]) -> Result<Parsed, RunnerError> {
    let limits = Limits { context: Some(2048) };
    match shape {
        Shape::Chat => {
            let call = ChatCall::parse(body)?;
            let (model, stream) = (call.model.clone(), call.stream);
            let plan = lookup(&model, Route::Chat).and_then(|entry| call.plan(&entry));
            let outcome = plan.and_then(|plan| {
                Ok(match plan {
                    Plan::Load(launch) => Outcome::Load(launch),
                    Plan::Unload => Outcome::Unload,
                    Plan::Run(job) => Outcome::Upstream {
                        path: engine::CHAT,
                        body: engine::chat_body(&job.request, limits)?,
                        launch: job.launch,
                        wire: Wire::Chat,
                        top: job.top_logprobs,
                        raw: false,
                    },
                })
            });
            Ok(Parsed { model, stream, outcome })
        }
        Shape::Generate => {
            let call = GenerateCall::parse(body)?;
            let (model, stream) = (call.model.clone(), call.stream);
            let plan = lookup(&model, Route::Generate).and_then(|entry| call.plan(&entry));
            let outcome = plan.and_then(|plan| {
                let job = match plan {
                    Plan::Load(launch) => return Ok(Outcome::Load(launch)),
                    Plan::Unload => return Ok(Outcome::Unload),
                    Plan::Run(job) => job,
                };
                let (path, body) = match &job.mode {
                    GenerateMode::Chat(chat) => (engine::CHAT, engine::chat_body(chat, limits)?),
                    GenerateMode::Raw(raw) => (engine::COMPLETION, engine::completion_body(raw, limits)?),
                    GenerateMode::Infill(gap) => (engine::INFILL, engine::infill_body(gap, limits)?),
                    GenerateMode::Continue { chat, context } => {
                        assert_eq!(context, &[759, 270, 198]);
                        let rendered = "<|im_start|>user\nWhat is my name?<|im_end|>\n<|im_start|>assistant\n";
                        let prompt = continue_prompt(chat, "<|im_start|>user\nMy name is Alice.<|im_end|>\n", rendered);
                        (engine::COMPLETION, engine::completion_body(&prompt, limits)?)
                    }
                };
                let (launch, wire, top) = (job.launch, job.mode.wire(), job.top_logprobs);
                let raw = matches!(job.mode, GenerateMode::Raw(_));
                Ok(Outcome::Upstream {
                    path,
                    body,
                    launch,
                    wire,
                    top,
                    raw,
                })
            });
            Ok(Parsed { model, stream, outcome })
        }
    }
}

fn error_file(case: &Path, error: &RunnerError, route: Route) {
    let rendered = ollama::error(error, route);
    let text = format!("{}\n{}\n", rendered.status, String::from_utf8(rendered.body).unwrap());
    compare(&case.join("error.txt"), text.as_bytes());
}

/// The launch wishes that are not empty.
fn wishes(launch: &LaunchOptions) -> Value {
    let Value::Object(all) = serde_json::to_value(launch).unwrap() else {
        unreachable!()
    };
    all.into_iter()
        .filter(|(_, value)| !value.is_null() && value != &json!([]))
        .collect()
}

#[test]
fn generate_and_chat() {
    for case in cases("ollama") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let (shape, route) = if name.starts_with("chat") {
            (Shape::Chat, Route::Chat)
        } else {
            (Shape::Generate, Route::Generate)
        };
        let request = std::fs::read(case.join("request.json")).unwrap();
        let parsed = match run(shape, &request) {
            Ok(parsed) => parsed,
            Err(error) => {
                error_file(&case, &error, route);
                continue;
            }
        };
        match parsed.outcome {
            Err(error) => error_file(&case, &error, route),
            Ok(Outcome::Load(launch)) => {
                let reply = ollama::load_reply(shape, &head(&parsed.model, 0), LoadReason::Load);
                compare(
                    &case.join("launch.json"),
                    &pretty(wishes(&launch).to_string().as_bytes()),
                );
                compare(&case.join("response.json"), &pretty(&reply));
            }
            Ok(Outcome::Unload) => {
                let reply = ollama::load_reply(shape, &head(&parsed.model, 0), LoadReason::Unload);
                compare(&case.join("response.json"), &pretty(&reply));
            }
            Ok(Outcome::Upstream {
                path,
                body,
                launch,
                wire,
                top,
                raw,
            }) => {
                let body: Value = serde_json::from_slice(&body).unwrap();
                // The recordings are made with a model without eyes.
                let record = !name.contains("images");
                let upstream = json!({"path": path, "launch": wishes(&launch), "record": record, "body": body});
                compare(&case.join("upstream.json"), &pretty(upstream.to_string().as_bytes()));
                let Ok(stream) = std::fs::read(case.join("upstream.sse")) else {
                    continue;
                };
                streams(&case, shape, wire, &parsed.model, top, raw, &stream);
                if !parsed.stream {
                    single(&case, shape, wire, &parsed.model, top, &stream);
                }
            }
        }
    }
}

fn streams(case: &Path, shape: Shape, wire: Wire, model: &str, top: u32, raw: bool, stream: &[u8]) {
    let make = || -> Box<dyn Transcoder> {
        let mut transcoder = ReplyStream::new(shape, wire, &head(model, top));
        if shape == Shape::Generate && !raw {
            transcoder.set_context(vec![1, 2, 3]);
        }
        Box::new(transcoder)
    };
    let whole = replay_all(make, stream);
    compare(&case.join("response.ndjson"), &whole);
    check_lines(&whole, "done");

    // Cut anywhere: every whole line stays, and the last one says so (promise H3).
    let cut = stream.len() * 3 / 5;
    let broken = replay_all(make, &stream[..cut]);
    compare(&case.join("cut.ndjson"), &broken);
    for cut in (0..stream.len()).step_by(97) {
        let broken = replay(make, &stream[..cut], stream.len());
        let last = broken.split(|b| *b == b'\n').rfind(|line| !line.is_empty()).unwrap();
        let last: Value = serde_json::from_slice(last).unwrap();
        let finished = find_bytes(&stream[..cut], b"\"finish_reason\":\"")
            .is_some_and(|at| stream[at..cut].windows(2).any(|w| w == b"\n\n"));
        assert_eq!(last.get("error").is_some(), !finished, "cut at {cut}: {last}");
    }
    // Broken by us: the same form.
    let mut transcoder = make();
    let mut out = Vec::new();
    transcoder.push(&stream[..cut], &mut out);
    transcoder.fail(
        &RunnerError::new(ErrorKind::ShuttingDown, "The server is shutting down."),
        &mut out,
    );
    transcoder.finish(&mut out);
    check_lines(&out, "error");
}

fn find_bytes(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Every line is JSON, and only the last has the ending member.
fn check_lines(out: &[u8], ending: &str) {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (i, line) in lines.iter().enumerate() {
        let is_end = if ending == "done" {
            line["done"] == true
        } else {
            line.get("error").is_some()
        };
        assert_eq!(is_end, i + 1 == lines.len(), "{line}");
    }
}

fn single(case: &Path, shape: Shape, wire: Wire, model: &str, top: u32, stream: &[u8]) {
    let mut collector = AnswerCollector::new(wire);
    stream.chunks(13).for_each(|chunk| collector.push(chunk));
    let answer = collector.finish().unwrap();
    let context: &[i64] = if shape == Shape::Generate { &[1, 2, 3] } else { &[] };
    let reply = ollama::reply(shape, &head(model, top), &answer, Some(context)).unwrap();
    compare(&case.join("response.json"), &pretty(&reply));
    let mut cut = AnswerCollector::new(wire);
    cut.push(&stream[..stream.len() / 2]);
    assert_eq!(cut.finish().unwrap_err().kind, ErrorKind::EngineFailed);
}

#[test]
fn an_engine_error_in_mid_stream_is_a_line() {
    let stream = b"data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n\
        data: {\"error\":{\"code\":500,\"message\":\"Context size has been exceeded.\",\"type\":\"server_error\"}}\n\n";
    let make = || -> Box<dyn Transcoder> { Box::new(ReplyStream::new(Shape::Chat, Wire::Chat, &head("m", 0))) };
    let out = String::from_utf8(replay_all(make, stream)).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], r#"{"error":"Context size has been exceeded."}"#);

    // Before anything was said the handler can still answer with a status.
    let mut early = make();
    let mut out = Vec::new();
    early.push(&stream[stream.len() / 2 - 10..], &mut out);
    let first = find_bytes(stream, b"data: {\"error").unwrap();
    let mut early = make();
    out.clear();
    early.push(&stream[first..], &mut out);
    assert!(early.ended());
    assert_eq!(early.error().unwrap().kind, ErrorKind::Engine { status: 500 });
}

#[test]
fn broken_tool_arguments_are_an_error() {
    let stream = b"data: {\"choices\":[{\"finish_reason\":null,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": tru\"}}]}}]}\n\n\
        data: {\"choices\":[{\"finish_reason\":\"tool_calls\",\"delta\":{}}]}\n\ndata: [DONE]\n\n";
    let make = || -> Box<dyn Transcoder> { Box::new(ReplyStream::new(Shape::Chat, Wire::Chat, &head("m", 0))) };
    let out = String::from_utf8(replay_all(make, stream)).unwrap();
    assert_eq!(
        out,
        "{\"error\":\"the model called the tool \\\"f\\\" with arguments that are not a JSON object\"}\n"
    );
}

#[test]
fn render_only() {
    let reply = ollama::render_only_reply(Shape::Chat, &head("m", 0), "<|user|>\nhi", 1);
    assert_eq!(
        String::from_utf8(reply).unwrap(),
        "{\"model\":\"m\",\"created_at\":\"2026-11-20T12:00:00.000000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false,\
         \"_debug_info\":{\"rendered_template\":\"<|user|>\\nhi\",\"image_count\":1}}"
    );
}

#[test]
fn lists() {
    let folder = folder("ollama");
    compare(&folder.join("tags.json"), &pretty(&ollama::tags(&views())));
    compare(&folder.join("ps.json"), &pretty(&ollama::ps(&views(), START_MS)));
    assert_eq!(ollama::tags(&[]), br#"{"models":[]}"#);
    assert_eq!(ollama::ps(&[], 0), br#"{"models":[]}"#);
    assert_eq!(
        ollama::version("0.33.0", "0.1.0"),
        br#"{"version":"0.33.0","llamarunner_version":"0.1.0"}"#
    );
}

#[test]
fn show() {
    let metadata = json!({
        "general.architecture": "llama", "general.name": "Tiny", "general.basename": "tiny", "llama.context_length": 4096,
        "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.chat_template": "{{ messages }}"
    });
    let header = ModelHeader {
        metadata: metadata.as_object().unwrap().clone(),
        projector: None,
        template: Some("{{ messages }}".into()),
        license: Some("CC0-1.0".into()),
        tensors: vec![("token_embd.weight".into(), "F16".into(), vec![128, 768])],
    };
    let entry = find("tiny-chat").unwrap();
    let reply = |body: &str, copilot| {
        ShowCall::parse(body.as_bytes())
            .unwrap()
            .reply(&entry, &header, copilot)
    };
    let folder = folder("ollama");
    compare(
        &folder.join("show.json"),
        &pretty(&reply(r#"{"name":"tiny-chat"}"#, false)),
    );
    let verbose =
        r#"{"model":"Tiny","verbose":true,"system":"Be kind.","options":{"temperature":0.5,"stop":["a","b"]}}"#;
    compare(&folder.join("show-verbose.json"), &pretty(&reply(verbose, true)));
    let empty = ShowCall::parse(b"{}").unwrap();
    let error = ollama::error(&ollama::unknown_model(&empty.model, Route::Show), Route::Show);
    assert_eq!(
        (error.status, error.body.as_slice()),
        (400, &br#"{"error":"model is required"}"#[..])
    );
}

#[test]
fn embed() {
    let folder = folder("ollama");
    let call = EmbedCall::parse(br#"{"model":"embed","input":["The cat","dog"],"truncate":false}"#).unwrap();
    assert_eq!(
        engine::embeddings_body(&call.input, call.normalize()),
        br#"{"input":["The cat","dog"],"encoding_format":"float"}"#
    );
    let upstream = std::fs::read(folder.join("../engine/embeddings.json")).unwrap();
    let reply = call
        .reply(&head("embed", 0), engine::parse_embeddings(&upstream).unwrap())
        .unwrap();
    let value: Value = serde_json::from_slice(&reply).unwrap();
    for vector in value["embeddings"].as_array().unwrap() {
        let square: f64 = vector
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap().powi(2))
            .sum();
        assert!((square - 1.0).abs() < 1e-5);
    }
    compare(&folder.join("embed.json"), &[reply, b"\n".to_vec()].concat());

    let legacy = EmbedCall::parse_legacy(br#"{"model":"embed","prompt":"The cat"}"#).unwrap();
    assert_eq!(
        engine::embeddings_body(&legacy.input, legacy.normalize()),
        br#"{"input":["The cat"],"encoding_format":"float","embd_normalize":-1}"#
    );
}
