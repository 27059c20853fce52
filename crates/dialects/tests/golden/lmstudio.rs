use std::time::Duration;

use dialects::Transcoder;
use dialects::lmstudio_rest::{self as lmstudio, V0Facts, V0Stream};
use serde_json::Value;

use crate::support::{clock, compare, folder, pretty, replay, replay_all, views};

fn facts() -> V0Facts {
    V0Facts::new(&views()[0], "llama.cpp-linux-x86_64", "b11549")
}

#[test]
fn models() {
    let folder = folder("lmstudio");
    compare(
        &folder.join("models.json"),
        &pretty(&lmstudio::models_list(&views(), false)),
    );
    compare(
        &folder.join("models-loaded.json"),
        &pretty(&lmstudio::models_list(&views(), true)),
    );
    compare(&folder.join("model.json"), &pretty(&lmstudio::model_one(&views()[0])));
    let list: Value = serde_json::from_slice(&lmstudio::openai_models(&views(), false)).unwrap();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        ["acme/rerank", "text-embedding-embed", "tiny-chat", "plain", "vision"]
    );
}

#[test]
fn streams_with_stats() {
    for case in ["chat", "usage", "length", "oaicomp", "tools"] {
        let stream = std::fs::read(folder("engine").join(format!("{case}.sse"))).unwrap();
        let make = || -> Box<dyn Transcoder> { Box::new(V0Stream::new(facts(), clock())) };
        let whole = replay_all(make, &stream);
        compare(&folder("lmstudio").join(format!("{case}-v0.sse")), &whole);
        let text = String::from_utf8(whole).unwrap();
        let frames: Vec<&str> = text.split("\n\n").filter(|frame| !frame.is_empty()).collect();
        let (done, chunks) = frames.split_last().unwrap();
        assert_eq!(*done, "data: [DONE]");
        for (i, chunk) in chunks.iter().enumerate() {
            let chunk: Value = serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap();
            let blocks = ["stats", "model_info", "runtime"]
                .iter()
                .all(|block| chunk.get(block).is_some());
            assert_eq!(blocks, i + 1 == chunks.len(), "{case}: {chunk}");
        }
        // Cut: LM Studio's error frame, and no chunk is lost before it.
        let cut = replay(make, &stream[..stream.len() / 2], 9);
        let cut = String::from_utf8(cut).unwrap();
        assert!(
            cut.contains("event: error\ndata: {\"error\":{\"message\":\"The model's engine ended"),
            "{cut}"
        );
        assert!(!cut.contains("\"stats\""));
    }
}

#[test]
fn an_engine_error_ends_the_stream() {
    let stream = b"data: {\"choices\":[{\"finish_reason\":null,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"code\":500,\"message\":\"boom\"}}\n\ndata: [DONE]\n\n";
    let make = || -> Box<dyn Transcoder> { Box::new(V0Stream::new(facts(), clock())) };
    let text = String::from_utf8(replay_all(make, stream)).unwrap();
    assert_eq!(text.matches("event: error").count(), 1);
    assert!(text.contains("\"message\":\"boom\"}\n\ndata: [DONE]\n\n"));
}

#[test]
fn results_with_stats() {
    for case in ["chat_ns", "comp_ns"] {
        let reply = std::fs::read(folder("engine").join(format!("{case}.json"))).unwrap();
        let with = lmstudio::add_stats(&reply, &facts(), Duration::from_millis(12)).unwrap();
        compare(&folder("lmstudio").join(format!("{case}-v0.json")), &pretty(&with));
    }
    assert!(lmstudio::add_stats(b"nonsense", &facts(), Duration::ZERO).is_err());
}
