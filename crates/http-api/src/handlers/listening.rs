//! `/v1/audio/transcriptions` and `/v1/audio/translations` (audio contract 1 to 3).

use domain::{ErrorKind, RunnerError};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::body::Body;
use crate::dispatch::Cx;

pub(crate) async fn run(_cx: &Cx, _parts: &Parts, _body: Incoming) -> Result<Response<Body>, RunnerError> {
    Err(RunnerError::new(ErrorKind::Unsupported, "Speech is being built."))
}
