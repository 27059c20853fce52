//! OpenAI's `/v1/responses`: answers with conversations kept here.

use domain::{ErrorKind, RunnerError};
use http::request::Parts;
use hyper::body::Incoming;

use super::Answer;
use crate::dispatch::Cx;

/// The operations of this family.
#[expect(clippy::unused_async, reason = "filled in by its owner")]
pub(super) async fn run(_cx: &Cx, _parts: &Parts, _body: Incoming) -> Answer {
    Err(RunnerError::new(ErrorKind::Unsupported, "Not served yet."))
}
