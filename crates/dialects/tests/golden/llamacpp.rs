use std::collections::HashSet;

use dialects::llamacpp::{self, ModelChanges, RouterFacts};
use dialects::openai::{RelayTail, StreamErrorForm};
use dialects::peek;
use domain::{EventKind, JobFile, JobId, JobKind, JobState, JobView, ModelKey, ModelState, RunnerError};
use serde_json::{Value, json};

use crate::support::{compare, folder, pretty, views};

fn ends(stream: &[u8], piece: usize) -> Vec<u8> {
    let mut tail = RelayTail::native();
    stream.chunks(piece).for_each(|chunk| tail.observe(chunk));
    let mut out = Vec::new();
    tail.finish(StreamErrorForm::LlamaCpp, &mut out);
    tail.fail(&RunnerError::internal("late"), StreamErrorForm::LlamaCpp, &mut out);
    out
}

#[test]
fn completion_relay() {
    let stream = std::fs::read(folder("ollama").join("generate-raw-logprobs/upstream.sse")).unwrap();
    for piece in [1, 7, stream.len()] {
        assert!(ends(&stream, piece).is_empty(), "a whole stream is passed on as it is");
    }
    // The last event names the end; before it every cut is told (promise H3).
    let last = memchr::memmem::rfind(&stream, b"data: ").unwrap();
    for cut in (0..last).step_by(53) {
        let whole = ends(&stream[..cut], stream.len());
        assert!(
            String::from_utf8_lossy(&whole).contains("\"error\":{\"code\":500"),
            "cut at {cut}"
        );
        assert_eq!(whole, ends(&stream[..cut], 1));
    }
    let cut = stream.len() / 2;
    compare(
        &folder("llamacpp").join("completion-cut.sse"),
        &[&stream[..cut], &ends(&stream[..cut], 50)].concat(),
    );
    // The words in a text are no end.
    let text = b"data: {\"content\":\"\\\"stop\\\":true\",\"stop\":false}\n\n";
    assert!(!ends(text, 1).is_empty());
}

#[test]
fn what_an_engine_cannot_survive_is_clamped() {
    let edit = |body: &str, slots| {
        let peeked = peek::peek(body.as_bytes()).unwrap();
        let edits = llamacpp::check_native(&peeked, slots).unwrap();
        String::from_utf8(peek::rewrite(body.as_bytes(), &peeked, &edits)).unwrap()
    };
    let same = r#"{"prompt":"x","n_predict":8,"id_slot":1,"model":"a"}"#;
    assert_eq!(edit(same, 2), same);
    assert_eq!(
        edit(r#"{"prompt":"x","n_predict":1e18,"id_slot":2,"n_probs":5000}"#, 2),
        r#"{"prompt":"x","n_predict":2147483647,"id_slot":-1,"n_probs":100}"#
    );
    let deep = format!(r#"{{"prompt":"x","grammar":"root ::= {}"}}"#, "(".repeat(100));
    assert!(llamacpp::check_native(&peek::peek(deep.as_bytes()).unwrap(), 1).is_err());
    let fetch =
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://10.0.0.1/"}}]}]}"#;
    assert!(llamacpp::check_template(&peek::peek(fetch.as_bytes()).unwrap()).is_err());
    assert!(llamacpp::check_template(&peek::peek(b"{}").unwrap()).is_ok());
    for body in [
        r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"http://10.0.0.1/"}]}]}"#,
        r#"{"content":[{"content":[{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}]}]}"#,
        r#"{"content":"text","input":[{"role":"user","content":[{"image_url":"http://10.0.0.1/"}]}]}"#,
        r#"{"input":[{"role":"user","content":[{"image\u005furl":"http://10.0.0.1/"}]}]}"#,
        r#"{"content":[{"image_url":"http://10.0.0.1/","unreadable":"\ud800"}]}"#,
    ] {
        assert!(
            llamacpp::check_native(&peek::peek(body.as_bytes()).unwrap(), 1).is_err(),
            "{body}"
        );
    }
    let own = r#"{"content":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}"#;
    assert!(llamacpp::check_native(&peek::peek(own.as_bytes()).unwrap(), 1).is_ok());
}

#[test]
fn props_of_the_router_lie_over_those_of_the_engine() {
    let facts = RouterFacts {
        max_instances: 3,
        autoload: true,
        build: "b11549".into(),
    };
    let folder = folder("llamacpp");
    compare(
        &folder.join("props.json"),
        &pretty(&llamacpp::router_props(&facts, None)),
    );
    let engine = br#"{"model_path":"file.gguf","total_slots":2,"build_info":"b11549-x","default_generation_settings":{"n_ctx":4096}}"#;
    let props: Value = serde_json::from_slice(&llamacpp::router_props(&facts, Some(engine))).unwrap();
    assert_eq!((&props["role"], &props["total_slots"]), (&"router".into(), &json!(2)));
    assert_eq!(props["build_info"], "b11549-x");
}

#[test]
fn loads_are_asked_for_in_two_forms() {
    for (body, model) in [
        (r#"{"model":"a"}"#, "a"),
        (r#"{"id":" b "}"#, "b"),
        (r#"{"model":"a","id":"b"}"#, "a"),
    ] {
        assert_eq!(llamacpp::model_of_call(body.as_bytes()).unwrap(), model);
    }
    for body in ["", "[]", "{}", r#"{"model":""}"#, r#"{"model":5}"#] {
        assert!(llamacpp::model_of_call(body.as_bytes()).is_err(), "{body}");
    }
    let reply: Value = serde_json::from_slice(&llamacpp::unload_reply("a")).unwrap();
    assert_eq!(reply, json!({"success": true, "status": "unloaded", "id": "a"}));
    assert_eq!(
        serde_json::from_slice::<Value>(&llamacpp::load_reply("a")).unwrap()["success"],
        true
    );
}

#[test]
fn downloads_are_named_by_repository() {
    assert_eq!(
        llamacpp::repository("a/b:Q8_0").unwrap(),
        ("a/b".into(), Some("Q8_0".into()))
    );
    assert_eq!(llamacpp::repository("a/b").unwrap(), ("a/b".into(), None));
    for name in ["b", "/b", "a/b/c", "http://a/b:c"] {
        assert!(llamacpp::repository(name).is_err(), "{name}");
    }
    assert_eq!(llamacpp::success(), br#"{"success":true}"#);
}

#[test]
fn events() {
    let mut instance = views()[0].instance.clone().unwrap();
    let mut changes = ModelChanges::default();
    let mut out = Vec::new();
    let mut write = |event: &EventKind| changes.write(event, |key: &ModelKey| format!("{key}:latest"), &mut out);
    for state in [
        ModelState::Queued,
        ModelState::Loading { progress: 0.5 },
        ModelState::Loading { progress: 0.5 },
        ModelState::Ready,
        ModelState::Ready,
        ModelState::Draining,
    ] {
        instance.state = state;
        write(&EventKind::Instance {
            instance: instance.clone(),
        });
    }
    write(&EventKind::InstanceGone {
        model: instance.model.clone(),
    });
    write(&EventKind::ModelFailed {
        model: "plain".into(),
        reason: "The file is damaged.".into(),
    });
    write(&EventKind::CatalogChanged { models: 3 });
    let mut job = JobView {
        id: JobId("job_0123456789".into()),
        kind: JobKind::Hub,
        name: "acme/tiny-GGUF:Q8_0".into(),
        quantization: None,
        state: JobState::Downloading,
        files: vec![JobFile {
            name: "tiny.gguf".into(),
            sha256: None,
            size: Some(10),
            done: 4,
        }],
        bytes_done: 4,
        bytes_total: Some(10),
        bytes_per_second: 1,
        error: None,
        verified: true,
        model: None,
        started_ms: 0,
        ended_ms: None,
    };
    write(&EventKind::Download { job: job.clone() });
    job.state = JobState::Completed;
    write(&EventKind::Download { job: job.clone() });
    write(&EventKind::Download { job });
    write(&EventKind::Requests { active: 1 });
    // What was missed: only models that were told to be loaded are told to be gone, each once.
    let mut late = ModelChanges::default();
    let mut missed = Vec::new();
    for model in ["stays", "gone", "other"] {
        instance.model = model.into();
        instance.state = ModelState::Ready;
        late.write(
            &EventKind::Instance {
                instance: instance.clone(),
            },
            ToString::to_string,
            &mut Vec::new(),
        );
    }
    late.write(
        &EventKind::InstanceGone { model: "other".into() },
        ToString::to_string,
        &mut Vec::new(),
    );
    for _ in 0..2 {
        late.catch_up(&HashSet::from(["stays".to_owned()]), &mut missed);
    }
    let missed = String::from_utf8(missed).unwrap();
    assert_eq!(
        missed.matches("\"model\":\"gone\"").count(),
        2,
        "one change, under both its names: {missed}"
    );
    assert!(
        missed.contains("unloaded") && !missed.contains("other") && !missed.contains("stays"),
        "{missed}"
    );
    compare(&folder("llamacpp").join("events.sse"), &out);
}
