//! `/v1/audio/speech`, `/v1/audio/voices`, `/v1/audio/models` (audio contract 4).

use domain::{ErrorKind, RunnerError};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::body::Body;
use crate::dispatch::Cx;

pub(crate) async fn run(_cx: &Cx, _parts: &Parts, _body: Incoming) -> Result<Response<Body>, RunnerError> {
    Err(RunnerError::new(ErrorKind::Unsupported, "Speech is being built."))
}
