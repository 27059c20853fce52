use domain::RunnerError;

use super::error::{Route, status_and_text};
use super::reply::{Line, ReplyHead, Shape};
use crate::{Rendered, StreamForm, ndjson};

/// A stream of `/api/chat` or `/api/generate` around its lines. Its keep-alive is a line with nothing in it: blank lines and
/// comments do not exist in this form, and clients put the texts of all lines together.
pub struct ReplyForm {
    line: Line,
}

impl ReplyForm {
    /// For one request.
    pub fn new(shape: Shape, head: &ReplyHead) -> Self {
        Self {
            line: Line::new(shape, head),
        }
    }
}

impl StreamForm for ReplyForm {
    fn content_type(&self) -> &'static str {
        Rendered::NDJSON
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        self.line.text("", out);
        out.extend_from_slice(b"}\n");
    }

    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        let route = match self.line.shape() {
            Shape::Chat => Route::Chat,
            Shape::Generate => Route::Generate,
        };
        ndjson::write_error(&status_and_text(error, route).1, out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_that_change_no_answer() {
        for (shape, line) in [
            (
                Shape::Chat,
                r#"{"model":"m","created_at":"1970-01-01T00:00:00.000000001Z","message":{"role":"assistant","content":""},"done":false}"#,
            ),
            (
                Shape::Generate,
                r#"{"model":"m","created_at":"1970-01-01T00:00:00.000000001Z","response":"","done":false}"#,
            ),
        ] {
            let head = ReplyHead {
                model: "m".into(),
                clock: Arc::new(|| 1),
                started_ns: 0,
                load: Duration::ZERO,
                top_logprobs: 0,
            };
            let form = ReplyForm::new(shape, &head);
            let mut out = Vec::new();
            form.keep_alive(&mut out);
            form.fail(&RunnerError::invalid("no"), &mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("{line}\n{{\"error\":\"no\"}}\n")
            );
        }
    }
}
