//! OpenAI routes: passed through to the engine, with our checks before, our error envelope, and the merged model object.
use crate::{
    ModelView, Rendered,
    peek::{Key, Peeked},
};
use domain::RunnerError;

/// The error as `{"error":{"message","type","param","code"}}` with its status.
pub fn error(_error: &RunnerError) -> Rendered {
    Rendered::json(500, Vec::new())
}

/// How an error inside a stream is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamErrorForm {
    /// `data: {"error":{…}}`, then the connection ends without `[DONE]`.
    OpenAi,
    /// LM Studio: `event: error` with `data: {"error":{…},"message":"…"}`, then `data: [DONE]`.
    LmStudio,
}
/// Appends the error frame.
pub fn stream_error(_error: &RunnerError, _form: StreamErrorForm, _out: &mut Vec<u8>) {}

/// Watches relayed SSE bytes (never changes them), so that a cut stream can be told from a complete one. Costs a few
/// bytes compared per chunk.
#[derive(Debug, Default)]
pub struct RelayTail {}
impl RelayTail {
    /// A watcher for one stream.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sees a relayed chunk.
    pub fn observe(&mut self, _chunk: &[u8]) {}
    /// `data: [DONE]` (or an error event of the engine) was seen.
    pub fn complete(&self) -> bool {
        false
    }
    /// What must follow when the engine's body ended: nothing when complete, else the error frame.
    pub fn finish(&mut self, _form: StreamErrorForm, _out: &mut Vec<u8>) {}
    /// Ends the open line, if any, and writes the error frame.
    pub fn fail(&mut self, _error: &RunnerError, _form: StreamErrorForm, _out: &mut Vec<u8>) {}
}

/// Changes to make to a body before it is relayed; use with [`crate::peek::rewrite`].
pub type Edits = Vec<(Key, Vec<u8>)>;
/// Checks a chat body where the engine is wrong or would be hurt (promise H8). Ok holds the clamps to apply.
pub fn check_chat(_peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    Ok(Vec::new())
}
/// Checks a `/v1/completions` body.
pub fn check_completion(_peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    Ok(Vec::new())
}
/// Checks a `/v1/embeddings` body.
pub fn check_embeddings(_peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    Ok(Vec::new())
}
/// Checks a rerank body.
pub fn check_rerank(_peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    Ok(Vec::new())
}
/// The engine's rerank answer with both `results[]` and `data[]` (management contract 6.1); documents come from the request.
pub fn rerank_response(_request: &[u8], _response: &[u8]) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}

/// Options of the model list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelListOptions {
    /// Show file paths (management callers or loopback only).
    pub show_path: bool,
    /// Bare `/models`: `owned_by` is the publisher and llama.cpp's `models` list is added.
    pub bare: bool,
}
/// `{object:"list", data:[…]}` of merged model objects (management contract 6.2), sorted by id.
pub fn models_list(_models: &[ModelView], _options: ModelListOptions) -> Vec<u8> {
    Vec::new()
}
/// One merged model object; `id` as the caller asked for it.
pub fn model_one(_model: &ModelView, _id: &str, _options: ModelListOptions) -> Vec<u8> {
    Vec::new()
}
