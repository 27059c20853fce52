use domain::{ErrorKind, RunnerError};
use serde_json::{Value, json};

use crate::{Rendered, json::to_vec, sse};

/// Anthropic's word for a status (Ollama contract 8).
fn kind(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

fn message(error: &RunnerError) -> String {
    match error.kind {
        // Clients shorten the conversation by themselves when they read these words.
        ErrorKind::ContextExceeded { prompt, context } if prompt > 0 => {
            format!("prompt is too long: {prompt} tokens > {context} maximum")
        }
        _ => error.message.clone(),
    }
}

fn value(kind: &str, message: &str, request_id: Option<&str>) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
}

/// `{"type":"error","error":{"type","message"},"request_id"}` for a status and words of our own.
pub fn error_body(status: u16, message: &str, request_id: Option<&str>) -> Vec<u8> {
    to_vec(&value(kind(status), message, request_id))
}

/// The error with its status.
pub fn error(error: &RunnerError, request_id: Option<&str>) -> Rendered {
    let status = crate::openai::status(error);
    Rendered {
        retry_after: error.retry_after_seconds(),
        ..Rendered::json(status, error_body(status, &message(error), request_id))
    }
}

/// Appends `event: error`, the last event of a stream that breaks.
pub fn stream_error(error: &RunnerError, request_id: Option<&str>, out: &mut Vec<u8>) {
    let status = crate::openai::status(error);
    sse::write_event("error", &error_body(status, &message(error), request_id), out);
}
