//! The engine's HTTP errors as ours. Shape: `{"error":{"code":…,"message":…,"type":…}}` (engine guide 2.1 and 8).

use std::time::Duration;

use domain::{ErrorKind, RunnerError};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::without_paths;

/// Longest message passed on.
const MAX_MESSAGE: usize = 2000;

/// How soon to ask again while the engine loads.
const RETRY_LOADING: Duration = Duration::from_secs(1);

#[derive(Deserialize, Default)]
struct Body {
    error: Option<Value>,
    message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    message: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<u16>,
    n_prompt_tokens: Option<u64>,
    n_ctx: Option<u64>,
}

/// The engine's answer of this status and body as our error. Works for the `error` object in the middle of a stream too:
/// give it the event's JSON and status 200, and the object's own `code` counts.
pub fn http_error(status: u16, body: &[u8]) -> RunnerError {
    let fields = parse(body);
    let status = if status < 400 {
        fields.code.filter(|code| *code >= 400).unwrap_or(500)
    } else {
        status
    };
    let message = fields.message.as_deref().unwrap_or_default();
    if let Some(error) = exceeded(&fields, message) {
        return error;
    }
    if let Some(text) = not_capable(message) {
        return RunnerError::new(ErrorKind::NotCapable, text);
    }
    let error = match status {
        401 | 403 => {
            // Our own key was refused: nothing the caller could mend, and nothing for them to see.
            return RunnerError::internal(
                "The engine did not accept LlamaRunner's own key. Stop the model and try again.",
            );
        }
        404 if fields.kind.as_deref() == Some("not_found_error") && message == "File Not Found" => {
            return RunnerError::new(
                ErrorKind::Unsupported,
                "The engine does not offer this operation. Use a newer engine.",
            );
        }
        501 => RunnerError::new(
            ErrorKind::Unsupported,
            said(message, "The engine does not support this operation."),
        ),
        503 => RunnerError::new(
            ErrorKind::Overloaded {
                retry_after: RETRY_LOADING,
            },
            if message.is_empty() || message == "Loading model" {
                "The model is still loading. Try again in a moment.".into()
            } else {
                said(message, "")
            },
        ),
        _ => RunnerError::new(
            ErrorKind::Engine { status },
            said(message, &format!("The engine answered with status {status}.")),
        ),
    };
    match fields.kind {
        Some(kind) => error.code(kind.chars().take(80).collect::<String>()),
        None => error,
    }
}

fn parse(body: &[u8]) -> Fields {
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Fields::default();
    };
    match body.error {
        Some(Value::String(message)) => Fields {
            message: Some(message),
            ..Fields::default()
        },
        Some(object @ Value::Object(_)) => {
            // One field of a wrong type must not lose the message.
            let message = object.get("message").and_then(Value::as_str).map(str::to_owned);
            serde_json::from_value(object).unwrap_or(Fields {
                message,
                ..Fields::default()
            })
        }
        _ => Fields {
            message: body.message,
            ..Fields::default()
        },
    }
}

/// Prompt too long for the context, or an embedding input too long for the batch (which is the context there).
fn exceeded(fields: &Fields, message: &str) -> Option<RunnerError> {
    let lower = message.to_lowercase();
    let of_type = fields.kind.as_deref() == Some("exceed_context_size_error");
    let of_batch = lower.contains("too large to process") && lower.contains("batch size");
    let of_context =
        lower.contains("larger than the max context size") || lower.contains("exceeds the available context size");
    if !of_type && !of_batch && !of_context {
        return None;
    }
    let mut numbers = numbers(message);
    let prompt = fields.n_prompt_tokens.or_else(|| numbers.next());
    let context = fields.n_ctx.or_else(|| numbers.next());
    let (text, prompt, context) = match (prompt, context) {
        (Some(prompt), Some(context)) => (
            format!(
                "The input of {prompt} tokens exceeds the context of {context} tokens. Shorten it, or load the model with a \
                 larger context."
            ),
            prompt,
            context,
        ),
        (prompt, context) => (
            "The input exceeds the context of this model. Shorten it, or load the model with a larger context.".into(),
            prompt.unwrap_or(0),
            context.unwrap_or(0),
        ),
    };
    Some(RunnerError::new(ErrorKind::ContextExceeded { prompt, context }, text).code("exceed_context_size_error"))
}

fn numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
}

fn not_capable(message: &str) -> Option<&'static str> {
    const TABLE: &[(&str, &str)] = &[
        ("image input is not supported", "This model does not accept images."),
        ("does not support image input", "This model does not accept images."),
        ("audio input is not supported", "This model does not accept audio."),
        ("does not support audio input", "This model does not accept audio."),
        (
            "does not support logits computation",
            "This model is loaded for embeddings or reranking and does not generate text.",
        ),
        ("does not support embeddings", "This model does not support embeddings."),
        ("does not support reranking", "This model does not support reranking."),
        (
            "Infill is not supported by this model",
            "This model does not support insert (fill in the middle).",
        ),
        (
            "Pooling type 'none' is not OAI compatible",
            "This model does not support embeddings: it names no pooling.",
        ),
    ];
    TABLE
        .iter()
        .find(|(words, _)| message.contains(words))
        .map(|(_, text)| *text)
}

fn said(message: &str, otherwise: &str) -> String {
    let text = without_paths(message);
    if text.is_empty() {
        return otherwise.to_owned();
    }
    // Template errors are several lines; as one they stay readable in every client.
    let text = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    telemetry::clean_line(text.as_bytes())
        .chars()
        .take(MAX_MESSAGE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, kind: &ErrorKind, message: &str) {
        let error = http_error(status, body.as_bytes());
        assert_eq!(
            (&error.kind, error.message.as_str()),
            (kind, message),
            "{status} {body}"
        );
    }

    #[test]
    fn context() {
        let message = "The input of 6010 tokens exceeds the context of 512 tokens. Shorten it, or load the model with a larger \
            context.";
        let kind = ErrorKind::ContextExceeded {
            prompt: 6010,
            context: 512,
        };
        check(
            400,
            r#"{"error":{"code":400,"message":"request (6010 tokens) exceeds the available context size (512 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":6010,"n_ctx":512}}"#,
            &kind,
            message,
        );
        // Older engines name no numbers apart.
        check(
            400,
            r#"{"error":{"code":400,"message":"the request (6010 tokens) exceeds the available context size (512 tokens)","type":"exceed_context_size_error"}}"#,
            &kind,
            message,
        );
        // Embeddings: a 500 of the engine, a fault of the request.
        check(
            500,
            r#"{"error":{"code":500,"message":"input (6010 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
            &kind,
            message,
        );
        check(
            500,
            r#"{"error":{"code":500,"message":"input is larger than the max context size. skipping","type":"server_error"}}"#,
            &ErrorKind::ContextExceeded { prompt: 0, context: 0 },
            "The input exceeds the context of this model. Shorten it, or load the model with a larger context.",
        );
        let error = http_error(400, br#"{"error":{"type":"exceed_context_size_error"}}"#);
        assert_eq!(error.code.as_deref(), Some("exceed_context_size_error"));
    }

    #[test]
    fn capabilities() {
        for (status, text, expected) in [
            (
                500,
                "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
                "This model does not accept images.",
            ),
            (
                500,
                "audio input is not supported - hint: …",
                "This model does not accept audio.",
            ),
            (
                501,
                "This server does not support embeddings. Start it with `--embeddings`",
                "This model does not support embeddings.",
            ),
            (
                501,
                "This server does not support reranking. Start it with `--reranking`",
                "This model does not support reranking.",
            ),
            (
                500,
                "the current context does not support logits computation. skipping",
                "This model is loaded for embeddings or reranking and does not generate text.",
            ),
        ] {
            let body = serde_json::json!({"error": {"code": status, "message": text, "type": "server_error"}});
            check(status, &body.to_string(), &ErrorKind::NotCapable, expected);
        }
    }

    #[test]
    fn others() {
        let engine = |status| ErrorKind::Engine { status };
        let loading = ErrorKind::Overloaded {
            retry_after: RETRY_LOADING,
        };
        check(
            400,
            r#"{"error":{"code":400,"message":"'messages' is required","type":"invalid_request_error"}}"#,
            &engine(400),
            "'messages' is required",
        );
        check(
            503,
            r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
            &loading,
            "The model is still loading. Try again in a moment.",
        );
        check(
            503,
            r#"{"error":{"message":"no slot available"}}"#,
            &loading,
            "no slot available",
        );
        check(
            401,
            r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#,
            &ErrorKind::Internal,
            "The engine did not accept LlamaRunner's own key. Stop the model and try again.",
        );
        check(
            404,
            r#"{"error":{"message":"File Not Found","type":"not_found_error","code":404}}"#,
            &ErrorKind::Unsupported,
            "The engine does not offer this operation. Use a newer engine.",
        );
        check(
            404,
            r#"{"error":{"message":"no such slot","type":"not_found_error"}}"#,
            &engine(404),
            "no such slot",
        );
        check(
            501,
            r#"{"error":{"message":"Not now","type":"not_supported_error"}}"#,
            &ErrorKind::Unsupported,
            "Not now",
        );
        check(400, r#"{"error":{"message":"a\n  b\n"}}"#, &engine(400), "a b");
        check(500, r#"{"error":"plain"}"#, &engine(500), "plain");
        check(500, r#"{"message":"plain"}"#, &engine(500), "plain");
        check(500, r#"{"error":{"message":"odd","n_ctx":"x"}}"#, &engine(500), "odd");
        check(
            500,
            r#"{"error":{"message":"cannot open '/home/me/m.gguf'"}}"#,
            &engine(500),
            "cannot open 'file'",
        );
        for nonsense in [
            "",
            "<html>",
            "null",
            "[]",
            "{}",
            r#"{"error":null}"#,
            r#"{"error":5}"#,
            r#"{"error":{"message":5}}"#,
            "\u{0}",
        ] {
            check(502, nonsense, &engine(502), "The engine answered with status 502.");
        }
        // In a stream the HTTP status was 200.
        check(200, r#"{"error":{"code":503,"message":"busy"}}"#, &loading, "busy");
        check(200, r#"{"error":{"message":"broke"}}"#, &engine(500), "broke");
        let long = serde_json::json!({"error": {"message": "x".repeat(100_000)}});
        assert_eq!(http_error(500, long.to_string().as_bytes()).message.len(), MAX_MESSAGE);
        let error = http_error(400, br#"{"error":{"message":"a","type":"invalid_request_error"}}"#);
        assert_eq!(error.code.as_deref(), Some("invalid_request_error"));
    }
}
