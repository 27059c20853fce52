//! Anthropic's `/v1/messages` (Ollama contract 8, LM Studio contract 5).

use std::sync::Arc;
use std::time::Duration;

use dialects::anthropic::{self, Call, Job, MessageForm, MessageStream, ReplyHead};
use dialects::engine::{self, Wire};
use dialects::{Rendered, ollama, peek};
use domain::{EngineMode, ErrorKind, LaunchOptions, ModelEntry, RunnerError};
use http::request::Parts;
use hyper::body::Incoming;

use super::Answer;
use super::lease::{EngineCalls, Wish, lease, lease_beside, readable, target};
use super::ollama::{IMAGE_TOKENS, collect, images, limits};
use super::responses::random_hex;
use crate::dispatch::Cx;
use crate::errors::{anthropic_id, json};
use crate::relay;
use crate::routes::Operation as Op;

/// The operations of this family.
pub(super) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    if cx.route.operation == Op::CountTokens {
        return count(cx, parts, &body).await;
    }
    messages(cx, parts, &body).await
}

/// `POST /v1/messages`.
async fn messages(cx: &Cx, parts: &Parts, body: &[u8]) -> Answer {
    let call = Call::parse(body)?;
    let ttl = peek::peek(body)?.ttl()?;
    let entry = find(cx, &call.model)?;
    let (model, stream, caches, hides_thinking) = (call.model.clone(), call.stream, call.caches, call.hides_thinking);
    let Job {
        mut request,
        estimated_tokens,
    } = call.plan(&entry)?;
    // Only those of the request are told as the reason of an end.
    let stops = request.sampling.stop.clone();
    ollama::apply_profile(&entry.profile, &mut request)?;
    if stream {
        cx.will_stream(MessageForm {
            request_id: cx.request_id().as_ref().map(anthropic_id),
        })?;
    }
    let request = readable(request).await?;
    let lease = lease(cx, parts, &entry, wish(ttl)).await?;
    let calls = EngineCalls::new(cx, &lease);
    let head = ReplyHead {
        id: message_id()?,
        model,
        stops,
        caches,
        hides_thinking,
        estimated_tokens,
        request_id: cx.request_id().as_ref().map(anthropic_id),
    };
    let body = engine::chat_body(&request, limits(&lease))?;
    let upstream = calls.send(engine::CHAT, body).await?.into_body();
    if stream {
        return relay::translated(upstream, MessageStream::new(head), Rendered::SSE).await;
    }
    let answer = collect(upstream, Wire::Chat).await?;
    Ok(json(cx.route.dialect, anthropic::reply(&head, &answer)))
}

/// `POST /v1/messages/count_tokens`: with the model's own template and tokens, system prompt and tools included.
async fn count(cx: &Cx, parts: &Parts, body: &[u8]) -> Answer {
    let call = Call::parse_count(body)?;
    let entry = if call.model.is_empty() {
        target(cx, None)?.entry
    } else {
        find(cx, &call.model)?
    };
    let Job { mut request, .. } = call.plan(&entry)?;
    ollama::apply_profile(&entry.profile, &mut request)?;
    let request = readable(request).await?;
    let lease = lease_beside(cx, parts, &entry, wish(None)).await?;
    let calls = EngineCalls::new(cx, &lease);
    let tokens = match calls
        .ask(engine::COUNT_CHAT, engine::apply_template_body(&request)?)
        .await
    {
        Ok(answer) => engine::parse_input_tokens(&answer)?,
        // An engine without that route.
        Err(error) if error.kind == ErrorKind::Unsupported => {
            let prompt = calls.render(&request).await?;
            let tokens = calls.tokenize(&prompt, true).await?.len() + images(&request) * IMAGE_TOKENS;
            tokens as u64
        }
        Err(error) => return Err(error),
    };
    Ok(json(cx.route.dialect, anthropic::count_reply(tokens)))
}

/// The model of a request: a name, or the only loaded one where the LM Studio port allows that.
fn find(cx: &Cx, name: &str) -> Result<Arc<ModelEntry>, RunnerError> {
    target(cx, Some(name)).map(|target| target.entry)
}

/// `ttl`: LM Studio's (LM Studio contract 3).
fn wish(ttl: Option<Duration>) -> Wish {
    Wish {
        ttl,
        launch: LaunchOptions {
            mode: Some(EngineMode::Completion),
            ..LaunchOptions::default()
        },
        ..Wish::default()
    }
}

/// `msg_` and 24 hexadecimal digits.
fn message_id() -> Result<String, RunnerError> {
    Ok(format!("msg_{}", &random_hex()?[..24]))
}
