//! The seam for API keys: one function that every request passes on its routed class, never on its URL text (promise S8).

use domain::RunnerError;
use http::request::Parts;

use crate::routes::Class;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// May see file paths: a management caller, or anyone on this machine (management contract 6.2).
    pub(crate) sees_paths: bool,
}

/// Decides whether a caller may use a route of this class. Until keys exist every listener is on loopback
/// (`listener::bind` refuses others, promise S1), so every caller is somebody on this machine and any credential is
/// accepted and ignored, as Ollama and LM Studio do.
#[expect(clippy::unnecessary_wraps, reason = "keys will refuse here")]
pub(crate) fn authorise(_parts: &Parts, _class: Class) -> Result<Caller, RunnerError> {
    Ok(Caller { sees_paths: true })
}
