use domain::{ErrorKind, RunnerError};

/// The engine's HTTP error as our error.
pub fn http_error(status: u16, _body: &[u8]) -> RunnerError {
    RunnerError::new(ErrorKind::Engine { status }, "")
}
