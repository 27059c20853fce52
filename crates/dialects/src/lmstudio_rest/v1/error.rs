use domain::{ErrorKind, RunnerError};
use serde_json::{Value, json};

use crate::{Rendered, json::to_vec, openai};

/// Status, `type` and the default `code` of a kind (contract 8).
fn words(error: &RunnerError) -> (u16, &'static str, Option<&'static str>) {
    const CALLER: &str = "invalid_request";
    const SERVER: &str = "internal_error";
    match &error.kind {
        ErrorKind::InvalidRequest => (400, CALLER, Some("invalid_value")),
        ErrorKind::Unauthenticated => (401, CALLER, Some("invalid_api_key")),
        ErrorKind::Forbidden => (403, CALLER, Some("permission_denied")),
        ErrorKind::ModelNotFound => (404, "model_not_found", Some("model_not_found")),
        ErrorKind::NotFound if error.code.as_deref() == Some("job_not_found") => {
            (404, "job_not_found", Some("job_not_found"))
        }
        ErrorKind::NotFound => (404, CALLER, Some("not_found")),
        ErrorKind::MethodNotAllowed => (405, CALLER, Some("method_not_allowed")),
        ErrorKind::Conflict => (409, CALLER, Some("conflict")),
        ErrorKind::TooLarge => (413, CALLER, Some("request_too_large")),
        ErrorKind::ContextExceeded { .. } => (400, CALLER, Some("context_length_exceeded")),
        ErrorKind::NotCapable => (400, CALLER, Some("model_not_capable")),
        ErrorKind::NotLoaded => (404, "model_not_found", None),
        ErrorKind::RateLimited { .. } | ErrorKind::Overloaded { .. } => (429, CALLER, Some("rate_limit_exceeded")),
        ErrorKind::ShuttingDown => (503, SERVER, Some("service_unavailable")),
        ErrorKind::EngineFailed | ErrorKind::Internal => (500, SERVER, None),
        ErrorKind::UpstreamTimeout => (504, SERVER, Some("timeout")),
        ErrorKind::Unsupported => (501, "not_implemented", None),
        ErrorKind::Cancelled => (499, "unknown", Some("request_cancelled")),
        ErrorKind::Engine { status } => match *status {
            status @ 400..500 => (status, CALLER, None),
            status @ 500..600 => (status, SERVER, None),
            _ => (502, SERVER, None),
        },
    }
}

/// The `error` member: `type`, `message`, and `code` and `param` where there are any.
pub(super) fn error_value(error: &RunnerError) -> Value {
    let (_, kind, code) = words(error);
    let mut value = json!({"type": kind, "message": openai::error_value(error)["message"]});
    if let Some(code) = error.code.as_deref().or(code) {
        value["code"] = code.into();
    }
    if let Some(param) = &error.param {
        value["param"] = param.as_str().into();
    }
    value
}

/// `{"error":{"type","message","code"?,"param"?}}` with its status (contract 8).
pub fn error(error: &RunnerError) -> Rendered {
    Rendered {
        retry_after: error.retry_after_seconds(),
        ..Rendered::json(words(error).0, to_vec(&json!({"error": error_value(error)})))
    }
}
