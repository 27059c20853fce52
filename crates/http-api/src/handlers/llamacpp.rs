//! llama-server's own routes, passed through to the engine, and those of its router mode (management contract 6, 7.1).

use std::sync::Arc;

use bytes::Bytes;
use dialects::llamacpp::{self, EngineMetrics, Exposition, RouterFacts};
use dialects::openai::{Edits, RelayTail, StreamErrorForm};
use dialects::peek::{self, Peeked};
use dialects::{Rendered, anthropic, engine};
use domain::{
    Capability, EngineMode, ErrorKind, InstanceView, LaunchOptions, ModelEntry, ModelState, RegistryName, RequestPhase,
    RunnerError,
};
use downloads::Source;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response};
use hyper::body::Incoming;
use router::{Lease, UpstreamBody};

use super::lease::{EngineCalls, MAX_ERROR, Wish, described, known, lease, lease_beside, not_found, require, usual};
use super::{Answer, listed, now_ns, ollama_store, openai, query, view};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::{json, respond};
use crate::relay;
use crate::routes::Operation as Op;
use crate::state::{ApiState, VERSION};

/// Prometheus' text form.
const EXPOSITION: &str = "text/plain; version=0.0.4";

/// Most engine text that is read for `/metrics` and `/props`.
const MAX_FACTS: usize = 4 << 20;

/// The operations of this family.
pub(super) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::LlamaHealth => Ok(health(cx)),
        Op::LlamaDownload => download(cx, body).await,
        Op::LlamaDelete => delete(cx, parts).await,
        Op::LlamaLoad => load(cx, body).await,
        Op::LlamaUnload => unload(cx, body).await,
        Op::LlamaModelEvents => Ok(super::model_events::events(cx)),
        Op::LlamaResume => resume(cx, parts),
        Op::LlamaStop => stop(cx, parts),
        Op::LlamaLookup => look_up(cx, body).await,
        Op::LlamaProps => props(cx, parts).await,
        Op::LlamaMetrics => metrics(cx, parts).await,
        Op::LlamaSlots => glance(cx, parts, Method::GET, "/slots", Bytes::new()).await,
        Op::LlamaLoraAdapters => glance(cx, parts, Method::GET, "/lora-adapters", Bytes::new()).await,
        Op::LlamaSetProps => glance(cx, parts, Method::POST, "/props", cx.collect(body).await?).await,
        Op::LlamaSetLoraAdapters => glance(cx, parts, Method::POST, "/lora-adapters", cx.collect(body).await?).await,
        Op::LlamaCompletion => work(cx, parts, body, Work::Completion).await,
        Op::LlamaInfill => work(cx, parts, body, Work::Infill).await,
        Op::LlamaEmbedding => work(cx, parts, body, Work::Embedding).await,
        Op::LlamaApplyTemplate => work(cx, parts, body, Work::Template).await,
        Op::LlamaCountTokens => work(cx, parts, body, Work::Count).await,
        Op::LlamaResponses => work(cx, parts, body, Work::Responses).await,
        Op::LlamaCountResponse => work(cx, parts, body, Work::CountResponse).await,
        Op::LlamaTokenize => work(cx, parts, body, Work::Tokenize).await,
        Op::LlamaDetokenize => work(cx, parts, body, Work::Detokenize).await,
        other => Err(RunnerError::internal(format!(
            "{other:?} is no operation of llama.cpp."
        ))),
    }
}

/// The name of a chat that goes on without its client.
fn conversation(parts: &Parts) -> Result<String, RunnerError> {
    let name = query(parts, "conv_id").filter(|name| !name.is_empty());
    name.ok_or_else(|| RunnerError::invalid("conv_id is missing: the X-Conversation-Id of the chat.").param("conv_id"))
}

/// `GET /v1/stream?conv_id=…&from=N`.
fn resume(cx: &Cx, parts: &Parts) -> Answer {
    let name = conversation(parts)?;
    let from = query(parts, "from").unwrap_or_default();
    let from = match from.as_str() {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| RunnerError::invalid("from must be a number of bytes.").param("from"))?,
    };
    cx.state().resumables.resume(&name, from)
}

/// `DELETE /v1/stream?conv_id=…`: the same answer whether there was one or not.
fn stop(cx: &Cx, parts: &Parts) -> Answer {
    cx.state().resumables.stop(&conversation(parts)?);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    Ok(response)
}

/// `POST /v1/streams/lookup`.
async fn look_up(cx: &Cx, body: Incoming) -> Answer {
    let names = llamacpp::conversation_ids(&cx.collect(body).await?)?;
    Ok(json(
        cx.route.dialect,
        cx.state().resumables.look_up(&names).to_string(),
    ))
}

/// `GET /v1/health`.
fn health(cx: &Cx) -> Response<Body> {
    if cx.connection.listener.cancel.is_cancelled() {
        let error = RunnerError::new(ErrorKind::ShuttingDown, "The server is shutting down.");
        return respond(llamacpp::error(&error));
    }
    json(cx.route.dialect, r#"{"status":"ok"}"#)
}

/// `GET /models?reload=1` looks for new files first; callers of Anthropic's API get its form of the list too.
pub(super) async fn list_models(cx: &Cx, parts: &Parts) -> Answer {
    if parts.uri.path() == "/models" && query(parts, "reload").is_some_and(|value| !value.is_empty()) {
        cx.state().registry.rescan().await;
    }
    if parts.headers.contains_key("anthropic-version") {
        let mut models = listed(cx.state());
        // Its callers chat with whatever is listed.
        models.retain(|model| !model.entry.is_speech());
        let body = anthropic::models_list(&models, openai::options(cx, false));
        return Ok(json(cx.route.dialect, body));
    }
    Ok(openai::list_models(cx, parts))
}

/// `GET /v1/models/{id}`, with Anthropic's members for callers of its API.
pub(super) fn one_model(cx: &Cx, parts: &Parts) -> Answer {
    if !parts.headers.contains_key("anthropic-version") {
        return openai::one_model(cx);
    }
    let entry = described(cx, &cx.id).ok_or_else(|| not_found(cx, &cx.id))?;
    let body = anthropic::model(&view(cx.state(), &entry), &cx.id, openai::options(cx, false));
    Ok(json(cx.route.dialect, body))
}

/// `POST /models/load`: answers at once, the events tell the rest.
async fn load(cx: &Cx, body: Incoming) -> Answer {
    let name = llamacpp::model_of_call(&cx.collect(body).await?)?;
    let entry = known(cx, &name).ok_or_else(|| not_found(cx, &name))?;
    let launch = LaunchOptions {
        mode: Some(entry.natural_mode()),
        ..LaunchOptions::default()
    };
    cx.state().router.load(entry, launch, None, false).await?;
    Ok(json(cx.route.dialect, llamacpp::load_reply(&name)))
}

/// `POST /models`: answers when it is known what there is to fetch, the events tell the rest.
async fn download(cx: &Cx, body: Incoming) -> Answer {
    let name = llamacpp::model_of_call(&cx.collect(body).await?)?;
    if known(cx, &name).is_some() {
        return Err(RunnerError::invalid(format!("model '{name}' already exists")).param("model"));
    }
    let source = if let Some(whisper) = Source::whisper(&name) {
        whisper
    } else {
        let (repo, file_or_quant) = llamacpp::repository(&name)?;
        Source::Hub { repo, file_or_quant }
    };
    cx.state().downloads.start_job(source).await?.planned().await?;
    Ok(json(cx.route.dialect, llamacpp::success()))
}

/// `DELETE /models?model=…`.
async fn delete(cx: &Cx, parts: &Parts) -> Answer {
    let asked = query(parts, "model").filter(|name| !name.is_empty());
    let asked = asked.ok_or_else(|| RunnerError::invalid("model is missing").param("model"))?;
    ollama_store::delete_model(cx, RegistryName::parse(&asked), &asked).await?;
    Ok(json(cx.route.dialect, llamacpp::success()))
}

/// `POST /models/unload`: running answers end first, as with `/v1/models/{id}/stop`. Of a model that is being downloaded: the
/// download ends.
async fn unload(cx: &Cx, body: Incoming) -> Answer {
    let name = llamacpp::model_of_call(&cx.collect(body).await?)?;
    let downloads = &cx.state().downloads;
    let coming = downloads.jobs().into_iter().find(|job| {
        let view = job.view();
        !view.state.is_final() && llamacpp::download_name(&view) == name
    });
    if let Some(job) = coming {
        downloads.cancel(&job.id()).await?;
        return Ok(json(cx.route.dialect, llamacpp::unload_reply(&name)));
    }
    let entry = known(cx, &name).ok_or_else(|| not_found(cx, &name))?;
    cx.state()
        .router
        .unload_within(entry.instance_key(), cx.settings.drain)
        .await;
    Ok(json(cx.route.dialect, llamacpp::unload_reply(&name)))
}

/// The model of a request: named in the body or the query, else the only loaded one, else the one last used, else the only
/// one there is.
fn locate(
    cx: &Cx,
    parts: &Parts,
    body: Option<&Peeked<'_>>,
    suits: &[Capability],
) -> Result<Arc<ModelEntry>, RunnerError> {
    let named = match body {
        Some(body) => body.model()?.map(std::borrow::Cow::into_owned),
        None => None,
    };
    let named = named
        .or_else(|| query(parts, "model"))
        .filter(|name| !name.trim().is_empty());
    match named {
        Some(name) => known(cx, name.trim()).ok_or_else(|| not_found(cx, name.trim())),
        None => usual(cx, suits).ok_or_else(|| {
            RunnerError::invalid("model name is missing from the request: name one of the models of /models.")
                .param("model")
        }),
    }
}

/// Every model that has an engine.
const ANY: &[Capability] = &[
    Capability::Completion,
    Capability::Chat,
    Capability::Embedding,
    Capability::Rerank,
];
const GENERATES: &[Capability] = &[Capability::Completion, Capability::Chat];
const EMBEDS: &[Capability] = &[Capability::Embedding, Capability::Chat, Capability::Completion];

/// A way to the model's engine that takes no slot; loads the model first, unless `autoload` says no.
async fn look(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>) -> Result<Lease, RunnerError> {
    if let Some(look) = cx.state().router.look(entry.instance_key()) {
        return Ok(look);
    }
    lease(cx, parts, entry, any_mode(cx, entry)).await
}

/// Whatever the model is loaded for will do.
fn any_mode(cx: &Cx, entry: &ModelEntry) -> Wish {
    let (state, _) = cx.state().router.status(entry.instance_key());
    let mode = matches!(state, ModelState::Unloaded | ModelState::Failed(_)).then(|| entry.natural_mode());
    wish(mode)
}

fn wish(mode: Option<EngineMode>) -> Wish {
    Wish {
        launch: LaunchOptions {
            mode,
            ..LaunchOptions::default()
        },
        ..Wish::default()
    }
}

/// The request's query without what was for us.
fn target_path(parts: &Parts, path: &str) -> String {
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !matches!(name, "" | "model" | "autoload" | "api_key")
    });
    let query: Vec<&str> = pairs.collect();
    if query.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", query.join("&"))
}

/// Routes about an engine rather than for it: answered while all its slots are busy.
async fn glance(cx: &Cx, parts: &Parts, method: Method, path: &str, body: Bytes) -> Answer {
    // The list of adapters is an array, which names no model.
    let object = body.trim_ascii_start().first() == Some(&b'{');
    let peeked = if object { Some(peek::peek(&body)?) } else { None };
    let entry = locate(cx, parts, peeked.as_ref(), ANY)?;
    require(&entry, entry.key.as_str(), ANY, path.trim_start_matches('/'))?;
    let lease = look(cx, parts, &entry).await?;
    let response = EngineCalls::new(cx, &lease)
        .relay(method, &target_path(parts, path), body)
        .await?;
    if response.status().is_success() && cx.route.operation == Op::LlamaProps {
        let text = response.into_body().collect_bytes(MAX_FACTS).await?;
        return Ok(json(
            cx.route.dialect,
            llamacpp::engine_props(&text, cx.caller.sees_paths),
        ));
    }
    pass(response).await
}

/// The engine's answer, untouched; its error too, unless it says what is nobody's business.
async fn pass(response: Response<UpstreamBody>) -> Answer {
    let status = response.status();
    if status.is_success() {
        return relay::whole(response).await;
    }
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let text = response.into_body().collect_bytes(MAX_ERROR).await?;
    if !llamacpp::passes(status.as_u16(), &text) {
        return Err(engine::error_from_response(status.as_u16(), &text));
    }
    let mut answer = Response::new(Body::full(text));
    *answer.status_mut() = status;
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static(Rendered::JSON));
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(answer)
}

/// Routes that work on a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Completion,
    Infill,
    Embedding,
    Template,
    Count,
    Responses,
    CountResponse,
    Tokenize,
    Detokenize,
}

impl Work {
    fn path(self) -> &'static str {
        match self {
            Self::Completion => engine::COMPLETION,
            Self::Infill => engine::INFILL,
            Self::Embedding => "/embedding",
            Self::Template => engine::APPLY_TEMPLATE,
            Self::Count => engine::COUNT_CHAT,
            Self::Responses => "/v1/responses",
            Self::CountResponse => "/v1/responses/input_tokens",
            Self::Tokenize => engine::TOKENIZE,
            Self::Detokenize => engine::DETOKENIZE,
        }
    }

    fn suits(self) -> &'static [Capability] {
        match self {
            Self::Completion | Self::Infill | Self::Template | Self::Count | Self::Responses | Self::CountResponse => {
                GENERATES
            }
            Self::Embedding => EMBEDS,
            Self::Tokenize | Self::Detokenize => ANY,
        }
    }

    /// The engine's mode it needs; `None`: any.
    fn mode(self) -> Option<EngineMode> {
        match self {
            Self::Completion | Self::Infill | Self::Responses => Some(EngineMode::Completion),
            Self::Embedding => Some(EngineMode::Embedding),
            Self::Template | Self::Count | Self::CountResponse | Self::Tokenize | Self::Detokenize => None,
        }
    }

    fn check(self, body: &Peeked<'_>, slots: u32) -> Result<Edits, RunnerError> {
        match self {
            Self::Completion | Self::Infill | Self::Embedding | Self::Responses | Self::CountResponse => {
                llamacpp::check_native(body, slots)
            }
            Self::Template | Self::Count => llamacpp::check_template(body).map(|()| Edits::new()),
            Self::Tokenize | Self::Detokenize => Ok(Edits::new()),
        }
    }
}

/// Body to engine and back, byte for byte.
async fn work(cx: &Cx, parts: &Parts, body: Incoming, work: Work) -> Answer {
    let body = cx.collect(body).await?;
    let peeked = peek::peek(&body)?;
    let entry = locate(cx, parts, Some(&peeked), work.suits())?;
    require(
        &entry,
        entry.key.as_str(),
        work.suits(),
        work.path().trim_start_matches('/'),
    )?;
    // Before anything is waited for: what is refused is refused at once.
    work.check(&peeked, 0)?;
    if work.mode() == Some(EngineMode::Completion) && peeked.stream()? {
        cx.will_stream(StreamErrorForm::LlamaCpp)?;
    }
    let wish = Wish {
        keep_alive: peeked.keep_alive()?,
        ..work
            .mode()
            .map_or_else(|| any_mode(cx, &entry), |mode| wish(Some(mode)))
    };
    let lease = if work.mode().is_some() {
        lease(cx, parts, &entry, wish).await?
    } else {
        lease_beside(cx, parts, &entry, wish).await?
    };
    let edits = work.check(&peeked, lease.launch().parallel)?;
    let sent = if edits.is_empty() {
        body.clone()
    } else {
        Bytes::from(peek::rewrite(&body, &peeked, &edits))
    };
    let response = EngineCalls::new(cx, &lease)
        .relay(Method::POST, work.path(), sent)
        .await?;
    if response.status().is_success() && relay::is_event_stream(response.headers()) {
        return relay::event_stream(response.into_body(), RelayTail::native(), StreamErrorForm::LlamaCpp).await;
    }
    pass(response).await
}

/// The only loaded engine.
fn only_engine(cx: &Cx) -> Option<Lease> {
    let router = &cx.state().router;
    let mut ready = router
        .instances()
        .into_iter()
        .filter(|instance| instance.state == ModelState::Ready && !instance.launch.mode.is_speech());
    let first = ready.next()?;
    if ready.next().is_some() {
        return None;
    }
    router.look(&first.model)
}

/// `GET /props`: of a model's engine, or of this server.
async fn props(cx: &Cx, parts: &Parts) -> Answer {
    if query(parts, "model").is_some_and(|model| !model.is_empty()) {
        return glance(cx, parts, Method::GET, "/props", Bytes::new()).await;
    }
    let state = cx.state();
    let engine = state.engines.llama_server().await.ok();
    let build = engine.map_or_else(String::new, |engine| match engine.build {
        Some(build) => format!("b{build}"),
        None => engine.version.clone(),
    });
    let (max_instances, autoload) = state.router.capacity();
    let facts = RouterFacts {
        max_instances,
        autoload,
        build,
    };
    let own = match only_engine(cx) {
        Some(lease) => own_text(cx, &lease, "/props").await,
        None => None,
    };
    let own = own.map(|own| llamacpp::engine_props(&own.text, cx.caller.sees_paths));
    Ok(json(cx.route.dialect, llamacpp::router_props(&facts, own.as_deref())))
}

/// What an engine says of itself; nothing when it does not answer well.
struct Own {
    text: Bytes,
    started: Option<HeaderValue>,
}

/// When the engine began, for readers of its counters.
const STARTED: HeaderName = HeaderName::from_static("process-start-time-unix");

async fn own_text(cx: &Cx, lease: &Lease, path: &str) -> Option<Own> {
    let calls = EngineCalls::new(cx, lease);
    let response = calls.relay(Method::GET, path, Bytes::new()).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let started = response.headers().get(STARTED).cloned();
    let text = response.into_body().collect_bytes(MAX_FACTS).await.ok()?;
    Some(Own { text, started })
}

/// `GET /metrics`: of a model's engine, or of this server.
async fn metrics(cx: &Cx, parts: &Parts) -> Answer {
    if query(parts, "model").is_some_and(|model| !model.is_empty()) {
        let entry = locate(cx, parts, None, ANY)?;
        require(&entry, entry.key.as_str(), ANY, "metrics")?;
        let lease = look(cx, parts, &entry).await?;
        let calls = EngineCalls::new(cx, &lease);
        let response = calls.relay(Method::GET, "/metrics", Bytes::new()).await?;
        let started = response.headers().get(STARTED).cloned();
        let mut answer = pass(response).await?;
        if let Some(started) = started {
            answer.headers_mut().insert(STARTED, started);
        }
        return Ok(answer);
    }
    let state = cx.state();
    let mut engines = Vec::new();
    let mut started = None;
    for instance in state.router.instances() {
        if instance.state != ModelState::Ready {
            continue;
        }
        // Speech engines count nothing in this form.
        let counts = !instance.launch.mode.is_speech();
        let own = match state.router.look(&instance.model).filter(|_| counts) {
            Some(lease) => own_text(cx, &lease, "/metrics").await,
            None => None,
        };
        started = own.as_ref().and_then(|own| own.started.clone());
        engines.push(engine_metrics(&instance, own));
    }
    let requests = state.router.active_requests();
    let count = |phase| requests.iter().filter(|request| request.phase == phase).count();
    let facts = Exposition {
        version: VERSION.into(),
        start_seconds: started_at(state),
        requests_total: state.router.requests_total(),
        requests: [
            ("running", count(RequestPhase::Running)),
            ("queued", count(RequestPhase::Queued)),
            ("loading", count(RequestPhase::Loading)),
        ],
        models: listed(state).len(),
        engines,
    };
    let only = facts.engines.len() == 1;
    let mut answer = Response::new(Body::full(llamacpp::metrics(&facts)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EXPOSITION));
    if let Some(started) = started.filter(|_| only) {
        headers.insert(STARTED, started);
    }
    Ok(answer)
}

/// Unix seconds of our start, whole: the same in every answer.
fn started_at(state: &ApiState) -> f64 {
    (now_ns() as f64 / 1e9 - state.started.elapsed().as_secs_f64()).round()
}

fn engine_metrics(instance: &InstanceView, own: Option<Own>) -> EngineMetrics {
    EngineMetrics {
        model: instance.model.to_string(),
        memory_bytes: super::llamarunner::engine_bytes(instance),
        slots: instance.launch.parallel,
        context_tokens: instance.launch.context,
        load_seconds: instance.load_ms.unwrap_or(0) as f64 / 1e3,
        own: own
            .map(|own| String::from_utf8_lossy(&own.text).into_owned())
            .unwrap_or_default(),
    }
}
