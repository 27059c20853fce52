use domain::{ErrorKind, RunnerError, without_paths};
use serde_json::{Value, json};

use crate::{Rendered, json::to_vec, openai};

/// llama-server's word for an error.
fn kind(error: &RunnerError) -> &'static str {
    match &error.kind {
        ErrorKind::ContextExceeded { .. } => "exceed_context_size_error",
        ErrorKind::InvalidRequest
        | ErrorKind::NotCapable
        | ErrorKind::NotLoaded
        | ErrorKind::Conflict
        | ErrorKind::TooLarge
        | ErrorKind::MethodNotAllowed
        | ErrorKind::RateLimited { .. }
        | ErrorKind::Cancelled => "invalid_request_error",
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::ModelNotFound | ErrorKind::NotFound => "not_found_error",
        ErrorKind::Unsupported => "not_supported_error",
        ErrorKind::Overloaded { .. } | ErrorKind::ShuttingDown => "unavailable_error",
        ErrorKind::Engine { status } if (400..500).contains(status) => "invalid_request_error",
        ErrorKind::Engine { .. } | ErrorKind::EngineFailed | ErrorKind::UpstreamTimeout | ErrorKind::Internal => {
            "server_error"
        }
    }
}

/// The `error` member: `code` is the status, as llama-server writes it.
pub fn error_value(error: &RunnerError) -> Value {
    let mut value = json!({
        "code": openai::status(error),
        "message": error.message,
        "type": kind(error),
        "param": error.param,
    });
    if let ErrorKind::ContextExceeded { prompt, context } = error.kind {
        value["n_prompt_tokens"] = prompt.into();
        value["n_ctx"] = context.into();
    }
    value
}

/// The error as `{"error":{"code","message","type","param"}}` with its status.
pub fn error(error: &RunnerError) -> Rendered {
    Rendered {
        retry_after: error.retry_after_seconds(),
        ..Rendered::json(openai::status(error), to_vec(&json!({"error": error_value(error)})))
    }
}

/// May the engine's own error body be passed on? Not when it names a path (promise H10), and not when it is about our key
/// or about an engine that is not ready.
pub fn passes(status: u16, body: &[u8]) -> bool {
    if matches!(status, 401 | 403 | 503) {
        return false;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = value.pointer("/error/message").and_then(Value::as_str);
    message.is_some_and(|message| without_paths(message) == message.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_bodies_pass() {
        let said = |message: &str| json!({"error": {"code": 400, "message": message, "type": "x"}}).to_string();
        assert!(passes(400, said("prompt must not be empty").as_bytes()));
        assert!(!passes(500, said("cannot open '/home/me/m.gguf'").as_bytes()));
        assert!(!passes(401, said("Invalid API Key").as_bytes()));
        assert!(!passes(503, said("Loading model").as_bytes()));
        assert!(!passes(500, b"<html>"));
    }
}
