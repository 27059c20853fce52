//! The protocol of LM Studio's libraries (LM Studio contract 10).

use domain::{ErrorKind, RunnerError};
use http::request::Parts;

use crate::dispatch::Cx;
use crate::handlers::Answer;

/// Turns the connection into a WebSocket of one namespace.
#[expect(clippy::unnecessary_wraps, reason = "filled in by its owner")]
pub(crate) fn upgrade(_cx: &Cx, _parts: &Parts) -> Answer {
    Err(RunnerError::new(ErrorKind::Unsupported, "Not served yet."))
}
