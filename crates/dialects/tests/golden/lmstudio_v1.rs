//! LM Studio's native REST API: lists, loads, downloads, chats and their events.

use std::time::Duration;

use dialects::StreamForm;
use dialects::lmstudio_rest::v1::{
    self, ChatCall, ChatForm, ChatResult, ChatStream, DownloadCall, LoadCall, LoadReply, OutputItem, UnloadCall,
};
use domain::chat::{Message, Role};
use domain::{
    EngineMode, ErrorKind, InstanceView, JobFile, JobId, JobKind, JobState, JobView, LaunchOptions, ModelEntry,
    ModelKey, RunnerError,
};
use serde_json::{Value, json};

use crate::support::{START_MS, compare, find, folder, pretty, views};

fn golden(name: &str, got: &[u8]) {
    compare(&folder("lmstudio").join("v1").join(name), got);
}

#[test]
fn models() {
    let mut models = views();
    // A further instance shows under its model, and nowhere else.
    let mut further = models[0].clone();
    let entry = ModelEntry {
        key: ModelKey::from("tiny-chat:2"),
        instance_of: Some(ModelKey::from("tiny-chat")),
        ..ModelEntry::clone(&further.entry)
    };
    further.entry = entry.shared();
    models.push(further);
    golden("models.json", &pretty(&v1::models(&models)));
    let mixture = ModelEntry {
        facts: domain::ModelFacts {
            architecture: "gpt-oss".into(),
            expert_count: Some(32),
            quantization: "MXFP4".into(),
            parameters: 20_914_757_184,
            ..models[0].entry.facts.clone()
        },
        ..ModelEntry::clone(&models[0].entry)
    };
    let mut model = models[0].clone();
    model.entry = mixture.shared();
    golden("models-gpt-oss.json", &pretty(&v1::models(&[model])));
}

fn loaded(options: LaunchOptions) -> InstanceView {
    let mut instance = views().swap_remove(0).instance.expect("it is loaded");
    instance.launch.context = 2048;
    instance.launch.options = options;
    instance
}

#[test]
fn loads() {
    let chat = find("tiny-chat").unwrap();
    let embed = find("embed").unwrap();
    let everything =
        br#"{"model":"tiny-chat","context_length":1024,"eval_batch_size":256,"flash_attention":true,"num_experts":4,
        "offload_kv_cache_to_gpu":false,"echo_load_config":true,"ttl":60,"parallel":3,"identifier":"mine"}"#;
    let call = LoadCall::parse(everything).unwrap();
    assert_eq!(
        (call.ttl, call.identifier.as_deref()),
        (Some(Duration::from_mins(1)), Some("mine"))
    );
    let launch = call.launch_for(&chat);
    let expected = LaunchOptions {
        mode: Some(EngineMode::Completion),
        context: Some(1024),
        batch: Some(256),
        flash_attention: Some("on".into()),
        kv_offload: Some(false),
        parallel: Some(3),
        // This model has no experts to choose.
        experts: None,
        ..LaunchOptions::default()
    };
    assert_eq!(launch, expected);
    let instance = loaded(launch);
    for (name, entry, took, echo) in [
        ("load.json", &chat, Duration::from_millis(9099), false),
        ("load-echo.json", &chat, Duration::ZERO, true),
        ("load-embedding.json", &embed, Duration::from_secs(1), true),
    ] {
        let reply = LoadReply {
            entry,
            instance: &instance,
            took,
            echo,
        };
        golden(name, &pretty(&reply.render()));
    }
    assert_eq!(UnloadCall::parse(br#"{"instance_id":"a"}"#).unwrap().instance_id, "a");
    assert_eq!(v1::unload_reply("a"), br#"{"instance_id":"a"}"#);
}

#[test]
fn same_settings() {
    let chat = find("tiny-chat").unwrap();
    let asked = |body: Value| LoadCall::parse(body.to_string().as_bytes()).unwrap();
    let have = loaded(LaunchOptions {
        batch: Some(256),
        ..LaunchOptions::default()
    });
    for (body, same) in [
        (json!({"model": "m"}), true),
        (
            json!({"model": "m", "context_length": 2048, "eval_batch_size": 256, "parallel": 2}),
            true,
        ),
        // Smaller would do for a request, but it is not what was asked for.
        (json!({"model": "m", "context_length": 1024}), false),
        (json!({"model": "m", "context_length": 4096}), false),
        (json!({"model": "m", "eval_batch_size": 512}), false),
        (json!({"model": "m", "parallel": 1}), false),
        (json!({"model": "m", "flash_attention": true}), false),
    ] {
        assert_eq!(asked(body.clone()).same_settings(&chat, &have), same, "{body}");
    }
    // The engine gave less than was asked for: asking again would give the same.
    let less = loaded(LaunchOptions {
        context: Some(4096),
        ..LaunchOptions::default()
    });
    assert!(asked(json!({"model": "m", "context_length": 4096})).same_settings(&chat, &less));
}

fn job(state: JobState) -> JobView {
    JobView {
        id: JobId("job_493c7c9ded".into()),
        kind: JobKind::Hub,
        name: "acme/tiny-GGUF".into(),
        quantization: Some("Q4_K_M".into()),
        state,
        files: vec![JobFile {
            name: "tiny-Q4_K_M.gguf".into(),
            sha256: None,
            size: Some(1_000_000),
            done: 250_000,
        }],
        bytes_done: 250_000,
        bytes_total: Some(1_000_000),
        bytes_per_second: 100_000,
        error: None,
        verified: true,
        model: None,
        started_ms: START_MS,
        ended_ms: None,
    }
}

#[test]
fn downloads() {
    let now = START_MS + 2_500;
    let mut done = job(JobState::Completed);
    done.bytes_done = 1_000_000;
    done.ended_ms = Some(START_MS + 10_000);
    let mut failed = job(JobState::Failed);
    failed.error = Some("The origin has no such file.".into());
    golden(
        "download.json",
        &pretty(&v1::download_started(&job(JobState::Downloading), false)),
    );
    golden("download-already.json", &pretty(&v1::download_started(&done, true)));
    golden(
        "download-status.json",
        &pretty(&v1::download_status(&job(JobState::Downloading), now)),
    );
    golden("download-completed.json", &pretty(&v1::download_status(&done, now)));
    let mut paused = job(JobState::Paused);
    paused.started_ms += 1;
    golden("downloads.json", &pretty(&v1::downloads(&[failed, paused], now)));
    let call = DownloadCall::parse(br#"{"model":"acme/tiny-GGUF"}"#).unwrap();
    assert_eq!((call.repo.as_str(), call.file_or_quant), ("acme/tiny-GGUF", None));
}

#[test]
fn chats() {
    let chat = find("tiny-chat").unwrap();
    let call = ChatCall::parse(
        br#"{"model":"tiny-chat","input":[{"type":"text","content":"a"},{"type":"message","content":"b"},
            {"type":"image","data_url":"data:image/png;base64,AAAA"}],"system_prompt":"be brief","temperature":0.5,"top_k":3,
            "max_output_tokens":7,"reasoning":"off","store":false,"integrations":[],"context_length":512}"#,
    )
    .unwrap();
    assert!(!call.stream && !call.store);
    assert_eq!(
        (call.launch(false).context, call.launch(true).context),
        (Some(512), None)
    );
    let before = vec![
        Message::text(Role::System, "be long"),
        Message::text(Role::User, "first"),
        Message::text(Role::Assistant, "answer"),
    ];
    let request = call.request(&chat, before).unwrap();
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);
    assert_eq!(request.messages[0], Message::text(Role::System, "be brief"));
    assert_eq!(request.messages[3].parts.len(), 3);
    assert_eq!(
        (request.thinking.enabled, request.sampling.max_tokens),
        (Some(false), Some(7))
    );
    let output = [OutputItem::Reasoning("hm".into()), OutputItem::Message("yes".into())];
    let turn = call.stored_turn(&output);
    assert_eq!(turn.len(), 3);
    assert_eq!(turn[2].reasoning.as_deref(), Some("hm"));
    let kept: Vec<Message> = serde_json::from_str(&serde_json::to_string(&turn).unwrap()).unwrap();
    assert_eq!(kept, turn);
    // Without a system prompt of its own, a turn goes on under the one before.
    let plain = ChatCall::parse(br#"{"model":"m","input":"go on"}"#).unwrap();
    assert!(plain.store);
    let request = plain.request(&chat, turn).unwrap();
    assert_eq!(request.messages[0], Message::text(Role::System, "be brief"));
    let wrong = ChatCall::parse(br#"{"model":"m","input":"a","reasoning":"low"}"#).unwrap();
    assert!(
        wrong
            .request(&chat, Vec::new())
            .unwrap_err()
            .message
            .contains("off, on")
    );
    let plain_model = find("plain").unwrap();
    assert!(wrong.request(&plain_model, Vec::new()).is_err());
}

#[test]
fn refused_bodies() {
    let mut out = Vec::new();
    let mut refuse = |error: RunnerError| {
        let rendered = v1::error(&error);
        out.extend_from_slice(format!("{} ", rendered.status).as_bytes());
        out.extend_from_slice(&rendered.body);
        out.push(b'\n');
    };
    for body in [
        "",
        "[]",
        r#"{"input":"a"}"#,
        r#"{"model":"m"}"#,
        r#"{"model":"m","input":7}"#,
        r#"{"model":"m","input":[]}"#,
        r#"{"model":"m","input":["a"]}"#,
        r#"{"model":"m","input":[{"type":"text"}]}"#,
        r#"{"model":"m","input":[{"type":"text","content":"a","x":1}]}"#,
        r#"{"model":"m","input":[{"type":"video"}]}"#,
        r#"{"model":"m","input":[{"type":"image","data_url":"https://example.com/a.png"}]}"#,
        r#"{"model":"m","input":"a","stop":"x"}"#,
        r#"{"model":"m","input":"a","temperature":1.5}"#,
        r#"{"model":"m","input":"a","top_k":1.5}"#,
        r#"{"model":"m","input":"a","max_output_tokens":0}"#,
        r#"{"model":"m","input":"a","reasoning":"max"}"#,
        r#"{"model":"m","input":"a","previous_response_id":"chatcmpl-1"}"#,
        r#"{"model":"m","input":"a","stream":"yes"}"#,
        r#"{"model":"m","input":"a","integrations":["mcp/playwright"]}"#,
    ] {
        refuse(ChatCall::parse(body.as_bytes()).unwrap_err());
    }
    for body in [
        r#"{"context_length":1}"#,
        r#"{"model":"m","gpu":1,"cpu":2}"#,
        r#"{"model":"m","ttl":0}"#,
    ] {
        refuse(LoadCall::parse(body.as_bytes()).unwrap_err());
    }
    refuse(UnloadCall::parse(b"{}").unwrap_err());
    refuse(RunnerError::model_not_found("x"));
    refuse(RunnerError::new(ErrorKind::NotFound, "no job").code("job_not_found"));
    refuse(RunnerError::new(ErrorKind::NotLoaded, "No models loaded."));
    refuse(RunnerError::new(ErrorKind::Unauthenticated, "key"));
    refuse(RunnerError::new(ErrorKind::EngineFailed, "It died.\nlog line").code("model_load_failed"));
    refuse(RunnerError::new(
        ErrorKind::ContextExceeded { prompt: 10, context: 5 },
        "the input (10 tokens) exceeds the context length (5 tokens)",
    ));
    refuse(RunnerError::new(
        ErrorKind::RateLimited {
            retry_after: Duration::from_secs(3),
        },
        "slow",
    ));
    golden("errors.txt", &out);
}

/// A whole stream, told as the handler tells it.
fn told(stream: &[u8], piece: usize, load: bool) -> Vec<u8> {
    let mut events = ChatStream::new("tiny-chat".into());
    let mut out = Vec::new();
    events.start(&mut out);
    if load {
        events.load_start(&mut out);
        events.load_progress(0.5, &mut out);
        events.load_end(Duration::from_millis(2656), &mut out);
    }
    events.prompt_start(&mut out);
    for chunk in stream.chunks(piece) {
        events.push(chunk, &mut out);
        if events.ended() {
            break;
        }
    }
    events.finish(&mut out);
    let result = ChatResult {
        first_token: Duration::from_millis(1088),
        load_time: load.then(|| Duration::from_millis(2656)),
        response_id: events.error().is_none().then(|| "resp_4ef0".into()),
        ..events.result()
    };
    events.end(&result, &mut out);
    out
}

/// Name and data of every event.
fn events(stream: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(stream).expect("text");
    text.split("\n\n")
        .filter(|frame| !frame.is_empty())
        .map(|frame| {
            let (name, data) = frame.split_once('\n').expect("two lines");
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            let name = name.strip_prefix("event: ").expect("a name").to_owned();
            assert_eq!(data["type"], name.as_str());
            (name, data)
        })
        .collect()
}

fn deltas(events: &[(String, Value)], kind: &str) -> String {
    let deltas = events.iter().filter(|(name, _)| *name == format!("{kind}.delta"));
    deltas.filter_map(|(_, data)| data["content"].as_str()).collect()
}

const PROGRESS: &str = concat!(
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"#,
    r#""prompt_progress":{"total":10,"cache":2,"processed":2,"time_ms":1}}"#,
    "\n\n",
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"#,
    r#""prompt_progress":{"total":10,"cache":2,"processed":2,"time_ms":1}}"#,
    "\n\n",
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"#,
    r#""prompt_progress":{"total":10,"cache":2,"processed":10,"time_ms":9}}"#,
    "\n\n"
);

#[test]
fn streams() {
    for case in ["chat", "think", "emoji", "length"] {
        let answer = std::fs::read(folder("engine").join(format!("{case}.sse"))).unwrap();
        let stream = [PROGRESS.as_bytes(), &answer].concat();
        let load = case == "chat";
        let whole = told(&stream, stream.len(), load);
        for piece in [1, 7, 100, 301] {
            assert_eq!(
                String::from_utf8_lossy(&told(&stream, piece, load)),
                String::from_utf8_lossy(&whole),
                "{case} in pieces of {piece}"
            );
        }
        golden(&format!("{case}.sse"), &whole);
        let events = events(&whole);
        assert_eq!(events[0].0, "chat.start");
        let (name, end) = events.last().unwrap();
        assert_eq!(name, "chat.end");
        let output = end["result"]["output"].as_array().unwrap();
        for kind in ["reasoning", "message"] {
            let items = output.iter().filter(|item| item["type"] == kind);
            let text: String = items.map(|item| item["content"].as_str().unwrap()).collect();
            assert_eq!(text, deltas(&events, kind), "{case} {kind}");
        }
        // The result of a stream is the body of an answer without one.
        let mut same = ChatStream::new("tiny-chat".into());
        same.push(&stream, &mut Vec::new());
        let body: Value = serde_json::from_slice(&same.result().render()).unwrap();
        assert_eq!(body["output"], end["result"]["output"]);
    }
}

#[test]
fn a_failure_in_the_middle_still_ends_with_the_result() {
    let answer = std::fs::read(folder("engine").join("think.sse")).unwrap();
    let cut = &answer[..answer.len() / 2];
    let whole = told(cut, cut.len(), false);
    assert_eq!(whole, told(cut, 1, false));
    golden("cut.sse", &whole);
    let reported = b"data: {\"choices\":[{\"finish_reason\":null,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"code\":500,\"message\":\"boom\"}}\n\n";
    let whole = told(reported, reported.len(), false);
    golden("error.sse", &whole);
    for stream in [&told(cut, 9, false), &whole] {
        let events = events(stream);
        let names: Vec<&str> = events.iter().rev().take(3).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["chat.end", "error"]);
        assert!(matches!(names[2], "reasoning.end" | "message.end"), "{names:?}");
        assert!(events.last().unwrap().1["result"].get("response_id").is_none());
    }
    // Nothing of the answer was sent yet.
    let mut out = Vec::new();
    ChatForm::new("tiny-chat".into()).fail(&RunnerError::internal("no"), &mut out);
    let names: Vec<String> = events(&out).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["chat.start", "error", "chat.end"]);
}
