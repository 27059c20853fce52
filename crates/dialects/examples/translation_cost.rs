//! Measures what translation costs per streamed event, and what `peek` costs beside copying the body (goals P8 and P17):
//! `cargo run --release -p dialects --example translation_cost`.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dialects::anthropic::{MessageStream, ReplyHead as MessageHead};
use dialects::engine::Wire;
use dialects::lmstudio_rest::v1::ChatStream;
use dialects::lmstudio_rest::{Signature, V0Facts, V0Stream};
use dialects::ollama::{ReplyHead, ReplyStream, Shape};
use dialects::openai::responses::{Defaults, ResponseHead, ResponseStream, ResponsesCall};
use dialects::openai::{NamedReasoning, ReasoningName, RelayTail, StreamErrorForm};
use dialects::{Clock, Transcoder, peek};

const EVENTS: usize = 2000;
const ROUNDS: usize = 200;

/// The quickest of many rounds, in nanoseconds.
fn best(mut run: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64
}

fn main() -> std::io::Result<()> {
    let recorded = include_str!("../../../tests/golden/engine/chat.sse");
    let frames: Vec<&str> = recorded.split_inclusive("\n\n").collect();
    let event = frames[1].as_bytes();
    let mut chunks: Vec<&[u8]> = vec![event; EVENTS];
    chunks.extend(frames[frames.len() - 2..].iter().map(|frame| frame.as_bytes()));

    let start = Instant::now();
    let clock: Clock = Arc::new(move || i64::try_from(start.elapsed().as_nanos()).unwrap_or(0));
    let mut out = Vec::with_capacity(1 << 20);
    let translate = |make: &dyn Fn() -> Box<dyn Transcoder>, out: &mut Vec<u8>| {
        best(|| {
            out.clear();
            let mut transcoder = make();
            for chunk in &chunks {
                transcoder.push(chunk, out);
            }
            transcoder.finish(out);
            black_box(&out);
        })
    };
    let head = ReplyHead {
        model: "tiny-chat:latest".into(),
        clock: clock.clone(),
        started_ns: 0,
        load: Duration::from_millis(1),
        top_logprobs: 0,
    };
    let chat = translate(&|| Box::new(ReplyStream::new(Shape::Chat, Wire::Chat, &head)), &mut out);
    let signature = Signature::chat(7, "tiny-chat".into());
    let v0 = translate(
        &|| Box::new(V0Stream::new(signature.clone(), V0Facts::default(), clock.clone())),
        &mut out,
    );
    let v1 = best(|| {
        out.clear();
        let mut events = ChatStream::new("tiny-chat".into());
        for chunk in &chunks {
            events.push(chunk, &mut out);
        }
        events.finish(&mut out);
        black_box(&out);
    });
    let call = ResponsesCall::parse(br#"{"input":"x"}"#, Defaults::default()).map_err(std::io::Error::other)?;
    let response_head = ResponseHead::new(&call, &"0".repeat(48), "tiny-chat", clock.clone());
    let responses = translate(
        &|| Box::new(ResponseStream::new(response_head.clone(), false)),
        &mut out,
    );
    let messages = translate(&|| Box::new(MessageStream::new(MessageHead::default())), &mut out);
    let named = translate(
        &|| Box::new(NamedReasoning::new(ReasoningName::Both, StreamErrorForm::OpenAi)),
        &mut out,
    );
    let relay = best(|| {
        out.clear();
        let mut tail = RelayTail::new();
        for chunk in &chunks {
            tail.observe(chunk);
            out.extend_from_slice(chunk);
        }
        black_box((&out, tail.complete()));
    });

    let body = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}],"model":"m","stream":true}}"#,
        "QUJD".repeat(500_000)
    );
    let copy = best(|| drop(black_box(body.as_bytes().to_vec())));
    let scan = best(|| drop(black_box(peek::peek(body.as_bytes()).map(|p| p.stream()))));

    let per_event = |total: f64| total / EVENTS as f64;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "event of {} bytes, nanoseconds per event:", event.len())?;
    writeln!(stdout, "  relay (watch and copy)      {:8.1}", per_event(relay))?;
    writeln!(stdout, "  ollama chat (to NDJSON)     {:8.1}", per_event(chat))?;
    writeln!(stdout, "  lm studio v0 (SSE to SSE)   {:8.1}", per_event(v0))?;
    writeln!(stdout, "  lm studio v1 (its events)   {:8.1}", per_event(v1))?;
    writeln!(stdout, "  openai responses            {:8.1}", per_event(responses))?;
    writeln!(stdout, "  anthropic messages          {:8.1}", per_event(messages))?;
    writeln!(stdout, "  openai chat, reasoning named {:7.1}", per_event(named))?;
    writeln!(
        stdout,
        "body of {} bytes: peek {:.0} us, copy {:.0} us, ratio {:.2}",
        body.len(),
        scan / 1e3,
        copy / 1e3,
        scan / copy
    )
}
