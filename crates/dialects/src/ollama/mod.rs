//! Ollama's `/api/*` (contract `compat/ollama.md` 1-6).
use crate::{
    Clock, ModelView, Rendered, Transcoder,
    engine::{Answer, Embeddings, Wire},
};
use domain::{
    Capabilities, KeepAlive, LaunchOptions, ModelEntry, RunnerError,
    chat::{ChatRequest, CompletionRequest, Usage},
};
use serde_json::{Map, Value};
use std::time::Duration;

/// Which route, because error words differ per route (contract 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the route of the same name")]
pub enum Route {
    Generate,
    Chat,
    Embed,
    Embeddings,
    Show,
    Copy,
    Delete,
    Create,
    Pull,
    Push,
    Other,
}

/// The error as `{"error":"text"}`, or the plain texts of 404 and 405 for unknown paths and methods.
pub fn error(_error: &RunnerError, _route: Route) -> Rendered {
    Rendered::json(500, Vec::new())
}
/// The error for a name the registry does not know: empty, badly formed, or not installed (contract 1.2 table).
pub fn unknown_model(name: &str, _route: Route) -> RunnerError {
    RunnerError::model_not_found(name)
}
/// The name without `:local` and white space, ready for the registry.
///
/// # Errors
/// `InvalidRequest` for `:local` together with `:cloud`.
pub fn lookup_name(name: &str) -> Result<String, RunnerError> {
    Ok(name.to_owned())
}
/// The display form with its tag, as lists show it.
pub fn display_name(entry: &ModelEntry) -> String {
    entry.key.to_string()
}

/// What a generate or chat request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan<T> {
    /// Empty prompt or messages: load, then answer [`load_reply`].
    Load,
    /// The same with `keep_alive` 0: unload, then answer [`load_reply`]; 200 even if it was not loaded.
    Unload,
    /// Generate.
    Run(T),
}

/// A parsed `/api/chat` body. Errors of `think`, `keep_alive` and `top_logprobs` are found here, before the model is looked up.
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// `model` as written; replies repeat it verbatim.
    pub model: String,
    /// `stream`, true when absent.
    pub stream: bool,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    body: Map<String, Value>,
}
impl ChatCall {
    /// Parses the body.
    pub fn parse(_body: &[u8]) -> Result<Self, RunnerError> {
        Err(RunnerError::internal("todo"))
    }
    /// The rest of the checks, now that the model is known.
    pub fn plan(self, _entry: &ModelEntry) -> Result<Plan<ChatJob>, RunnerError> {
        let _ = self.body;
        Ok(Plan::Load)
    }
}
/// A chat to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatJob {
    /// What to send with [`crate::engine::chat_body`].
    pub request: ChatRequest,
    /// Launch wishes from `options` and `shift`.
    pub launch: LaunchOptions,
    /// Drop old messages when the prompt does not fit; false: answer 400.
    pub truncate: bool,
    /// `_debug_render_only`: answer [`render_only_reply`] with the rendered template, no inference.
    pub render_only: bool,
    /// Alternatives per token to show (0: only the token itself).
    pub top_logprobs: u32,
}

/// A parsed `/api/generate` body.
#[derive(Debug, Clone)]
pub struct GenerateCall {
    /// `model` as written.
    pub model: String,
    /// `stream`, true when absent.
    pub stream: bool,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    body: Map<String, Value>,
}
impl GenerateCall {
    /// Parses the body.
    pub fn parse(_body: &[u8]) -> Result<Self, RunnerError> {
        Err(RunnerError::internal("todo"))
    }
    /// The rest of the checks, now that the model is known.
    pub fn plan(self, _entry: &ModelEntry) -> Result<Plan<GenerateJob>, RunnerError> {
        let _ = self.body;
        Ok(Plan::Load)
    }
}
/// A generation to run.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateJob {
    /// How to run it.
    pub mode: GenerateMode,
    /// Launch wishes.
    pub launch: LaunchOptions,
    /// As in [`ChatJob::truncate`].
    pub truncate: bool,
    /// As in [`ChatJob::render_only`].
    pub render_only: bool,
    /// As in [`ChatJob::top_logprobs`].
    pub top_logprobs: u32,
}
/// The engine routes behind `/api/generate`.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerateMode {
    /// Templated: `engine::chat_body` to `engine::CHAT` ([`Wire::Chat`]). For `context` in the final line: render the same
    /// request with `engine::apply_template_body`, tokenize prompt + reply, `GenerateStream::set_context`.
    Chat(ChatRequest),
    /// `raw`, or a model without a chat template: `engine::completion_body` to `engine::COMPLETION` ([`Wire::Completion`]).
    Raw(CompletionRequest),
    /// `suffix`: `engine::infill_body` to `engine::INFILL` ([`Wire::Completion`]).
    Infill(CompletionRequest),
    /// `context` given: detokenize it, render `chat` with the template, join (see [`continue_prompt`]), then as `Raw`.
    Continue {
        /// The new turn.
        chat: ChatRequest,
        /// Tokens of the earlier reply.
        context: Vec<i64>,
    },
}
impl GenerateMode {
    /// The engine stream form of this mode.
    pub fn wire(&self) -> Wire {
        Wire::Chat
    }
}
/// The completion request for [`GenerateMode::Continue`]: earlier text, then the rendered new turn.
pub fn continue_prompt(_chat: &ChatRequest, _earlier: &str, _rendered: &str) -> CompletionRequest {
    CompletionRequest::default()
}

/// What every reply of one request shares.
#[derive(Clone)]
pub struct ReplyHead {
    /// `model` as the caller wrote it.
    pub model: String,
    /// Clock for `created_at` and `total_duration`.
    pub clock: Clock,
    /// When the request arrived, by the same clock.
    pub started_ns: i64,
    /// Arrival to runner ready.
    pub load: Duration,
    /// [`ChatJob::top_logprobs`].
    pub top_logprobs: u32,
}

/// Which of the two reply shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// `done_reason` of a reply without generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadReason {
    /// The model was loaded.
    Load,
    /// The model was unloaded.
    Unload,
}
/// The single object of a load or unload (one JSON object even for streams).
pub fn load_reply(_shape: Shape, _head: &ReplyHead, _reason: LoadReason) -> Vec<u8> {
    Vec::new()
}
/// The answer to `_debug_render_only`.
pub fn render_only_reply(_shape: Shape, _head: &ReplyHead, _prompt: &str, _images: usize) -> Vec<u8> {
    Vec::new()
}
/// The single object of `stream:false`.
///
/// # Errors
/// `EngineFailed` when a tool call's arguments are not a JSON object.
pub fn reply(
    _shape: Shape,
    _head: &ReplyHead,
    _answer: &Answer,
    _context: Option<&[i64]>,
) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}

/// Engine stream to NDJSON lines of `/api/chat` or `/api/generate`. The final line is written by `finish`.
pub struct ReplyStream {
    usage: Option<Usage>,
}
impl ReplyStream {
    /// For one request.
    pub fn new(_shape: Shape, _wire: Wire, _head: ReplyHead) -> Self {
        Self { usage: None }
    }
    /// The reply so far (reasoning left out), for the `context` of the final line. Kept for `Shape::Generate` only.
    pub fn text(&self) -> &str {
        ""
    }
    /// Tokens of prompt and reply for the final line of generate.
    pub fn set_context(&mut self, _tokens: Vec<i64>) {}
}
impl Transcoder for ReplyStream {
    fn push(&mut self, _chunk: &[u8], _out: &mut Vec<u8>) {}
    fn finish(&mut self, _out: &mut Vec<u8>) {}
    fn fail(&mut self, _error: &RunnerError, _out: &mut Vec<u8>) {}
    fn ended(&self) -> bool {
        false
    }
    fn error(&self) -> Option<&RunnerError> {
        None
    }
    fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }
}

/// A parsed `/api/embed` or `/api/embeddings` body.
#[derive(Debug, Clone)]
pub struct EmbedCall {
    /// `model` as written.
    pub model: String,
    /// Texts; empty: load only.
    pub input: Vec<String>,
    /// Cut inputs that are too long; false: answer 400.
    pub truncate: bool,
    /// Cut vectors to this many dimensions.
    pub dimensions: Option<usize>,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    /// Launch wishes from `options`.
    pub launch: LaunchOptions,
}
impl EmbedCall {
    /// Parses `/api/embed`.
    pub fn parse(_body: &[u8]) -> Result<Self, RunnerError> {
        Err(RunnerError::internal("todo"))
    }
    /// Parses the legacy `/api/embeddings`.
    pub fn parse_legacy(_body: &[u8]) -> Result<Self, RunnerError> {
        Err(RunnerError::internal("todo"))
    }
    /// Should the engine normalise? False for the legacy route.
    pub fn normalize(&self) -> bool {
        true
    }
    /// The reply, normalised (not for legacy), cut to `dimensions`.
    ///
    /// # Errors
    /// `InvalidRequest` for NaN or infinite values.
    pub fn reply(&self, _head: &ReplyHead, _embeddings: Embeddings) -> Result<Vec<u8>, RunnerError> {
        Ok(Vec::new())
    }
    /// The engine's too-long errors become the contract's text.
    pub fn engine_error(&self, error: RunnerError) -> RunnerError {
        error
    }
}

/// A parsed `/api/show` body.
#[derive(Debug, Clone)]
pub struct ShowCall {
    /// `model` (or `name`).
    pub model: String,
    /// `verbose`.
    pub verbose: bool,
    /// `system`, for the rendered `modelfile`.
    pub system: Option<String>,
    /// `template`, for the rendered `modelfile`.
    pub template: Option<String>,
    /// `options`, for the rendered `modelfile`.
    pub options: Map<String, Value>,
}
impl ShowCall {
    /// Parses the body.
    pub fn parse(_body: &[u8]) -> Result<Self, RunnerError> {
        Err(RunnerError::internal("todo"))
    }
    /// The reply. `copilot`: the user agent starts with `GitHubCopilotChat/`.
    pub fn reply(&self, _entry: &ModelEntry, _header: &ModelHeader, _copilot: bool) -> Vec<u8> {
        Vec::new()
    }
}
/// What `/api/show` needs from the GGUF header beyond the entry's facts.
#[derive(Debug, Clone, Default)]
pub struct ModelHeader {
    /// All metadata in file order; long arrays may be left as `null` unless `verbose` was asked.
    pub metadata: Map<String, Value>,
    /// The projector's metadata.
    pub projector: Option<Map<String, Value>>,
    /// `tokenizer.chat_template`.
    pub template: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// Tensors as (name, type, shape).
    pub tensors: Vec<(String, String, Vec<u64>)>,
}

/// `/api/tags`.
pub fn tags(_models: &[ModelView]) -> Vec<u8> {
    Vec::new()
}
/// `/api/ps`; `now_ms` is Unix milliseconds.
pub fn ps(_models: &[ModelView], _now_ms: i64) -> Vec<u8> {
    Vec::new()
}
/// `/api/version`. `llamarunner`: our own version, added beside.
pub fn version(_version: &str, _llamarunner: &str) -> Vec<u8> {
    Vec::new()
}
/// Capability words as `/api/tags` and `/api/show` use them.
pub fn capability_words(_capabilities: Capabilities) -> Vec<&'static str> {
    Vec::new()
}
