//! `POST /api/generate`: four engine routes behind one, and the `context` of the final line (Ollama contract 4.1, 6).

use std::sync::Arc;

use dialects::engine;
use dialects::ollama::{self, GenerateCall, GenerateJob, GenerateMode, Plan, ReplyForm, ReplyStream, Route, Shape};
use dialects::{Rendered, Transcoder};
use domain::chat::{ChatRequest, CompletionRequest};
use domain::{EngineMode, KeepAlive, ModelEntry, RunnerError};
use futures_util::future::BoxFuture;
use http::request::Parts;
use hyper::body::Incoming;

use super::Answer;
use super::lease::{EngineCalls, lease, readable};
use super::ollama::{collect, find, head, images, limits, load, unload, wish};
use crate::dispatch::Cx;
use crate::errors::json;
use crate::relay;
use crate::routes::Dialect;

/// `POST /api/generate`.
pub(super) async fn generate(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let call = GenerateCall::parse(&cx.collect(body).await?)?;
    let entry = find(cx, &call.model, Route::Generate)?;
    let (model, stream, keep_alive) = (call.model.clone(), call.stream, call.keep_alive);
    let plan = call.plan(&entry)?;
    if stream {
        cx.will_stream(ReplyForm::new(Shape::Generate, &head(cx, model.clone(), 0)))?;
    }
    match plan {
        Plan::Load(launch) => load(cx, parts, &entry, launch, keep_alive, model, Shape::Generate).await,
        Plan::Unload => unload(cx, &entry, model, Shape::Generate).await,
        Plan::Run(job) => Box::pin(run(cx, parts, &entry, job, stream, keep_alive, model)).await,
    }
}

/// What the tokens of `context` are made of, besides the reply.
enum Prompt {
    /// No `context` is sent (raw, infill).
    Untold,
    /// To be rendered with the model's template.
    Chat(Box<ChatRequest>),
    /// Rendered already.
    Text(String),
}

async fn run(
    cx: &Cx,
    parts: &Parts,
    entry: &Arc<ModelEntry>,
    job: GenerateJob,
    stream: bool,
    keep_alive: Option<KeepAlive>,
    model: String,
) -> Answer {
    let GenerateJob {
        mut mode,
        launch,
        render_only,
        top_logprobs,
        ..
    } = job;
    if let GenerateMode::Chat(chat) | GenerateMode::Continue { chat, .. } = &mut mode {
        *chat = readable(std::mem::take(chat)).await?;
    }
    let lease = lease(cx, parts, entry, wish(launch, EngineMode::Completion, keep_alive)).await?;
    let calls = EngineCalls::new(cx, &lease);
    let head = head(cx, model, top_logprobs);
    let wire = mode.wire();
    if render_only {
        let (prompt, images) = match &mode {
            GenerateMode::Chat(chat) | GenerateMode::Continue { chat, .. } => (calls.render(chat).await?, images(chat)),
            GenerateMode::Raw(raw) | GenerateMode::Infill(raw) => (raw.prompt.clone(), raw.images.len()),
        };
        return Ok(json(
            Dialect::Ollama,
            ollama::render_only_reply(Shape::Generate, &head, &prompt, images),
        ));
    }
    let limits = limits(&lease);
    let (path, body, prompt) = match mode {
        GenerateMode::Chat(chat) => (
            engine::CHAT,
            engine::chat_body(&chat, limits)?,
            Prompt::Chat(Box::new(chat)),
        ),
        GenerateMode::Raw(raw) => (
            engine::COMPLETION,
            engine::completion_body(&raw, limits)?,
            Prompt::Untold,
        ),
        GenerateMode::Infill(gap) => {
            fits(&calls, lease.launch().context, &gap).await?;
            (engine::INFILL, engine::infill_body(&gap, limits)?, Prompt::Untold)
        }
        GenerateMode::Continue { chat, context } => {
            let earlier = calls.detokenize(&context).await.map_err(ollama::unreadable_context)?;
            let rendered = calls.render(&chat).await?;
            let request = ollama::continue_prompt(&chat, &earlier, &rendered);
            (
                engine::COMPLETION,
                engine::completion_body(&request, limits)?,
                Prompt::Text(request.prompt),
            )
        }
    };
    let upstream = calls.send(path, body).await?.into_body();
    if stream {
        let coder = ReplyStream::new(Shape::Generate, wire, &head);
        let last = |coder| -> BoxFuture<'static, Vec<u8>> { Box::pin(last_line(coder, calls, prompt)) };
        return relay::translated_then(upstream, coder, Rendered::NDJSON, last).await;
    }
    let answer = collect(upstream, wire).await?;
    let context = tokens(calls, prompt, answer.text.clone()).await;
    Ok(json(
        Dialect::Ollama,
        ollama::reply(Shape::Generate, &head, &answer, context.as_deref())?,
    ))
}

/// The engine cuts what surrounds a gap without a word; what cannot fit is refused as everywhere else (contract 4.2,
/// \[better\]). Short texts cost nothing: a token is at least one byte.
async fn fits(calls: &EngineCalls, context: u32, gap: &CompletionRequest) -> Result<(), RunnerError> {
    let suffix = gap.suffix.as_deref().unwrap_or_default();
    if context == 0 || gap.prompt.len() + suffix.len() < context as usize {
        return Ok(());
    }
    let tokens = calls.tokenize(&gap.prompt, false).await?.len() + calls.tokenize(suffix, false).await?.len();
    if tokens < context as usize {
        return Ok(());
    }
    Err(engine::context_exceeded(Some(tokens as u64), Some(u64::from(context))))
}

/// Tokens of prompt and reply. A failure only costs the deprecated `context` field, not the answer.
async fn tokens(calls: EngineCalls, prompt: Prompt, reply: String) -> Option<Vec<i64>> {
    let prompt = match prompt {
        Prompt::Untold => return None,
        Prompt::Chat(chat) => calls.render(&chat).await,
        Prompt::Text(text) => Ok(text),
    };
    let tokens = match prompt {
        Ok(prompt) => calls.tokenize(&(prompt + &reply), false).await,
        Err(error) => Err(error),
    };
    tokens
        .inspect_err(|error| tracing::debug!(%error, "context of a generate reply"))
        .ok()
}

/// The final line of a stream, with the token list of `context`.
async fn last_line(mut coder: ReplyStream, calls: EngineCalls, prompt: Prompt) -> Vec<u8> {
    if coder.ended()
        && coder.error().is_none()
        && let Some(tokens) = tokens(calls, prompt, coder.text().to_owned()).await
    {
        coder.set_context(tokens);
    }
    let mut out = Vec::new();
    coder.finish(&mut out);
    out
}
