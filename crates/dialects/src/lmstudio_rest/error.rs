use domain::{ErrorKind, RunnerError};
use serde_json::{Value, json};

use crate::{Rendered, json::to_vec, openai};

/// Status and `error` member (contract 8): OpenAI's object with LM Studio's codes. A model that is not loaded while loading
/// on demand is off has `code: null`; a full queue is a limit like any other.
fn words(error: &RunnerError) -> (u16, Value) {
    let mut value = openai::error_value(error);
    let mut status = openai::status(error);
    match error.kind {
        ErrorKind::NotLoaded => {
            status = 404;
            value["code"] = Value::Null;
            value["param"] = "model".into();
        }
        ErrorKind::Overloaded { .. } => {
            status = 429;
            value["type"] = "rate_limit_error".into();
            value["code"] = error.code.as_deref().unwrap_or("rate_limit_exceeded").into();
        }
        ErrorKind::InvalidRequest if error.code.is_none() => value["code"] = "invalid_value".into(),
        _ => {}
    }
    (status, value)
}

/// The `error` member alone.
pub(crate) fn error_value(error: &RunnerError) -> Value {
    words(error).1
}

/// The error in LM Studio's form. `legacy_strings`: `{"error":"text"}` for bad parameters.
pub fn error(error: &RunnerError, legacy_strings: bool) -> Rendered {
    let bad_parameter = matches!(error.kind, ErrorKind::InvalidRequest);
    if legacy_strings && bad_parameter {
        return Rendered::json(400, to_vec(&json!({"error": error.message})));
    }
    let (status, value) = words(error);
    Rendered {
        retry_after: error.retry_after_seconds(),
        ..Rendered::json(status, to_vec(&json!({"error": value})))
    }
}

/// `{"error":"Unexpected endpoint or method. (GET /foo)"}` with the status of the setting, 404 or 405 by default.
pub fn unexpected_endpoint(method: &str, path_and_query: &str, status: u16) -> Rendered {
    let text = format!("Unexpected endpoint or method. ({method} {path_and_query})");
    Rendered::json(status, to_vec(&json!({"error": text})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let text = |rendered: Rendered| (rendered.status, String::from_utf8(rendered.body).unwrap());
        let missing = RunnerError::invalid("'messages' field is required")
            .param("messages")
            .code("missing_required_parameter");
        assert_eq!(
            text(error(&missing, true)),
            (400, r#"{"error":"'messages' field is required"}"#.into())
        );
        assert_eq!(
            text(error(&missing, false)).1,
            r#"{"error":{"message":"'messages' field is required","type":"invalid_request_error","param":"messages","code":"missing_required_parameter"}}"#
        );
        let unloaded = RunnerError::new(ErrorKind::NotLoaded, "No models loaded.");
        let (status, body) = text(error(&unloaded, false));
        assert!(status == 404 && body.contains("\"code\":null"), "{body}");
        let full = RunnerError::new(
            ErrorKind::Overloaded {
                retry_after: std::time::Duration::from_secs(1),
            },
            "The queue is full.",
        );
        let (status, body) = text(error(&full, false));
        assert!(
            status == 429 && body.contains("\"code\":\"rate_limit_exceeded\""),
            "{body}"
        );
        assert_eq!(error(&full, false).retry_after, Some(1));
        assert_eq!(
            text(unexpected_endpoint("GET", "/foo?a=1", 404)),
            (
                404,
                r#"{"error":"Unexpected endpoint or method. (GET /foo?a=1)"}"#.into()
            )
        );
    }
}
