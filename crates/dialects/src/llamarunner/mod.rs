//! LlamaRunner Pro's own management answers (contract `compat/management.md` 2).
use crate::{ModelView, Rendered};
use domain::LaunchOptions;
use domain::RunnerError;
/// The Pro error envelope (same as `openai::error`).
pub fn error(error: &RunnerError) -> Rendered {
    crate::openai::error(error)
}
/// P2; `id` as asked, `now_ms` Unix milliseconds.
pub fn model_status(_id: &str, _model: &ModelView, _now_ms: i64) -> Vec<u8> {
    Vec::new()
}
/// P3. `show_path`: management callers or loopback.
pub fn model_info(_id: &str, _model: &ModelView, _show_path: bool) -> Vec<u8> {
    Vec::new()
}
/// Body of P4 (may be empty): launch overrides, and `wait`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StartCall {
    /// Overrides.
    pub launch: LaunchOptions,
    /// Answer only once ready.
    pub wait: bool,
}
impl StartCall {
    /// Parses the body.
    pub fn parse(_body: &[u8]) -> Result<Self, RunnerError> {
        Ok(Self::default())
    }
}
/// P4 reply from the state now.
pub fn start_reply(_model: &ModelView) -> Vec<u8> {
    Vec::new()
}
/// `force` of P5 (body may be empty).
pub fn parse_stop(_body: &[u8]) -> Result<bool, RunnerError> {
    Ok(false)
}
/// P5 reply.
pub fn stop_reply() -> Vec<u8> {
    Vec::new()
}
/// P6.
pub fn health(_version: &str, _uptime_s: u64, _now_ms: i64, _draining: bool) -> Rendered {
    Rendered::json(200, Vec::new())
}
/// A listener in P7.
#[derive(Debug, Clone)]
pub struct ProxyView {
    /// `running`, `stopped` or `error`.
    pub status: String,
    /// Port, when bound.
    pub port: Option<u16>,
}
/// Facts of P7.
#[derive(Debug, Clone)]
pub struct SystemView {
    /// Listed models.
    pub models_total: usize,
    /// Loaded ones.
    pub models_loaded: usize,
    /// Bytes resident of all engines.
    pub models_memory: u64,
    /// Port 11434.
    pub ollama: ProxyView,
    /// Port 1234.
    pub lmstudio: ProxyView,
    /// Percent.
    pub cpu_percent: f32,
    /// Bytes in use.
    pub memory_used: u64,
    /// Bytes available.
    pub memory_available: u64,
}
/// P7.
pub fn system_status(_view: &SystemView) -> Vec<u8> {
    Vec::new()
}
/// Facts of P8.
#[derive(Debug, Clone, Default)]
pub struct ServerView {
    /// Product version.
    pub version: String,
    /// For example `Linux-6.1-x86_64`.
    pub platform: String,
    /// Compiler version.
    pub rust_version: String,
    /// llama-server version, when one is found.
    pub llama_server: Option<String>,
    /// faster-whisper version, when one is found.
    pub faster_whisper: Option<String>,
}
/// P8.
pub fn server_info(_view: &ServerView) -> Vec<u8> {
    Vec::new()
}
