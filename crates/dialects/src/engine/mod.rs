//! llama-server's wire form: requests rendered from the domain form, streams and answers decoded into it.
//!
//! Paths: [`CHAT`], [`COMPLETION`], [`INFILL`], [`APPLY_TEMPLATE`], [`TOKENIZE`], [`DETOKENIZE`], [`EMBEDDINGS`].
use domain::{
    RunnerError,
    chat::{ChatRequest, CompletionRequest, FinishReason, GenerationEvent, TokenLogprob, ToolCall, Usage},
};
use std::time::Duration;

/// Path for [`chat_body`].
pub const CHAT: &str = "/v1/chat/completions";
/// Path for [`completion_body`].
pub const COMPLETION: &str = "/completion";
/// Path for [`infill_body`].
pub const INFILL: &str = "/infill";
/// Path for [`apply_template_body`].
pub const APPLY_TEMPLATE: &str = "/apply-template";
/// Path for [`tokenize_body`].
pub const TOKENIZE: &str = "/tokenize";
/// Path for [`detokenize_body`].
pub const DETOKENIZE: &str = "/detokenize";
/// Path for [`embeddings_body`].
pub const EMBEDDINGS: &str = "/v1/embeddings";

/// Facts of the running instance that bound a request (promise H8).
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Context per request in tokens; `n_predict` is bounded to ten times this.
    pub context: Option<u32>,
}

/// Body for `/v1/chat/completions`, always streaming.
pub fn chat_body(_request: &ChatRequest, _limits: Limits) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}
/// Body for `/completion`, always streaming.
pub fn completion_body(_request: &CompletionRequest, _limits: Limits) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}
/// Body for `/infill`, always streaming. `suffix` must be present.
pub fn infill_body(_request: &CompletionRequest, _limits: Limits) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}
/// Body for `/apply-template`; the answer is read by [`parse_prompt`].
pub fn apply_template_body(_request: &ChatRequest) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}
/// `{"prompt": "..."}` of `/apply-template`.
pub fn parse_prompt(_body: &[u8]) -> Result<String, RunnerError> {
    Ok(String::new())
}
/// Body for `/tokenize`. `special`: add BOS as the model wants it. Special tokens in the text are always parsed.
pub fn tokenize_body(_text: &str, _special: bool) -> Vec<u8> {
    Vec::new()
}
/// `{"tokens": [...]}` of `/tokenize`.
pub fn parse_tokens(_body: &[u8]) -> Result<Vec<i64>, RunnerError> {
    Ok(Vec::new())
}
/// Body for `/detokenize`.
pub fn detokenize_body(_tokens: &[i64]) -> Vec<u8> {
    Vec::new()
}
/// `{"content": "..."}` of `/detokenize`.
pub fn parse_content(_body: &[u8]) -> Result<String, RunnerError> {
    Ok(String::new())
}
/// Body for `/v1/embeddings`. `normalize` false: raw vectors (Ollama's legacy route).
pub fn embeddings_body(_input: &[String], _normalize: bool) -> Vec<u8> {
    Vec::new()
}
/// Vectors in input order with the prompt token count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// One vector per input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: u64,
}
/// Reads the answer of `/v1/embeddings`.
pub fn parse_embeddings(_body: &[u8]) -> Result<Embeddings, RunnerError> {
    Ok(Embeddings::default())
}
/// The engine answered with an error status: its words, unwrapped; the context overflow becomes `ContextExceeded`.
pub fn error_from_response(_status: u16, _body: &[u8]) -> RunnerError {
    RunnerError::internal("engine")
}

/// Which stream form the engine sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `/v1/chat/completions`.
    Chat,
    /// `/completion` and `/infill`.
    Completion,
}

/// Engine stream bytes to events.
pub struct GenerationDecoder {}
impl GenerationDecoder {
    /// A decoder for one stream.
    pub fn new(_wire: Wire) -> Self {
        Self {}
    }
    /// Decodes the next piece.
    pub fn push(&mut self, _chunk: &[u8], _out: &mut Vec<GenerationEvent>) {}
    /// The stream ended: an [`GenerationEvent::Error`] when it was cut.
    pub fn finish(&mut self, _out: &mut Vec<GenerationEvent>) {}
}

/// A whole answer, for replies that are not streamed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Answer text.
    pub text: String,
    /// Reasoning text.
    pub reasoning: String,
    /// Whole tool calls.
    pub tool_calls: Vec<ToolCall>,
    /// Probabilities, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: Option<FinishReason>,
    /// Counts and times.
    pub usage: Usage,
}
/// Collects a stream into an [`Answer`].
pub struct AnswerCollector {
    answer: Answer,
}
impl AnswerCollector {
    /// For one stream.
    pub fn new(_wire: Wire) -> Self {
        Self {
            answer: Answer::default(),
        }
    }
    /// Next piece of the engine's body.
    pub fn push(&mut self, _chunk: &[u8]) {}
    /// The engine's body ended.
    ///
    /// # Errors
    /// The error the engine reported in mid-stream, or `EngineFailed` when the stream was cut.
    pub fn finish(self) -> Result<Answer, RunnerError> {
        Ok(self.answer)
    }
}
/// Drops the oldest message that is neither a system message nor the last one (Ollama contract 4.2). False: nothing left to drop.
pub fn drop_oldest(_request: &mut ChatRequest) -> bool {
    false
}
/// Time as nanoseconds, the unit of Ollama's metrics.
pub(crate) fn _nanos(d: Duration) -> u64 {
    d.as_nanos() as u64
}
