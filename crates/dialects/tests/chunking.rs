//! Any chunking gives the same bytes, and no bytes panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dialects::anthropic::{Call, MessageStream, ReplyHead as MessageHead};
use dialects::engine::{AnswerCollector, GenerationDecoder, Wire};
use dialects::lmstudio_rest::v1::{ChatCall as V1ChatCall, ChatStream, DownloadCall, LoadCall, UnloadCall};
use dialects::lmstudio_rest::{Signature, V0Facts, V0Stream};
use dialects::ollama::{ChatCall, EmbedCall, GenerateCall, ReplyHead, ReplyStream, Shape, ShowCall};
use dialects::{Clock, Transcoder};
use proptest::prelude::*;

const STREAMS: [(&[u8], Wire); 8] = [
    (include_bytes!("../../../tests/golden/engine/tools2.sse"), Wire::Chat),
    (include_bytes!("../../../tests/golden/engine/think.sse"), Wire::Chat),
    (include_bytes!("../../../tests/golden/engine/emoji.sse"), Wire::Chat),
    (include_bytes!("../../../tests/golden/engine/logprobs.sse"), Wire::Chat),
    (include_bytes!("../../../tests/golden/engine/usage.sse"), Wire::Chat),
    (include_bytes!("../../../tests/golden/engine/schema.sse"), Wire::Chat),
    (
        include_bytes!("../../../tests/golden/ollama/generate-raw-logprobs/upstream.sse"),
        Wire::Completion,
    ),
    (
        include_bytes!("../../../tests/golden/ollama/generate-suffix/upstream.sse"),
        Wire::Completion,
    ),
];

fn clock() -> Clock {
    let now = AtomicI64::new(0);
    Arc::new(move || now.fetch_add(1000, Ordering::Relaxed))
}

fn transcoders(wire: Wire) -> [Box<dyn Transcoder>; 4] {
    let head = ReplyHead {
        model: "m".into(),
        clock: clock(),
        started_ns: 0,
        load: Duration::from_nanos(1),
        top_logprobs: 2,
    };
    [
        Box::new(ReplyStream::new(Shape::Chat, wire, &head)),
        Box::new(ReplyStream::new(
            Shape::Generate,
            wire,
            &ReplyHead {
                clock: clock(),
                ..head.clone()
            },
        )),
        Box::new(V0Stream::new(
            Signature::chat(7, "m".into()),
            V0Facts::default(),
            clock(),
        )),
        Box::new(MessageStream::new(MessageHead::default())),
    ]
}

fn run(mut transcoder: Box<dyn Transcoder>, chunks: &[&[u8]]) -> String {
    let mut out = Vec::new();
    for chunk in chunks {
        transcoder.push(chunk, &mut out);
    }
    transcoder.finish(&mut out);
    // The relay passes on what the engine sent, UTF-8 or not.
    String::from_utf8_lossy(&out).into_owned()
}

/// LM Studio's own events and what they add up to.
fn told(chunks: &[&[u8]]) -> String {
    let mut events = ChatStream::new("m".into());
    let mut out = Vec::new();
    events.prompt_start(&mut out);
    for chunk in chunks {
        events.push(chunk, &mut out);
    }
    events.finish(&mut out);
    events.end(&events.result(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

proptest! {
    #[test]
    fn any_chunking(which in 0..STREAMS.len(), cuts in prop::collection::vec(0usize..20_000, 0..40), end in 0usize..40_000) {
        let (stream, wire) = STREAMS[which];
        // Often the whole stream, sometimes one that breaks somewhere.
        let stream = &stream[..stream.len().min(end)];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        for (whole, cut) in transcoders(wire).into_iter().zip(transcoders(wire)) {
            prop_assert_eq!(run(whole, &[stream]), run(cut, &pieces));
        }
        prop_assert_eq!(told(&[stream]), told(&pieces));
        let mut whole = AnswerCollector::new(wire);
        whole.push(stream);
        let mut cut = AnswerCollector::new(wire);
        for piece in &pieces {
            cut.push(piece);
        }
        prop_assert_eq!(whole.finish(), cut.finish());
    }

    #[test]
    fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..3000, which in 0..STREAMS.len()) {
        let (stream, wire) = STREAMS[which];
        let at = at.min(stream.len());
        let broken = [&stream[..at], &noise, &stream[at..]].concat();
        for transcoder in transcoders(wire) {
            run(transcoder, &[&broken]);
        }
        told(&[&broken]);
        let mut events = Vec::new();
        let mut decoder = GenerationDecoder::new(wire);
        decoder.push(&broken, &mut events);
        decoder.finish(&mut events);
    }

    #[test]
    fn no_request_panics(body in r#"\{("(model|messages|system|max_tokens|stop_sequences|thinking|tool_choice|output_config|prompt|images|think|options|context|keep_alive|tools|input|format)":(null|1|-1e300|"x"|\[\]|\[1,\{\}\]|\{"a":[0-9]\}|true),?){0,4}\}"#) {
        let body = body.as_bytes();
        let _ = ChatCall::parse(body);
        let _ = GenerateCall::parse(body);
        let _ = EmbedCall::parse(body);
        let _ = EmbedCall::parse_legacy(body);
        let _ = ShowCall::parse(body);
        let _ = V1ChatCall::parse(body);
        let _ = LoadCall::parse(body);
        let _ = UnloadCall::parse(body);
        let _ = DownloadCall::parse(body);
        let _ = Call::parse(body);
        let _ = Call::parse_count(body);
    }
}
