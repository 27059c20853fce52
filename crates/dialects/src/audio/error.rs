//! Errors of the audio routes: OpenAI's body with the codes of the audio contract 6.

use domain::{ErrorKind, RunnerError};

use crate::{Rendered, openai};

/// Status and body. Codes that say more than their kind (`engine_not_installed`, `unsupported_content_type`, …) choose the
/// status; else a full queue is 429 and a broken engine 502 here.
pub fn error(error: &RunnerError) -> Rendered {
    let status = match (error.code.as_deref(), &error.kind) {
        (Some("engine_not_installed" | "engine_starting"), _) => Some(503),
        (Some("unsupported_content_type"), _) => Some(415),
        (_, ErrorKind::Overloaded { .. }) => Some(429),
        (_, ErrorKind::EngineFailed) => Some(502),
        _ => None,
    };
    let mut rendered = openai::error(&named(error));
    if let Some(status) = status {
        rendered.status = status;
    }
    rendered
}

/// The error with the audio routes' own word for its kind, where it has none yet.
pub(super) fn named(error: &RunnerError) -> RunnerError {
    let code = match &error.kind {
        ErrorKind::Overloaded { .. } => Some("queue_full"),
        ErrorKind::EngineFailed => Some("engine_failed"),
        ErrorKind::NotCapable => Some("model_not_supported"),
        _ => None,
    };
    let mut named = error.clone();
    named.code = named.code.or_else(|| code.map(str::to_owned));
    named
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statuses() {
        let of = |error: RunnerError| {
            let rendered = super::error(&error);
            let body: serde_json::Value = serde_json::from_slice(&rendered.body).unwrap();
            (rendered.status, body["error"]["code"].as_str().unwrap().to_owned())
        };
        let retry_after = Duration::from_secs(3);
        for (error, expected) in [
            (RunnerError::invalid("x").code("empty_file"), (400, "empty_file")),
            (
                RunnerError::new(ErrorKind::Overloaded { retry_after }, "x"),
                (429, "queue_full"),
            ),
            (RunnerError::new(ErrorKind::EngineFailed, "x"), (502, "engine_failed")),
            (
                RunnerError::new(ErrorKind::EngineFailed, "x").code("engine_not_installed"),
                (503, "engine_not_installed"),
            ),
            (
                RunnerError::invalid("x").code("unsupported_content_type"),
                (415, "unsupported_content_type"),
            ),
            (
                RunnerError::new(ErrorKind::TooLarge, "x").code("file_too_large"),
                (413, "file_too_large"),
            ),
            (
                RunnerError::new(ErrorKind::NotCapable, "x"),
                (400, "model_not_supported"),
            ),
        ] {
            assert_eq!(of(error), (expected.0, expected.1.to_owned()));
        }
    }
}
