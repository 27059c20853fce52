//! Ollama's `/api/*` (Ollama contract 1–6).

use std::sync::Arc;
use std::time::Duration;

use dialects::engine::{self, AnswerCollector, Embeddings, Limits, Wire};
use dialects::ollama::{
    self, ChatCall, ChatJob, EmbedCall, LoadReason, ModelHeader, Plan, ReplyForm, ReplyHead, ReplyStream, Route, Shape,
    ShowCall,
};
use dialects::{ModelView, Rendered};
use domain::chat::{ChatRequest, Part};
use domain::{EngineMode, KeepAlive, LaunchOptions, ModelEntry, RunnerError};
use http::Response;
use http::header::USER_AGENT;
use http::request::Parts;
use hyper::body::Incoming;
use router::{Lease, UpstreamBody};
use serde_json::json as value;

use super::lease::{EngineCalls, Wish, lease, readable};
use super::{Answer, clock, listed, now_ns};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::{json, respond};
use crate::listener::Flavour;
use crate::relay;
use crate::routes::Dialect;
use crate::state::VERSION;

/// How long an unload request waits for a running answer to end before it says "unload" all the same.
const UNLOAD_WAIT: Duration = Duration::from_secs(5);
/// What an image counts for when a prompt is measured (Ollama contract 4.2).
pub(super) const IMAGE_TOKENS: usize = 768;
/// Special tokens that an embedding model may put around its input.
const SPECIAL_TOKENS: usize = 4;

/// `GET /api/version`. Only the Ollama port pretends to be a release of Ollama (management contract 6.1).
pub(super) fn version(cx: &Cx) -> Response<Body> {
    let version = if cx.flavour() == Flavour::Ollama {
        cx.settings.ollama_version.as_str()
    } else {
        VERSION
    };
    json(Dialect::Ollama, ollama::version(version, VERSION))
}

/// `GET /api/status`.
pub(super) fn status() -> Response<Body> {
    json(
        Dialect::Ollama,
        value!({ "cloud": { "disabled": true, "source": "config" } }).to_string(),
    )
}

/// `GET /api/tags`.
pub(super) fn tags(cx: &Cx) -> Response<Body> {
    json(Dialect::Ollama, ollama::tags(&listed(cx.state())))
}

/// `GET /api/ps`.
pub(super) fn ps(cx: &Cx) -> Response<Body> {
    // Also those whose name was deleted meanwhile: they run until they expire.
    let loaded: Vec<ModelView> = cx
        .state()
        .router
        .running()
        .into_iter()
        .map(ModelView::running)
        .filter(ModelView::is_loaded)
        .collect();
    json(Dialect::Ollama, ollama::ps(&loaded, telemetry::now_ms()))
}

/// `POST /api/me`: there is no cloud account.
pub(super) fn me() -> Response<Body> {
    respond(Rendered::json(401, br#"{"error":"unauthorized"}"#.to_vec()))
}

/// Cloud search and fetch.
pub(super) async fn no_cloud(cx: &Cx, body: Incoming, what: &str) -> Answer {
    if cx.collect(body).await?.is_empty() {
        return Err(RunnerError::invalid("missing request body"));
    }
    let error = format!("ollama cloud is disabled: {what} is unavailable");
    Ok(respond(Rendered::json(
        403,
        value!({ "error": error }).to_string().into_bytes(),
    )))
}

/// `GET /api/experimental/model-recommendations`.
pub(super) fn recommendations() -> Response<Body> {
    json(Dialect::Ollama, r#"{"recommendations":[]}"#)
}

/// The entry behind a name, or the error in the words of the route.
pub(super) fn find(cx: &Cx, name: &str, route: Route) -> Result<Arc<ModelEntry>, RunnerError> {
    let wanted = ollama::lookup_name(name)?;
    let known = if wanted.is_empty() {
        None
    } else {
        cx.state().resolve(&wanted)
    };
    known.ok_or_else(|| ollama::unknown_model(name, route))
}

/// `POST /api/show`.
pub(super) async fn show(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let call = ShowCall::parse(&cx.collect(body).await?)?;
    let entry = find(cx, &call.model, Route::Show)?;
    let (reading, verbose) = (Arc::clone(&entry), call.verbose);
    let details = tokio::task::spawn_blocking(move || models::details(&reading, verbose))
        .await
        .map_err(|_| RunnerError::internal("Reading the model file failed."))?
        .map_err(|error| {
            tracing::warn!(%error, model = %entry.key, "model details");
            RunnerError::internal(format!("The file of the model '{}' could not be read.", entry.key))
        })?;
    let header = ModelHeader {
        metadata: details.metadata,
        projector: details.projector,
        template: details.template,
        license: details.license,
        tensors: details
            .tensors
            .into_iter()
            .map(|tensor| (tensor.name, tensor.kind, tensor.shape))
            .collect(),
    };
    let agent = parts.headers.get(USER_AGENT).map(http::HeaderValue::as_bytes);
    let copilot = agent.is_some_and(|agent| agent.starts_with(b"GitHubCopilotChat/"));
    Ok(json(Dialect::Ollama, call.reply(&entry, &header, copilot)))
}

/// What all replies of a request share.
pub(super) fn head(cx: &Cx, model: String, top_logprobs: u32) -> ReplyHead {
    let load = cx.arrived.elapsed();
    let started_ns = now_ns().saturating_sub(i64::try_from(load.as_nanos()).unwrap_or(i64::MAX));
    ReplyHead {
        model,
        clock: clock(),
        started_ns,
        load,
        top_logprobs,
    }
}

/// `POST /api/chat`.
pub(super) async fn chat(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let call = ChatCall::parse(&cx.collect(body).await?)?;
    let entry = find(cx, &call.model, Route::Chat)?;
    let (model, stream, keep_alive) = (call.model.clone(), call.stream, call.keep_alive);
    let plan = call.plan(&entry)?;
    if stream {
        cx.will_stream(ReplyForm::new(Shape::Chat, &head(cx, model.clone(), 0)))?;
    }
    match plan {
        Plan::Load(launch) => load(cx, parts, &entry, launch, keep_alive, model, Shape::Chat).await,
        Plan::Unload => unload(cx, &entry, model, Shape::Chat).await,
        Plan::Run(job) => Box::pin(run_chat(cx, parts, &entry, job, stream, keep_alive, model)).await,
    }
}

async fn run_chat(
    cx: &Cx,
    parts: &Parts,
    entry: &Arc<ModelEntry>,
    job: ChatJob,
    stream: bool,
    keep_alive: Option<KeepAlive>,
    model: String,
) -> Answer {
    let ChatJob {
        mut request,
        launch,
        truncate,
        render_only,
        top_logprobs,
    } = job;
    request = readable(request).await?;
    let lease = lease(cx, parts, entry, wish(launch, EngineMode::Completion, keep_alive)).await?;
    let calls = EngineCalls::new(cx, &lease);
    let head = head(cx, model, top_logprobs);
    if render_only {
        let prompt = calls.render(&request).await?;
        return Ok(json(
            Dialect::Ollama,
            ollama::render_only_reply(Shape::Chat, &head, &prompt, images(&request)),
        ));
    }
    if truncate {
        fit(&calls, lease.launch().context, &mut request).await?;
    }
    let body = engine::chat_body(&request, limits(&lease))?;
    let upstream = calls.send(engine::CHAT, body).await?.into_body();
    if stream {
        return relay::translated(
            upstream,
            ReplyStream::new(Shape::Chat, Wire::Chat, &head),
            Rendered::NDJSON,
        )
        .await;
    }
    let answer = collect(upstream, Wire::Chat).await?;
    Ok(json(Dialect::Ollama, ollama::reply(Shape::Chat, &head, &answer, None)?))
}

/// The request's launch options with the engine mode it needs.
pub(super) fn wish(launch: LaunchOptions, mode: EngineMode, keep_alive: Option<KeepAlive>) -> Wish {
    Wish {
        launch: LaunchOptions {
            mode: Some(mode),
            ..launch
        },
        keep_alive,
        ttl: None,
    }
}

pub(super) fn limits(lease: &Lease) -> Limits {
    Limits {
        context: Some(lease.launch().context),
    }
}

/// The whole answer of a stream. The engine always streams, so that a client that leaves stops it (contract 6).
pub(super) async fn collect(mut upstream: UpstreamBody, wire: Wire) -> Result<engine::Answer, RunnerError> {
    let mut collector = AnswerCollector::new(wire);
    while let Some(piece) = relay::next_piece(&mut upstream).await? {
        collector.push(&piece);
        if collector.ended() {
            break;
        }
    }
    collector.finish()
}

/// Empty prompt or messages: load, answer once ready.
pub(super) async fn load(
    cx: &Cx,
    parts: &Parts,
    entry: &Arc<ModelEntry>,
    launch: LaunchOptions,
    keep_alive: Option<KeepAlive>,
    model: String,
    shape: Shape,
) -> Answer {
    let mode = entry.natural_mode();
    // A lease that is given back at once: same queue, same single flight, and the keep-alive starts now.
    drop(lease(cx, parts, entry, wish(launch, mode, keep_alive)).await?);
    Ok(json(
        Dialect::Ollama,
        ollama::load_reply(shape, &head(cx, model, 0), LoadReason::Load),
    ))
}

/// Empty prompt or messages with `keep_alive` 0: unload; fine if it was not loaded.
pub(super) async fn unload(cx: &Cx, entry: &ModelEntry, model: String, shape: Shape) -> Answer {
    let head = head(cx, model, 0);
    let _ = tokio::time::timeout(UNLOAD_WAIT, cx.state().router.unload(&entry.key, false)).await;
    Ok(json(
        Dialect::Ollama,
        ollama::load_reply(shape, &head, LoadReason::Unload),
    ))
}

/// Images of a chat.
pub(super) fn images(request: &ChatRequest) -> usize {
    request
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter(|part| matches!(part, Part::Image { .. }))
        .count()
}

/// Text of a chat in bytes: an upper bound of its tokens, template apart.
fn text_bytes(request: &ChatRequest) -> usize {
    let messages = request.messages.iter().map(|message| {
        let parts = message
            .parts
            .iter()
            .map(|part| if let Part::Text(text) = part { text.len() } else { 0 });
        let calls = message
            .tool_calls
            .iter()
            .map(|call| call.name.len() + call.arguments.len());
        parts.chain(calls).sum::<usize>() + message.reasoning.as_ref().map_or(0, String::len) + 32
    });
    let tools: usize = if request.tools.is_empty() {
        0
    } else {
        serde_json::to_vec(&request.tools).map_or(0, |text| text.len() * 2)
    };
    messages.sum::<usize>() + tools + 256
}

/// Drops the oldest messages until the rendered prompt fits the context (contract 4.2). What cannot fit goes to the engine
/// as it is, whose 400 names both token counts. A short chat costs nothing: a token is at least one byte.
pub(super) async fn fit(calls: &EngineCalls, context: u32, request: &mut ChatRequest) -> Result<(), RunnerError> {
    let context = context as usize;
    if context == 0 || text_bytes(request) + images(request) * IMAGE_TOKENS < context {
        return Ok(());
    }
    loop {
        let prompt = calls.render(request).await?;
        let tokens = calls.tokenize(&prompt, true).await?.len() + images(request) * IMAGE_TOKENS;
        if tokens < context {
            return Ok(());
        }
        // Several at a time, by the share of text they hold, so that a long chat does not take a round trip per message.
        let before = text_bytes(request) + images(request) * IMAGE_TOKENS;
        loop {
            if !engine::drop_oldest(request) {
                return Ok(());
            }
            let now = text_bytes(request) + images(request) * IMAGE_TOKENS;
            if tokens * now / before.max(1) < context {
                break;
            }
        }
    }
}

/// `POST /api/embed` and the older `/api/embeddings`.
pub(super) async fn embed(cx: &Cx, parts: &Parts, body: Incoming, legacy: bool) -> Answer {
    let body = cx.collect(body).await?;
    let mut call = if legacy {
        EmbedCall::parse_legacy(&body)?
    } else {
        EmbedCall::parse(&body)?
    };
    let entry = find(cx, &call.model, if legacy { Route::Embeddings } else { Route::Embed })?;
    let launch = std::mem::take(&mut call.launch);
    let lease = lease(cx, parts, &entry, wish(launch, EngineMode::Embedding, call.keep_alive)).await?;
    let calls = EngineCalls::new(cx, &lease);
    let head = head(cx, call.model.clone(), 0);
    let mut embeddings = Embeddings::default();
    if !call.input.is_empty() {
        let slot = lease.launch().context;
        let limit = call.context.map_or(slot, |wanted| wanted.min(slot));
        if call.truncate || limit < slot {
            fit_inputs(&calls, limit, call.truncate, &mut call.input).await?;
        }
        let body = engine::embeddings_body(&call.input, call.normalize());
        let answer = calls
            .ask(engine::EMBEDDINGS, body)
            .await
            .map_err(|error| call.engine_error(error))?;
        embeddings = engine::parse_embeddings(&answer)?;
    }
    Ok(json(Dialect::Ollama, call.reply(&head, embeddings)?))
}

/// Cuts texts that do not fit the context, or refuses them.
async fn fit_inputs(calls: &EngineCalls, context: u32, cut: bool, input: &mut [String]) -> Result<(), RunnerError> {
    let context = context as usize;
    for text in input {
        // A token is at least one byte.
        if text.len() + SPECIAL_TOKENS <= context {
            continue;
        }
        let tokens = calls.tokenize(text, true).await?.len();
        if tokens <= context {
            continue;
        }
        if !cut {
            return Err(ollama::input_too_long());
        }
        let plain = calls.tokenize(text, false).await?;
        let room = context.saturating_sub(tokens.saturating_sub(plain.len()));
        if room == 0 {
            return Err(ollama::no_room_for_input());
        }
        *text = calls.detokenize(&plain[..room.min(plain.len())]).await?;
    }
    Ok(())
}
