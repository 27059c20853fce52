use domain::RunnerError;

use super::error::stream_error;
use crate::{StreamForm, sse};

/// A stream of `/v1/messages` around its events. Its keep-alive is the dialect's own `ping`.
pub struct MessageForm {
    /// As in error bodies.
    pub request_id: Option<String>,
}

impl StreamForm for MessageForm {
    fn keep_alive(&self, out: &mut Vec<u8>) {
        sse::write_event("ping", br#"{"type":"ping"}"#, out);
    }

    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        stream_error(error, self.request_id.as_deref(), out);
    }
}
