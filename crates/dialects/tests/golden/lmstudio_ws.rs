//! The protocol of LM Studio's libraries: recorded engine streams to frames, and every object the JavaScript library
//! validates.

use std::collections::BTreeSet;

use dialects::engine::Wire;
use dialects::lmstudio_ws::{
    self as ws, Domain, DownloadStep, InstanceFacts, KvStack, ModelUse, PredictStream, Prediction, WireError,
};
use domain::{JobFile, JobId, JobKind, JobState, JobView, Level};
use serde_json::{Value, json};

use crate::support::{START_MS, clock, compare, folder, views};

const CHANNEL: i64 = 3;

fn prediction(fields: &Value) -> Prediction {
    let stack: KvStack =
        serde_json::from_value(json!({"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]}))
            .unwrap();
    Prediction::parse(&stack).unwrap()
}

/// Frames of a stream in pieces of this size, then how it ended. Times are left out: they hang on the pieces.
fn replay(prediction: &Prediction, wire: Wire, stream: &[u8], piece: usize) -> Vec<String> {
    let mut predict = PredictStream::new(CHANNEL, wire, prediction, clock(), true);
    let mut frames = Vec::new();
    for chunk in stream.chunks(piece) {
        predict.push(chunk, &mut frames);
    }
    frames.push(match predict.finish(&mut Vec::new()) {
        Ok(stats) => {
            let mut stats = stats.value();
            for time in ["tokensPerSecond", "timeToFirstTokenSec", "totalTimeSec"] {
                if let Some(time) = stats.get_mut(time) {
                    assert!(time.as_f64().unwrap() > 0.0);
                    *time = "…".into();
                }
            }
            json!({"stats": stats, "text": predict.text()}).to_string()
        }
        Err(error) => json!({"channelError": WireError::from(error).value()}).to_string(),
    });
    frames
}

fn golden(name: &str, fields: &Value, wire: Wire, stream: &[u8]) {
    let prediction = prediction(fields);
    // What `finish` says goes before the end.
    let mut end = Vec::new();
    let mut predict = PredictStream::new(CHANNEL, wire, &prediction, clock(), false);
    predict.push(stream, &mut Vec::new());
    let _ = predict.finish(&mut end);
    let whole = replay(&prediction, wire, stream, stream.len().max(1));
    for piece in [1, 7, 100, 301] {
        assert_eq!(
            whole,
            replay(&prediction, wire, stream, piece),
            "{name} in pieces of {piece}"
        );
    }
    let (last, frames) = whole.split_last().unwrap();
    let all: Vec<&str> = frames.iter().chain(&end).chain([last]).map(String::as_str).collect();
    for frame in &all {
        fragment_is_whole(frame);
    }
    compare(
        &folder("lmstudio-ws").join(format!("{name}.jsonl")),
        format!("{}\n", all.join("\n")).as_bytes(),
    );
}

/// The JavaScript library loses a fragment silently that lacks one of these (contract 10.3).
fn fragment_is_whole(frame: &str) {
    let frame: Value = serde_json::from_str(frame).unwrap();
    let fragment = &frame["message"]["fragment"];
    if let Some(fragment) = fragment.as_object() {
        let keys: BTreeSet<&str> = fragment.keys().map(String::as_str).collect();
        for key in [
            "content",
            "tokensCount",
            "containsDrafted",
            "reasoningType",
            "isStructural",
        ] {
            assert!(keys.contains(key), "{frame}");
        }
        assert!(fragment["tokensCount"].is_u64() && fragment["content"] != "", "{frame}");
    }
}

fn engine(name: &str) -> Vec<u8> {
    std::fs::read(folder("engine").join(name)).unwrap()
}

#[test]
fn predictions() {
    golden("chat", &json!([]), Wire::Chat, &engine("chat.sse"));
    golden("think", &json!([]), Wire::Chat, &engine("think.sse"));
    golden(
        "think-tags",
        &json!([{"key": "llm.prediction.reasoning.parsing", "value": {"enabled": true, "startString": "[", "endString": "]"}}]),
        Wire::Chat,
        &engine("think.sse"),
    );
    golden("tools", &json!([]), Wire::Chat, &engine("tools.sse"));
    golden("tools-two", &json!([]), Wire::Chat, &engine("tools2.sse"));
    golden("emoji", &json!([]), Wire::Chat, &engine("emoji.sse"));
    golden(
        "length",
        &json!([{"key": "llm.prediction.maxPredictedTokens", "value": {"checked": true, "value": 3}}]),
        Wire::Chat,
        &engine("length.sse"),
    );
    golden("context-full", &json!([]), Wire::Chat, &engine("length.sse"));
    golden(
        "logprobs",
        &json!([{"key": "llm.prediction.logProbs", "value": {"checked": true, "value": 2}}]),
        Wire::Chat,
        &engine("logprobs.sse"),
    );
}

const PROGRESS: &str = concat!(
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"cache":1,"processed":1,"time_ms":0}}"#,
    "\n\n",
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":9,"cache":1,"processed":5,"time_ms":1}}"#,
    "\n\n",
    r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hel"}}]}"#,
    "\n\n",
);

#[test]
fn progress_and_stop_texts() {
    let end = |word: &str| {
        format!(
            "{PROGRESS}data: {{\"choices\":[{{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{{}}}}],\"__verbose\":{{\"stopping_word\":\"{word}\"}},\"timings\":{{\"cache_n\":1,\"prompt_n\":8,\"predicted_n\":2,\"predicted_ms\":4}}}}\n\ndata: [DONE]\n\n"
        )
    };
    let fields = json!([
        {"key": "llm.prediction.stopStrings", "value": ["lo"]},
        {"key": "llm.prediction.toolCallStopStrings", "value": ["<call>"]},
    ]);
    golden("progress-stop", &fields, Wire::Chat, end("lo").as_bytes());
    golden("tool-stop", &fields, Wire::Chat, end("<call>").as_bytes());
}

#[test]
fn raw_completions() {
    let stream = concat!(
        "data: {\"content\":\"\",\"stop\":false,\"prompt_progress\":{\"total\":2,\"cache\":0,\"processed\":2}}\n\n",
        "data: {\"content\":\"one\",\"stop\":false}\n\n",
        "data: {\"content\":\"\",\"stop\":true,\"stop_type\":\"word\",\"stopping_word\":\"two\",\"timings\":{\"cache_n\":0,\"prompt_n\":2,\"predicted_n\":2,\"predicted_ms\":4}}\n\n",
    );
    golden("raw", &json!([]), Wire::Completion, stream.as_bytes());
}

#[test]
fn broken_streams() {
    let cut = engine("chat.sse");
    golden("cut", &json!([]), Wire::Chat, &cut[..cut.len() / 2]);
    let failing = format!(
        "{PROGRESS}data: {{\"error\":{{\"code\":500,\"message\":\"out of memory\",\"type\":\"server_error\"}}}}\n\n"
    );
    golden("error", &json!([]), Wire::Chat, failing.as_bytes());
    let tools = String::from_utf8(engine("tools.sse")).unwrap();
    // The length limit in the middle of a call.
    let arguments = tools.find("arguments\":\"").unwrap();
    let after = tools[arguments..].find("\n\n").unwrap() + arguments + 2;
    let cut_call = format!(
        "{}data: {{\"choices\":[{{\"finish_reason\":\"length\",\"index\":0,\"delta\":{{}}}}]}}\n\ndata: [DONE]\n\n",
        &tools[..after]
    );
    golden("cut-call", &json!([]), Wire::Chat, cut_call.as_bytes());
}

#[test]
fn cancelled_and_waiting() {
    let prediction = prediction(&json!([]));
    let mut predict = PredictStream::new(CHANNEL, Wire::Chat, &prediction, clock(), false);
    let mut frames = Vec::new();
    for _ in 0..3 {
        predict.still_waiting(&mut frames);
    }
    let progress = |frame: &String| {
        serde_json::from_str::<Value>(frame).unwrap()["message"]["progress"]
            .as_f64()
            .unwrap()
    };
    let rising: Vec<f64> = frames.iter().map(progress).collect();
    assert!(
        rising[0] == 0.0 && rising.windows(2).all(|pair| pair[0] < pair[1]) && rising[2] < 0.01,
        "{rising:?}"
    );
    let think = engine("think.sse");
    predict.push(&think[..think.len() / 3], &mut frames);
    let before = frames.len();
    predict.still_waiting(&mut frames);
    assert_eq!(frames.len(), before, "fragments are a sign of life");
    let stats = predict.cancelled(&mut frames).value();
    assert_eq!(stats["stopReason"], "userStopped");
    assert!(stats["predictedTokensCount"].as_u64().unwrap() > 0);
    assert!(
        frames.last().unwrap().contains("reasoningEndTag"),
        "an opened tag is closed"
    );
}

fn pretty(value: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap())
}

#[test]
fn infos_and_configurations() {
    let views = views();
    let mut infos = Vec::new();
    let mut loaded = Vec::new();
    for view in &views {
        let Some(domain) = Domain::of(&view.entry) else {
            assert_eq!(view.entry.key.as_str(), "acme/rerank", "only the libraries' two kinds");
            continue;
        };
        infos.push(ws::model_info(&view.entry, domain));
        if let Some(instance) = &view.instance {
            let facts = InstanceFacts {
                view: instance,
                reference: "1a0-7",
            };
            loaded.push(json!({
                "info": ws::instance_info(&view.entry, domain, facts),
                "loadConfig": ws::load_config(&view.entry, domain, instance),
            }));
        }
    }
    let usage = ws::usage_estimate(ModelUse {
        model: 1_000_000,
        context: Some(50_000),
        on_gpu: 500,
        fits: true,
    });
    let all = json!({"downloaded": infos, "loaded": loaded, "usage": usage});
    compare(&folder("lmstudio-ws").join("infos.json"), pretty(&all).as_bytes());
}

#[test]
fn load_wishes() {
    let entry = &views()[0].entry;
    let stack: KvStack = serde_json::from_value(json!({"layers": [{"layerName": "apiOverride", "config": {"fields": [
        {"key": "llm.load.contextLength", "value": 512},
        {"key": "llm.load.llama.acceleration.offloadRatio", "value": 0.5},
        {"key": "llm.load.llama.evalBatchSize", "value": 256},
        {"key": "llm.load.llama.flashAttention", "value": true},
        {"key": "llm.load.llama.tryMmap", "value": false},
        {"key": "llm.load.llama.kCacheQuantizationType", "value": {"checked": true, "value": "q8_0"}},
        {"key": "llm.load.llama.vCacheQuantizationType", "value": {"checked": true, "value": "q8_0"}},
        {"key": "llm.load.numParallelSessions", "value": 2},
        {"key": "llm.load.llama.cpuThreadPoolSize", "value": 3},
        {"key": "load.gpuSplitConfig", "value": {"strategy": "priorityOrder", "priority": [1, 0]}},
        {"key": "llm.load.seed", "value": {"checked": true, "value": 1}},
        {"key": "llm.load.llama.ropeFrequencyBase", "value": {"checked": true, "value": 1e4}},
        {"key": "embedding.load.contextLength", "value": 7},
    ]}}]}))
    .unwrap();
    let wish = ws::load_wish(&stack.collapse(), Domain::Llm, entry);
    let text = format!("{:#?}\n", (&wish.launch, &wish.ignored));
    compare(&folder("lmstudio-ws").join("load-wish.txt"), text.as_bytes());
    let embedding = ws::load_wish(&stack.collapse(), Domain::Embedding, entry);
    assert_eq!(embedding.launch.context, Some(7));
}

#[test]
fn errors() {
    let query = ws::Query {
        identifier: Some("nope".into()),
        ..ws::Query::default()
    };
    let all: Vec<Value> = [
        WireError::no_model(&query, &["tiny-chat".into()]),
        WireError::no_preset("poet"),
        WireError::unloaded(),
        WireError::domain_mismatch("acme/x.gguf", Domain::Embedding, Domain::Llm),
        WireError::unknown_endpoint("x"),
        WireError::not_supported("x"),
        WireError::bad_parameter("x", "missing field `y`"),
        WireError::from(domain::RunnerError::invalid("No.")),
    ]
    .iter()
    .map(|error| Value::Object(error.value().clone()))
    .collect();
    compare(
        &folder("lmstudio-ws").join("errors.json"),
        pretty(&json!(all)).as_bytes(),
    );
}

fn job(state: JobState) -> JobView {
    JobView {
        id: JobId("job_0123456789".into()),
        kind: JobKind::Hub,
        name: "acme/tiny-GGUF".into(),
        quantization: None,
        state,
        files: vec![JobFile {
            name: "tiny.gguf".into(),
            sha256: None,
            size: Some(100),
            done: 50,
        }],
        bytes_done: 50,
        bytes_total: Some(100),
        bytes_per_second: 10,
        error: None,
        verified: true,
        model: Some("tiny".into()),
        started_ms: START_MS,
        ended_ms: None,
    }
}

#[test]
fn downloads_and_logs() {
    let steps: Vec<Value> = [
        JobState::Queued,
        JobState::Downloading,
        JobState::Verifying,
        JobState::Completed,
        JobState::Paused,
        JobState::Failed,
        JobState::Cancelled,
    ]
    .into_iter()
    .map(|state| match ws::download_step(&job(state)) {
        DownloadStep::Say(message) => json!(message),
        DownloadStep::Failed(why) => json!({"failed": why}),
        DownloadStep::Nothing => Value::Null,
    })
    .collect();
    let option = |quantization: Option<&str>, file: &str, size: u64| ws::DownloadOption {
        quantization: quantization.map(str::to_owned),
        file: file.to_owned(),
        size,
        recommended: quantization == Some("Q4_K_M"),
    };
    let options = [
        option(Some("Q4_K_M"), "a-Q4_K_M.gguf", 100),
        option(Some("F16"), "a-F16.gguf", 400),
        option(None, "b.gguf", 50),
    ];
    let all = json!({
        "steps": steps,
        "search": ws::search_results(&["a/b".into(), "c/d".into()], Some("C/d")),
        "options": ws::download_options("a/b", &options, ws::Room { gpu: 60, ram: 200 }),
        "logs": [
            ws::input_log(START_MS, "prompt", "acme/x.gguf", "x").message(),
            ws::log_line(START_MS, Level::Warn, "line", None).message(),
            ws::log_line(START_MS, Level::Info, "line", Some(("x", "b11549"))).message(),
        ],
    });
    compare(
        &folder("lmstudio-ws").join("downloads-logs.json"),
        pretty(&all).as_bytes(),
    );
}

/// Every frame a server sends outside of predictions.
#[test]
fn frames() {
    let error = WireError::new("No.");
    let all = [
        ws::auth_success(),
        ws::auth_refused("Invalid API token"),
        ws::rpc_result(0, Some(&json!({"tokens": [1]}))),
        ws::rpc_result::<Value>(1, None),
        ws::rpc_error(2, &error),
        ws::channel_send(0, &json!({"type": "x"})),
        ws::channel_close(0),
        ws::channel_error(1, &error),
        ws::channel_ack(1, 2),
        ws::signal_error(1, &error),
        ws::writable_signal_error(1, &error),
        ws::keep_alive_ack(),
        ws::warning("Received x", Some("rpcEndpointUnknown")),
        ws::warning("Received y", None),
    ];
    compare(
        &folder("lmstudio-ws").join("frames.jsonl"),
        format!("{}\n", all.join("\n")).as_bytes(),
    );
}
