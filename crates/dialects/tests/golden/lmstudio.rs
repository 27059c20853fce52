use std::sync::Arc;
use std::time::Duration;

use dialects::Transcoder;
use dialects::lmstudio_rest::{self as lmstudio, Signature, V0Facts, V0Stream};
use serde_json::Value;

use crate::support::{clock, compare, folder, pretty, replay, replay_all, views};

fn facts() -> V0Facts {
    V0Facts::new(&views()[0], "llama.cpp-linux-x86_64", "b11549")
}

fn signature() -> Signature {
    Signature::chat(u128::MAX, "tiny-chat".into())
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
    assert_eq!(list["data"][0]["owned_by"], "organization_owner");
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

/// One entry of another kind makes a list invalid for LM Studio's JavaScript library.
#[test]
fn speech_models_are_in_no_list_of_lm_studios() {
    use domain::{Capability, EngineKind};
    let with = |key: &str, engine, capabilities: &[Capability]| {
        let mut view = views().remove(0);
        let entry = Arc::make_mut(&mut view.entry);
        entry.key = key.into();
        entry.engine = engine;
        entry.capabilities = capabilities.iter().copied().collect();
        view
    };
    let ears = [Capability::Transcription, Capability::Translation];
    let models = [
        views().remove(0),
        with("whisper", EngineKind::FasterWhisper, &ears),
        with("voice", EngineKind::Speech, &[Capability::Speech]),
        with(
            "own",
            EngineKind::Custom,
            &[Capability::Speech, Capability::Transcription],
        ),
    ];
    let keys = |list: Vec<u8>, of: &str, name: &str| -> Vec<String> {
        let list: Value = serde_json::from_slice(&list).unwrap();
        let list = list[of].as_array().unwrap();
        list.iter()
            .map(|model| model[name].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(lmstudio::models_list(&models, false), "data", "id"), ["tiny-chat"]);
    assert_eq!(keys(lmstudio::v1::models(&models), "models", "key"), ["tiny-chat"]);
    assert_eq!(
        keys(lmstudio::openai_models(&models, false), "data", "id"),
        ["own", "tiny-chat", "voice", "whisper"]
    );
    for model in &models {
        let chats = model.entry.key.as_str() == "tiny-chat";
        assert_eq!(lmstudio::has_type(&model.entry), chats);
        assert_eq!(dialects::lmstudio_ws::Domain::of(&model.entry).is_some(), chats);
        assert_eq!(model.entry.is_speech(), !chats);
    }
}

#[test]
fn streams_with_stats() {
    for case in ["chat", "usage", "length", "oaicomp", "tools"] {
        let stream = std::fs::read(folder("engine").join(format!("{case}.sse"))).unwrap();
        let make = || -> Box<dyn Transcoder> { Box::new(V0Stream::new(signature(), facts(), clock())) };
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
    let make = || -> Box<dyn Transcoder> { Box::new(V0Stream::new(signature(), facts(), clock())) };
    let text = String::from_utf8(replay_all(make, stream)).unwrap();
    assert_eq!(text.matches("event: error").count(), 1);
    assert!(text.contains("\"message\":\"boom\"}\n\ndata: [DONE]\n\n"));
}

#[test]
fn results_with_stats() {
    for case in ["chat_ns", "comp_ns"] {
        let reply = std::fs::read(folder("engine").join(format!("{case}.json"))).unwrap();
        let signature = match case {
            "chat_ns" => signature(),
            _ => Signature::completion(1, "tiny-chat".into()),
        };
        let with = lmstudio::add_stats(&reply, &signature, &facts(), Duration::from_millis(12)).unwrap();
        compare(&folder("lmstudio").join(format!("{case}-v0.json")), &pretty(&with));
        let signed = lmstudio::sign(&reply, &signature).unwrap();
        compare(&folder("lmstudio").join(format!("{case}.json")), &pretty(&signed));
    }
    assert!(lmstudio::add_stats(b"nonsense", &signature(), &facts(), Duration::ZERO).is_err());
    assert!(lmstudio::sign(b"[]", &signature()).is_err());
}

#[test]
fn names_that_need_escapes_are_signed_alike() {
    let stream = std::fs::read(folder("engine").join("chat.sse")).unwrap();
    let signature = || Signature::chat(5, "a\"b\\c\u{e9}".into());
    let make = || -> Box<dyn Transcoder> { Box::new(V0Stream::new(signature(), facts(), clock())) };
    let text = String::from_utf8(replay_all(make, &stream)).unwrap();
    let chunks = text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: {"));
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(&format!("{{{chunk}")).unwrap();
        assert_eq!(chunk["system_fingerprint"], "a\"b\\c\u{e9}");
        assert_eq!(chunk["id"], "chatcmpl-500000000000000000000");
        assert_eq!(chunk["choices"][0]["logprobs"], Value::Null);
        assert!(chunk["choices"][0].as_object().unwrap().contains_key("logprobs"));
    }
}
