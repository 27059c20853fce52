//! Ollama's store routes: what stored models add, progress lines, errors.

use std::fmt::Write as _;
use std::sync::Arc;

use dialects::engine::{self, Limits};
use dialects::ollama::{
    self, ChatCall, CopyCall, CreateCall, DeleteCall, GenerateCall, GenerateMode, ModelHeader, Plan, PullLines, Route,
    ShowCall, TransferCall,
};
use domain::chat::{Message, Role};
use domain::{JobFile, JobId, JobKind, JobState, JobView, LaunchOptions, ModelEntry, ModelProfile, RunnerError};
use serde_json::{Value, json};

use crate::support::{compare, find, folder, pretty};

/// A model made from `tiny-chat` with everything a manifest can add.
fn stored() -> ModelEntry {
    let profile = ModelProfile {
        system: Some("You are a pirate.".into()),
        template: Some("{{ .System }} {{ .Prompt }}".into()),
        parameters:
            json!({"temperature": 0.25, "stop": ["<end>", "zzz"], "num_ctx": 1024, "num_predict": 99, "seed": 7})
                .as_object()
                .unwrap()
                .clone(),
        messages: vec![Message::text(Role::User, "hi"), Message::text(Role::Assistant, "Ahoy.")],
        license: vec!["CC0-1.0".into(), "Be nice.".into()],
        adapters: vec!["/data/ollama/blobs/sha256-ad".into()],
        parent: Some("tiny-chat:latest".into()),
    };
    ModelEntry {
        key: "me/pirate:v1".into(),
        profile: Arc::new(profile),
        launch: LaunchOptions {
            context: Some(1024),
            ..LaunchOptions::default()
        },
        ..ModelEntry::clone(&find("tiny-chat").unwrap())
    }
}

#[test]
fn show_of_a_stored_model() {
    let header = ModelHeader {
        template: Some("{{ messages }}".into()),
        license: Some("in the file".into()),
        ..ModelHeader::default()
    };
    let reply = |body: &str| {
        ShowCall::parse(body.as_bytes())
            .unwrap()
            .reply(&stored(), &header, false)
    };
    let folder = folder("ollama");
    compare(
        &folder.join("show-stored.json"),
        &pretty(&reply(r#"{"model":"me/pirate:v1"}"#)),
    );
    let over = r#"{"model":"me/pirate:v1","system":"Mine.","options":{"temperature":1,"num_ctx":9}}"#;
    compare(&folder.join("show-stored-over.json"), &pretty(&reply(over)));
}

fn chat(body: &Value) -> Value {
    let plan = ChatCall::parse(body.to_string().as_bytes())
        .unwrap()
        .plan(&stored())
        .unwrap();
    let Plan::Run(job) = plan else { panic!("{body} runs") };
    let body = engine::chat_body(&job.request, Limits { context: Some(1024) }).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn requests_to_a_stored_model() {
    let user = json!({"role": "user", "content": "Where?"});
    let generate = |body: Value| {
        let plan = GenerateCall::parse(body.to_string().as_bytes())
            .unwrap()
            .plan(&stored())
            .unwrap();
        let Plan::Run(job) = plan else { panic!("{body} runs") };
        let limits = Limits { context: Some(1024) };
        let body = match &job.mode {
            GenerateMode::Chat(chat) | GenerateMode::Continue { chat, .. } => engine::chat_body(chat, limits),
            GenerateMode::Raw(raw) | GenerateMode::Infill(raw) => engine::completion_body(raw, limits),
        };
        serde_json::from_slice::<Value>(&body.unwrap()).unwrap()
    };
    let model = "me/pirate:v1";
    let all = json!({
        "chat": chat(&json!({"model": model, "messages": [user]})),
        "chat, own system": chat(&json!({"model": model, "messages": [{"role": "system", "content": "Mine."}, user]})),
        "chat, own options": chat(&json!({"model": model, "messages": [user], "options": {"temperature": 1, "stop": [], "seed": null}})),
        "generate": generate(json!({"model": model, "prompt": "Where?"})),
        "generate, own system": generate(json!({"model": model, "prompt": "Where?", "system": "Mine."})),
        "generate, context": generate(json!({"model": model, "prompt": "Where?", "context": [1, 2]})),
        "generate, raw": generate(json!({"model": model, "prompt": "Where?", "raw": true})),
    });
    compare(
        &folder("ollama").join("stored-requests.json"),
        &pretty(all.to_string().as_bytes()),
    );
    for (name, body) in all.as_object().unwrap() {
        assert!(body.get("num_ctx").is_none(), "{name}: {body}");
    }
}

fn job(state: JobState, done: &[u64]) -> JobView {
    let sizes = [4_000_000_000_u64, 11_343, 561];
    let file = |(at, done): (usize, &u64)| JobFile {
        name: format!("sha256:{}", format!("{at}e").repeat(32)),
        sha256: Some(format!("{at}e").repeat(32)),
        size: Some(sizes[at]),
        done: *done,
    };
    JobView {
        id: JobId("job_0123456789".into()),
        kind: JobKind::Registry,
        name: "llama3.2".into(),
        quantization: None,
        state,
        files: done.iter().enumerate().map(file).collect(),
        bytes_done: done.iter().sum(),
        bytes_total: Some(sizes.iter().sum()),
        bytes_per_second: 0,
        error: None,
        verified: true,
        model: None,
        started_ms: 0,
        ended_ms: None,
    }
}

/// Every line is JSON, and only the last ends the stream.
fn check(out: &[u8], end: impl Fn(&Value) -> bool) {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(end(line), at + 1 == lines.len(), "{line}");
    }
}

#[test]
fn pull_in_lines() {
    let folder = folder("ollama");
    let mut lines = PullLines::default();
    let mut out = Vec::new();
    lines.begin(&mut out);
    for view in [
        job(JobState::Queued, &[]),
        job(JobState::Resolving, &[]),
        job(JobState::Downloading, &[0, 0, 561]),
        job(JobState::Downloading, &[1_000_000, 0, 561]),
        job(JobState::Downloading, &[1_000_000, 0, 561]),
        job(JobState::Downloading, &[3_999_999_999, 11_343, 561]),
    ] {
        lines.update(&view, &mut out);
    }
    let mut failed = out.clone();
    lines.update(&job(JobState::Verifying, &[4_000_000_000, 11_343, 561]), &mut out);
    lines.finish(&job(JobState::Completed, &[4_000_000_000, 11_343, 561]), &mut out);
    check(&out, |line| line["status"] == "success");
    compare(&folder.join("pull.ndjson"), &out);

    ollama::error_line(
        "digest mismatch, file must be downloaded again: want sha256:a, got sha256:b",
        &mut failed,
    );
    check(&failed, |line| line.get("error").is_some());
    compare(&folder.join("pull-failed.ndjson"), &failed);
    assert_eq!(ollama::success(), br#"{"status":"success"}"#);
}

#[test]
fn push_and_create_in_lines() {
    let folder = folder("ollama");
    let hex = "8e".repeat(32);
    let mut out = Vec::new();
    ollama::status_line("retrieving manifest", &mut out);
    for done in [0, 4096, 8192] {
        ollama::transfer_line("pushing", "", Some(&hex), Some(8192), done, &mut out);
    }
    ollama::status_line("pushing manifest", &mut out);
    ollama::status_line("success", &mut out);
    check(&out, |line| line["status"] == "success");
    compare(&folder.join("push.ndjson"), &out);

    out.clear();
    ollama::status_line("parsing GGUF", &mut out);
    for done in [0, 100] {
        ollama::work_line(
            "quantizing F16 model to Q4_K_M",
            &format!("sha256:{hex}"),
            100,
            done,
            &mut out,
        );
    }
    ollama::status_line(&format!("creating new layer sha256:{hex}"), &mut out);
    ollama::status_line("writing manifest", &mut out);
    ollama::status_line("success", &mut out);
    check(&out, |line| line["status"] == "success");
    compare(&folder.join("create.ndjson"), &out);
}

#[test]
fn refusals() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let map = |names: &[&str]| -> Value { names.iter().map(|name| ((*name).to_owned(), digest.as_str())).collect() };
    let mut text = String::new();
    let mut tell = |route: Route, what: &str, body: &Value, error: Option<RunnerError>| {
        let rendered = error.map(|error| ollama::error(&error, route));
        let (status, body_text) = rendered.map_or((200, "accepted".to_owned()), |rendered| {
            (rendered.status, String::from_utf8(rendered.body).unwrap())
        });
        let _ = writeln!(text, "{what} {body}\n  {status} {body_text}");
    };
    for body in [
        json!({}),
        json!({"model": "a b", "from": "x"}),
        json!({"model": "x"}),
        json!({"model": "x", "from": ""}),
        json!({"model": "x", "files": map(&["/m.gguf"])}),
        json!({"model": "x", "files": map(&["../m.gguf"])}),
        json!({"model": "x", "files": {"m.gguf": "sha256:../../etc/passwd"}}),
        json!({"model": "x", "files": {"m.gguf": 5}}),
        json!({"model": "x", "from": "y", "adapters": map(&["a", "b"])}),
        json!({"model": "x", "from": "y", "template": "{{ if .System }}"}),
        json!({"model": "x", "from": "y", "quantize": "IQ1_S"}),
        json!({"model": "x", "from": "y", "parameters": {"num_ctx": "many"}}),
        json!({"model": "x", "from": "y", "messages": [{"role": "robot"}]}),
        json!({"model": "x", "from": "y", "license": 7}),
        json!({"model": "x", "from": "y", "remote_host": "https://ollama.com"}),
        json!({"model": "x", "from": "y"}),
    ] {
        let error = CreateCall::parse(body.to_string().as_bytes()).err();
        tell(Route::Create, "create", &body, error);
    }
    for body in [
        json!({}),
        json!({"source": "x"}),
        json!({"source": "x", "destination": "a/b/c/d"}),
    ] {
        let error = CopyCall::parse(body.to_string().as_bytes()).err();
        tell(Route::Copy, "copy", &body, error);
    }
    for body in [json!({}), json!({"model": "a b"}), json!({"name": "x"})] {
        let error = DeleteCall::parse(body.to_string().as_bytes()).err();
        tell(Route::Delete, "delete", &body, error);
    }
    for body in [
        json!({}),
        json!({"model": "a b"}),
        json!({"name": "x", "insecure": "yes"}),
        json!({"name": "x"}),
    ] {
        let bytes = body.to_string();
        tell(
            Route::Pull,
            "pull",
            &body,
            TransferCall::parse_pull(bytes.as_bytes()).err(),
        );
        tell(
            Route::Push,
            "push",
            &body,
            TransferCall::parse_push(bytes.as_bytes()).err(),
        );
    }
    for (route, what) in [(Route::Copy, "copy"), (Route::Delete, "delete"), (Route::Push, "push")] {
        let error = RunnerError::model_not_found("x");
        tell(route, what, &json!("not installed"), Some(error));
    }
    compare(&folder("ollama").join("store-errors.txt"), text.as_bytes());
}
