//! From a model name to a running engine and its answer.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialects::llamarunner::status_word;
use dialects::{engine, images};
use domain::chat::ChatRequest;
use domain::{Capability, EngineMode, ErrorKind, KeepAlive, LaunchOptions, ModelEntry, ModelState, RunnerError};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use router::{Attached, Lease, LeaseRequest, UpstreamBody, UpstreamRequest};

use super::query;
use crate::dispatch::{Cx, Granted};
use crate::listener::Flavour;
use crate::routes::{Dialect, Operation as Op};
use crate::state::ApiState;

/// Largest engine answer that is collected: embeddings of a big batch.
const MAX_ANSWER: usize = 256 << 20;
/// Largest error text of the engine that is read.
pub(super) const MAX_ERROR: usize = 1 << 20;

/// Lines of the engine's log in the error of a failed load.
const FAILURE_LINES: usize = 8;

/// Who is shown as the caller of a request.
const CLIENT_NAME: usize = 80;

/// The model a request means.
pub(super) struct Target {
    pub(super) entry: Arc<ModelEntry>,
    /// The name was unknown; the only loaded model answers (LM Studio contract 2).
    pub(super) fallback: bool,
}

impl Target {
    /// Names the model that answered instead.
    pub(super) fn mark<B>(&self, response: &mut Response<B>) {
        if self.fallback
            && let Ok(value) = HeaderValue::from_str(self.entry.key.as_str())
        {
            response
                .headers_mut()
                .insert(HeaderName::from_static("x-llamarunner-model-fallback"), value);
        }
    }
}

/// Does this request follow LM Studio's rules for loading (contract 3)? llama-server's own paths follow its router's.
pub(super) fn is_jit(cx: &Cx) -> bool {
    match cx.route.dialect {
        Dialect::LmStudio | Dialect::LmStudioV1 => true,
        Dialect::OpenAi | Dialect::Anthropic => cx.flavour() == Flavour::LmStudio,
        // Speech beside a chat must not cost the chat its model.
        Dialect::Ollama | Dialect::LlamaCpp | Dialect::LlamaRunner | Dialect::Audio => false,
    }
}

/// The entry that is to work under a name: LM Studio prefers loaded models where a name leaves a choice (contract 2).
pub(super) fn known(cx: &Cx, name: &str) -> Option<Arc<ModelEntry>> {
    let state = cx.state();
    if is_jit(cx) {
        prefixed(name, |name| state.router.resolve(name))
    } else {
        described(cx, name)
    }
}

/// The entry that is to be described under a name, loaded or not.
pub(super) fn described(cx: &Cx, name: &str) -> Option<Arc<ModelEntry>> {
    prefixed(name, |name| cx.state().resolve(name))
}

/// LM Studio's lists put a prefix before embedding models (contract 2).
fn prefixed(name: &str, resolve: impl Fn(&str) -> Option<Arc<ModelEntry>>) -> Option<Arc<ModelEntry>> {
    resolve(name).or_else(|| {
        let bare = name.strip_prefix("text-embedding-")?;
        resolve(bare).filter(|entry| entry.can(Capability::Embedding))
    })
}

/// Finds the model of an OpenAI-style request.
pub(super) fn target(cx: &Cx, name: Option<&str>) -> Result<Target, RunnerError> {
    let name = name.map(str::trim).filter(|name| !name.is_empty());
    if let Some(entry) = name.and_then(|name| known(cx, name)) {
        return Ok(Target { entry, fallback: false });
    }
    // It is a language model that answers; a vector of another model than the one asked for would be worse than none.
    let generates = !matches!(cx.route.operation, Op::Embeddings | Op::V0Embeddings | Op::Rerank);
    if is_jit(cx)
        && generates
        && cx.settings.lmstudio_port.use_single_loaded
        && let Some(entry) = single_loaded(cx)
    {
        tracing::warn!(asked = name.unwrap_or_default(), answering = %entry.key, "unknown model name, the only loaded model answers");
        return Ok(Target { entry, fallback: true });
    }
    // llama-server needs no name, and neither do programs made for it; on the two ports of other products their rules hold.
    let lenient = cx.flavour() == Flavour::Management || !cx.route.path.starts_with("/v1/");
    if name.is_none()
        && lenient
        && let Some(entry) = usual(cx, suits(cx.route.operation))
    {
        return Ok(Target { entry, fallback: false });
    }
    match name {
        Some(name) => Err(not_found(cx, name)),
        None => Err(
            RunnerError::invalid("'model' is required: name one of the models of /v1/models.")
                .param("model")
                .code("missing_required_parameter"),
        ),
    }
}

/// What a model must be able to do for an operation that names none.
fn suits(operation: Op) -> &'static [Capability] {
    match operation {
        Op::Embeddings => &[Capability::Embedding, Capability::Chat, Capability::Completion],
        Op::Rerank => &[Capability::Rerank],
        _ => &[Capability::Chat, Capability::Completion],
    }
}

/// The model meant by a request that names none: the one that is loaded, the one last used, or the only one there is.
pub(super) fn usual(cx: &Cx, suits: &[Capability]) -> Option<Arc<ModelEntry>> {
    let catalog = cx.state().registry.catalog();
    let router = &cx.state().router;
    let fits = |entry: &&Arc<ModelEntry>| suits.iter().any(|capability| entry.can(*capability));
    let used = |entry: &&Arc<ModelEntry>| router.last_used(entry.instance_key());
    let instances = router.instances();
    let loaded = instances
        .iter()
        .filter(|instance| !matches!(instance.state, ModelState::Unloaded | ModelState::Failed(_)))
        .filter_map(|instance| catalog.get(&instance.model))
        .filter(fits);
    let all: Vec<&Arc<ModelEntry>> = catalog.listed().filter(fits).collect();
    let found = loaded
        .max_by_key(used)
        .or_else(|| {
            all.iter()
                .copied()
                .filter(|entry| used(entry).is_some())
                .max_by_key(used)
        })
        .or(match all.as_slice() {
            [only] => Some(*only),
            _ => None,
        });
    found.cloned()
}

/// The only loaded generating model, if there is exactly one.
fn single_loaded(cx: &Cx) -> Option<Arc<ModelEntry>> {
    let catalog = cx.state().registry.catalog();
    let instances = cx.state().router.instances();
    let mut loaded = instances
        .iter()
        .filter(|instance| instance.state == ModelState::Ready && instance.launch.mode == EngineMode::Completion)
        .filter_map(|instance| catalog.get(&instance.model));
    let first = loaded.next()?;
    loaded.next().is_none().then(|| Arc::clone(first))
}

/// The 404 for a name, with the nearest known one.
pub(super) fn not_found(cx: &Cx, name: &str) -> RunnerError {
    let mut error = RunnerError::model_not_found(name);
    if let Some(nearest) = cx.state().registry.catalog().nearest(name) {
        error.message = format!("The model '{name}' was not found. Did you mean '{nearest}'?");
    }
    error.code("model_not_found")
}

/// The model lacks what the request needs (Ollama contract 1.3 has the words).
pub(super) fn require(entry: &ModelEntry, name: &str, any: &[Capability], word: &str) -> Result<(), RunnerError> {
    if any.iter().any(|capability| entry.can(*capability)) {
        return Ok(());
    }
    if entry.is_speech() {
        return Err(only_speech(entry, name));
    }
    let mut error = RunnerError::new(ErrorKind::NotCapable, format!("\"{name}\" does not support {word}"));
    error.model = Some(name.to_owned());
    Err(error.param("model"))
}

/// Did the engine end, rather than say what is wrong? Another process of it may do better.
pub(super) fn broke_off(error: &RunnerError) -> bool {
    error.kind == ErrorKind::EngineFailed && matches!(error.code.as_deref(), None | Some("engine_stopping"))
}

/// What somebody hears who asks a speech model for text work.
fn only_speech(entry: &ModelEntry, name: &str) -> RunnerError {
    let (kind, instead) = if entry.can(Capability::Speech) {
        ("text-to-speech", "send text to /v1/audio/speech")
    } else {
        ("speech-to-text", "send recordings to /v1/audio/transcriptions")
    };
    let text = format!("\"{name}\" is a {kind} model, which can neither chat nor complete nor embed: {instead}");
    let mut error = RunnerError::new(ErrorKind::NotCapable, text);
    error.model = Some(name.to_owned());
    error.param("model")
}

/// A chat whose images the engine can read.
pub(crate) async fn readable(mut request: ChatRequest) -> Result<ChatRequest, RunnerError> {
    if !images::needs_fit(&request) {
        return Ok(request);
    }
    let fitted = tokio::task::spawn_blocking(move || images::fit(&mut request).map(|()| request)).await;
    fitted.map_err(|_| unread())?
}

/// The same for the body of a chat that is relayed.
pub(super) async fn readable_body(body: Bytes) -> Result<Bytes, RunnerError> {
    if !images::body_needs_fit(&body) {
        return Ok(body);
    }
    let fitted = tokio::task::spawn_blocking(move || images::fit_body(&body)).await;
    fitted.map_err(|_| unread())?.map(Bytes::from)
}

fn unread() -> RunnerError {
    RunnerError::internal("Reading an image failed.")
}

/// What a request says about loading.
#[derive(Default)]
pub(super) struct Wish {
    pub(super) launch: LaunchOptions,
    pub(super) keep_alive: Option<KeepAlive>,
    /// LM Studio's `ttl`: counts only if this request loads the model.
    pub(super) ttl: Option<Duration>,
}

/// `?autoload=false`: only a loaded model answers (llama-server's router).
fn autoload(cx: &Cx, parts: &Parts, entry: &ModelEntry) -> Result<(), RunnerError> {
    let wanted = query(parts, "autoload").is_none_or(|value| matches!(value.as_str(), "" | "true" | "1"));
    if wanted || cx.state().router.look(entry.instance_key()).is_some() {
        return Ok(());
    }
    let mut error = RunnerError::new(ErrorKind::NotLoaded, "model is not loaded");
    error.model = Some(entry.key.to_string());
    Err(error)
}

/// Gets the right to one slot of the model's engine, loading it if need be.
pub(super) async fn lease(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>, wish: Wish) -> Result<Lease, RunnerError> {
    let request = lease_request(cx, parts, entry, wish)?;
    let lease = cx.state().router.lease(request).await.map_err(|error| {
        let (state, _) = cx.state().router.status(entry.instance_key());
        let _ = cx.refused_in.set(status_word(&state));
        if is_jit(cx) {
            load_failed(cx.state(), entry, error)
        } else {
            error
        }
    })?;
    let _ = cx.granted.set(granted(&lease));
    Ok(lease)
}

/// [`lease`] for work that needs no slot of the engine, such as counting tokens: while all slots are busy it goes past them.
pub(super) async fn lease_beside(
    cx: &Cx,
    parts: &Parts,
    entry: &Arc<ModelEntry>,
    wish: Wish,
) -> Result<Lease, RunnerError> {
    let router = &cx.state().router;
    let (state, instance) = router.status(entry.instance_key());
    let busy = instance.is_some_and(|instance| instance.active >= instance.launch.parallel);
    if state == ModelState::Ready
        && busy
        && let Some(look) = router.look(entry.instance_key())
    {
        return Ok(look);
    }
    lease(cx, parts, entry, wish).await
}

/// What the answer's head says about a lease.
pub(super) fn granted(lease: &Lease) -> Granted {
    Granted {
        id: lease.request_id(),
        queued: lease.waited().saturating_sub(lease.load_time()),
        load: lease.load_time(),
        context: lease.launch().context,
        first_byte: Arc::default(),
    }
}

/// The wish for a lease by the rules of the listener and dialect.
pub(super) fn lease_request(
    cx: &Cx,
    parts: &Parts,
    entry: &Arc<ModelEntry>,
    wish: Wish,
) -> Result<LeaseRequest, RunnerError> {
    // Said before its engine is started, which knows no such work.
    if entry.is_speech() && !wish.launch.mode.is_some_and(EngineMode::is_speech) {
        return Err(only_speech(entry, entry.key.as_str()));
    }
    autoload(cx, parts, entry)?;
    let jit = is_jit(cx);
    let mut keep_alive = wish.keep_alive;
    if jit {
        let rules = &cx.settings.lmstudio_port;
        let is_loaded = || {
            !matches!(
                cx.state().router.state(entry),
                ModelState::Unloaded | ModelState::Failed(_)
            )
        };
        if !rules.jit && !is_loaded() {
            return Err(RunnerError::new(
                ErrorKind::NotLoaded,
                format!(
                    "No models loaded. Load '{}' first, or switch on just-in-time loading.",
                    entry.key
                ),
            ));
        }
        // The scheduler lets it count only for the request that loads the model.
        keep_alive = keep_alive.or(Some(KeepAlive::For(wish.ttl.unwrap_or(rules.default_ttl))));
    }
    Ok(LeaseRequest {
        model: Arc::clone(entry),
        launch: wish.launch,
        keep_alive,
        jit,
        operation: operation(cx.route.operation, cx.route.dialect),
        client: client(cx, parts),
        id: cx.given_number(),
    })
}

/// A load that failed, in LM Studio's words: with the last lines of the engine's log (LM Studio contract 8), without the
/// paths in them (promise H10).
pub(super) fn load_failed(state: &ApiState, entry: &ModelEntry, mut error: RunnerError) -> RunnerError {
    if error.kind != ErrorKind::EngineFailed {
        return error;
    }
    if let (ModelState::Failed(report), _) = state.router.status(&entry.key) {
        for line in report.log.iter().rev().take(FAILURE_LINES).rev() {
            error.message.push('\n');
            error.message.push_str(&domain::without_paths(line));
        }
    }
    error.code("model_load_failed")
}

fn client(cx: &Cx, parts: &Parts) -> String {
    let agent = parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    match agent {
        // Header text is ASCII, so bytes are characters.
        Some(agent) if !agent.is_empty() => agent[..agent.len().min(CLIENT_NAME)].to_owned(),
        _ => cx.connection.peer.ip().to_string(),
    }
}

/// What the window shows for a request.
fn operation(operation: Op, dialect: Dialect) -> &'static str {
    match (operation, dialect) {
        (Op::OllamaGenerate, _) => "ollama generate",
        (Op::OllamaChat, _) => "ollama chat",
        (Op::OllamaEmbed | Op::OllamaEmbeddings, _) => "ollama embed",
        (Op::ChatCompletions, _) => "openai chat",
        (Op::Completions, _) => "openai completion",
        (Op::Embeddings, _) => "openai embeddings",
        (Op::Rerank, _) => "rerank",
        (Op::Transcriptions, _) => "transcription",
        (Op::Translations, _) => "translation",
        (Op::Speech, _) => "speech",
        (Op::V0ChatCompletions | Op::V1Chat, _) => "lmstudio chat",
        (Op::V0Completions, _) => "lmstudio completion",
        (Op::V0Embeddings, _) => "lmstudio embeddings",
        (_, dialect) => dialect.as_str(),
    }
}

/// What of a request goes along to the engine.
#[derive(Clone, Default)]
pub(crate) struct Passed {
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Passed {
    pub(super) fn of(cx: &Cx) -> Self {
        Self {
            request_id: cx.request_id(),
            traceparent: cx.traceparent.clone(),
        }
    }
}

/// The engine behind a lease. Owned, so that a stream can still ask after its handler has returned.
pub(crate) struct EngineCalls {
    lease: Lease,
    passed: Passed,
    first_byte: Option<Arc<OnceLock<Duration>>>,
}

impl EngineCalls {
    pub(super) fn new(cx: &Cx, lease: &Lease) -> Self {
        Self {
            lease: lease.clone(),
            passed: Passed::of(cx),
            first_byte: cx.granted.get().map(|granted| Arc::clone(&granted.first_byte)),
        }
    }

    /// For a lease that the request's handler does not wait for.
    pub(crate) fn with(lease: &Lease, passed: Passed) -> Self {
        Self {
            lease: lease.clone(),
            passed,
            first_byte: None,
        }
    }

    /// Sends a JSON body to the engine; an error status becomes an error.
    pub(crate) async fn send(&self, path: &str, body: impl Into<Bytes>) -> Result<Response<UpstreamBody>, RunnerError> {
        let response = self.relay(Method::POST, path, body.into()).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.into_body().collect_bytes(MAX_ERROR).await?;
        Err(engine::error_from_response(status.as_u16(), &text))
    }

    /// Sends a request to the engine; its answer may be an error.
    pub(super) async fn relay(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<UpstreamBody>, RunnerError> {
        let json = HeaderValue::from_static("application/json");
        let content_type = (method == Method::POST).then_some(json);
        self.exchange(method, path, content_type, body, None).await
    }

    /// Sends a form with a file to the engine; its answer may be an error.
    pub(super) async fn relay_form(
        &self,
        path: &str,
        content_type: HeaderValue,
        before: Bytes,
        file: Attached,
    ) -> Result<Response<UpstreamBody>, RunnerError> {
        self.exchange(Method::POST, path, Some(content_type), before, Some(file))
            .await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: Option<HeaderValue>,
        body: Bytes,
        attached: Option<Attached>,
    ) -> Result<Response<UpstreamBody>, RunnerError> {
        let mut headers = HeaderMap::with_capacity(4);
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if let Some(id) = &self.passed.request_id {
            headers.insert(HeaderName::from_static("x-request-id"), id.clone());
        }
        if let Some(trace) = &self.passed.traceparent {
            headers.insert(HeaderName::from_static("traceparent"), trace.clone());
        }
        let request = UpstreamRequest {
            method,
            path: path.to_owned(),
            headers,
            body,
            attached,
        };
        // What only prepares the answer is not its first byte.
        let counted = ![
            engine::APPLY_TEMPLATE,
            engine::COUNT_CHAT,
            engine::TOKENIZE,
            engine::DETOKENIZE,
        ]
        .contains(&path);
        let asked = Instant::now();
        let mut response = self.lease.send(request).await?;
        if counted && let Some(first_byte) = &self.first_byte {
            response.body_mut().tell_first_byte(asked, Arc::clone(first_byte));
        }
        Ok(response)
    }

    /// Sends a JSON body to the engine and reads the whole answer.
    pub(crate) async fn ask(&self, path: &str, body: impl Into<Bytes>) -> Result<Bytes, RunnerError> {
        self.send(path, body).await?.into_body().collect_bytes(MAX_ANSWER).await
    }

    /// The prompt that the model's template makes of a chat.
    pub(crate) async fn render(&self, request: &ChatRequest) -> Result<String, RunnerError> {
        engine::parse_prompt(
            &self
                .ask(engine::APPLY_TEMPLATE, engine::apply_template_body(request)?)
                .await?,
        )
    }

    pub(crate) async fn tokenize(&self, text: &str, special: bool) -> Result<Vec<i64>, RunnerError> {
        engine::parse_tokens(&self.ask(engine::TOKENIZE, engine::tokenize_body(text, special)).await?)
    }

    pub(super) async fn detokenize(&self, tokens: &[i64]) -> Result<String, RunnerError> {
        engine::parse_content(&self.ask(engine::DETOKENIZE, engine::detokenize_body(tokens)).await?)
    }
}
