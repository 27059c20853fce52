//! LM Studio's REST API v0 and its error forms (contract `compat/lmstudio.md` 2, 3, 6, 8).
use crate::{Clock, ModelView, Rendered, Transcoder};
use domain::{RunnerError, chat::Usage};
use std::time::Duration;
/// The error in LM Studio's form (contract 8). `legacy_strings`: `{"error":"text"}` for bad parameters.
pub fn error(_error: &RunnerError, _legacy_strings: bool) -> Rendered {
    Rendered::json(500, Vec::new())
}
/// `{"error":"Unexpected endpoint or method. (GET /foo)"}`.
pub fn unexpected_endpoint(_method: &str, _path_and_query: &str, _status: u16) -> Rendered {
    Rendered::json(404, Vec::new())
}
/// Is the key prefixed with `text-embedding-` (embedding models)? The id as LM Studio lists show it.
pub fn model_id(model: &ModelView) -> String {
    model.entry.key.to_string()
}
/// `GET /api/v0/models`. `only_loaded`: JIT loading is off.
pub fn models_list(_models: &[ModelView], _only_loaded: bool) -> Vec<u8> {
    Vec::new()
}
/// `GET /api/v0/models/{model}`: the bare object.
pub fn model_one(_model: &ModelView) -> Vec<u8> {
    Vec::new()
}
/// `GET /v1/models` as LM Studio orders it (loaded first, ids of §2): merged objects of management contract 6.2.
pub fn openai_models(_models: &[ModelView], _only_loaded: bool) -> Vec<u8> {
    Vec::new()
}
/// Facts for the three extra blocks of v0 results.
#[derive(Debug, Clone, Default)]
pub struct V0Facts {
    /// `model_info.arch`.
    pub arch: String,
    /// `model_info.quant`.
    pub quant: String,
    /// Context in effect.
    pub context_length: u32,
    /// `runtime.name`, for example `llama.cpp-linux-x86_64`.
    pub runtime_name: String,
    /// `runtime.version`.
    pub runtime_version: String,
}
impl V0Facts {
    /// From the view of a loaded model.
    pub fn new(_model: &ModelView, _runtime_name: &str, _runtime_version: &str) -> Self {
        Self::default()
    }
}
/// A non-stream chat or completion result with `stats`, `model_info`, `runtime` added. `elapsed`: request sent to answer.
pub fn add_stats(_response: &[u8], _facts: &V0Facts, _elapsed: Duration) -> Result<Vec<u8>, RunnerError> {
    Ok(Vec::new())
}
/// Relays an OpenAI stream, adding the three blocks to the last chunk before `[DONE]`.
pub struct V0Stream {}
impl V0Stream {
    /// For one stream; `clock` measures the time to the first token.
    pub fn new(_facts: V0Facts, _clock: Clock) -> Self {
        Self {}
    }
}
impl Transcoder for V0Stream {
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
        None
    }
}
