use domain::{ErrorKind, RunnerError};
use serde_json::json;

use crate::{Rendered, json::to_vec, openai};

/// The error in LM Studio's form (contract 8): OpenAI's object with LM Studio's codes and, for a model that is not loaded
/// while loading on demand is off, its status 404 and `code: null`. `legacy_strings`: `{"error":"text"}` for bad parameters.
pub fn error(error: &RunnerError, legacy_strings: bool) -> Rendered {
    let bad_parameter = matches!(error.kind, ErrorKind::InvalidRequest);
    if legacy_strings && bad_parameter {
        return Rendered::json(400, to_vec(&json!({"error": error.message})));
    }
    let mut value = openai::error_value(error);
    let mut status = openai::status(error);
    match error.kind {
        ErrorKind::NotLoaded => {
            status = 404;
            value["code"] = serde_json::Value::Null;
            value["param"] = "model".into();
        }
        ErrorKind::InvalidRequest if error.code.is_none() => value["code"] = "invalid_value".into(),
        _ => {}
    }
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
        assert_eq!(
            text(unexpected_endpoint("GET", "/foo?a=1", 404)),
            (
                404,
                r#"{"error":"Unexpected endpoint or method. (GET /foo?a=1)"}"#.into()
            )
        );
    }
}
