use domain::RunnerError;

use crate::{Rendered, sse};

/// The frame of a dialect's stream around its events: what it looks like while there is nothing to send yet, and how it
/// ends when the answer fails before its first event.
pub trait StreamForm: Send + Sync {
    /// Content type of the stream.
    fn content_type(&self) -> &'static str {
        Rendered::SSE
    }

    /// Appends what keeps an idle connection alive and changes no answer: a comment line, which every reader of event
    /// streams skips (HTML standard 9.2.6), unless the dialect has something of its own.
    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(sse::KEEP_ALIVE);
    }

    /// Appends the dialect's stream error: nothing of the answer was sent yet, and nothing follows.
    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>);
}
