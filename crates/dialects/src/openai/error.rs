use domain::{ErrorKind, RunnerError};
use serde_json::{Value, json};

use crate::{Rendered, json::to_vec};

/// Status, `type` and the default `code` of a kind.
struct Words {
    status: u16,
    kind: &'static str,
    code: &'static str,
}

fn words(error: &RunnerError) -> Words {
    const CALLER: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    let (status, kind, code) = match &error.kind {
        ErrorKind::InvalidRequest => (400, CALLER, "invalid_request"),
        ErrorKind::Unauthenticated => (401, CALLER, "invalid_api_key"),
        ErrorKind::Forbidden => (403, CALLER, "permission_denied"),
        ErrorKind::ModelNotFound => (404, CALLER, "model_not_found"),
        ErrorKind::NotFound => (404, CALLER, "not_found"),
        ErrorKind::MethodNotAllowed => (405, CALLER, "method_not_allowed"),
        ErrorKind::Conflict => (409, CALLER, "conflict"),
        ErrorKind::TooLarge => (413, CALLER, "request_too_large"),
        ErrorKind::ContextExceeded { .. } => (400, CALLER, "context_length_exceeded"),
        ErrorKind::NotCapable => (400, CALLER, "model_not_capable"),
        ErrorKind::RateLimited { .. } => (429, "rate_limit_error", "rate_limit_exceeded"),
        ErrorKind::Overloaded { .. } | ErrorKind::ShuttingDown => (503, SERVER, "service_unavailable"),
        ErrorKind::NotLoaded => (400, CALLER, "model_not_loaded"),
        ErrorKind::EngineFailed | ErrorKind::Internal => (500, SERVER, "server_error"),
        ErrorKind::UpstreamTimeout => (504, SERVER, "timeout"),
        ErrorKind::Unsupported => (501, SERVER, "not_implemented"),
        ErrorKind::Cancelled => (499, CALLER, "request_cancelled"),
        ErrorKind::Engine { status } => match *status {
            status @ 400..500 => (status, CALLER, "invalid_request"),
            status @ 500..600 => (status, SERVER, "server_error"),
            _ => (502, SERVER, "server_error"),
        },
    };
    Words { status, kind, code }
}

/// The HTTP status of an error on `/v1/*`.
pub fn status(error: &RunnerError) -> u16 {
    words(error).status
}

/// The `error` member: `message`, `type`, `param`, `code`, and both token counts of a context overflow.
pub fn error_value(error: &RunnerError) -> Value {
    let words = words(error);
    let message = match &error.kind {
        ErrorKind::RateLimited { .. } => {
            format!(
                "Rate limit exceeded. Try again in {} seconds.",
                error.retry_after_seconds().unwrap_or(1)
            )
        }
        ErrorKind::InvalidRequest
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::ModelNotFound
        | ErrorKind::NotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Conflict
        | ErrorKind::TooLarge
        | ErrorKind::ContextExceeded { .. }
        | ErrorKind::NotCapable
        | ErrorKind::Overloaded { .. }
        | ErrorKind::ShuttingDown
        | ErrorKind::NotLoaded
        | ErrorKind::EngineFailed
        | ErrorKind::Internal
        | ErrorKind::UpstreamTimeout
        | ErrorKind::Unsupported
        | ErrorKind::Cancelled
        | ErrorKind::Engine { .. } => error.message.clone(),
    };
    let code = error.code.as_deref().unwrap_or(words.code);
    let mut value = json!({"message": message, "type": words.kind, "param": error.param, "code": code});
    if let ErrorKind::ContextExceeded { prompt, context } = error.kind {
        value["n_prompt_tokens"] = prompt.into();
        value["n_ctx"] = context.into();
    }
    value
}

/// The error as `{"error":{"message","type","param","code"}}` with its status.
pub fn error(error: &RunnerError) -> Rendered {
    let body = to_vec(&json!({"error": error_value(error)}));
    Rendered {
        retry_after: error.retry_after_seconds(),
        ..Rendered::json(status(error), body)
    }
}
