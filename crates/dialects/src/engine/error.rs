use std::time::Duration;

use domain::{ErrorKind, RunnerError};
use serde_json::Value;

/// The engine answered with an error status: its words, unwrapped. A context overflow becomes `ContextExceeded`, a missing
/// capability `NotCapable`; words about engine flags are replaced, since the caller cannot set them.
pub fn error_from_response(status: u16, body: &[u8]) -> RunnerError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let inner = value.get("error").cloned().unwrap_or(value);
    error_from_value(Some(status), &inner)
}

/// The same for the `error` member of a body or of a stream event.
pub(crate) fn error_from_value(status: Option<u16>, error: &Value) -> RunnerError {
    let number = |name: &str| error.get(name).and_then(Value::as_u64);
    let status = status
        .or_else(|| number("code").and_then(|code| u16::try_from(code).ok()))
        .unwrap_or(500);
    let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
    let message = error
        .get("message")
        .or(Some(error))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let lower = message.to_ascii_lowercase();

    if kind == "exceed_context_size_error" {
        let (prompt, context) = (number("n_prompt_tokens").unwrap_or(0), number("n_ctx").unwrap_or(0));
        return context_exceeded(message.to_owned(), prompt, context);
    }
    if lower.contains("too large to process") || lower.contains("exceeds the available context size") {
        let mut numbers = numbers(message);
        let (prompt, context) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let text = format!("the input ({prompt} tokens) exceeds the context length ({context} tokens)");
        return context_exceeded(text, prompt, context);
    }
    if let Some(what) = ["image", "audio", "video"]
        .into_iter()
        .find(|w| lower.starts_with(&format!("{w} input is not")))
    {
        return not_capable(&format!("{what} input"));
    }
    if lower.contains("does not support embeddings") {
        return not_capable("embeddings");
    }
    if lower.contains("does not support reranking") {
        return not_capable("reranking");
    }
    if lower.contains("does not support logits computation") {
        return not_capable("text generation");
    }
    if lower.contains("does not support infill") || lower.contains("infill is not supported") {
        return not_capable("insert");
    }
    match status {
        503 => RunnerError::new(
            ErrorKind::Overloaded {
                retry_after: Duration::from_secs(1),
            },
            "The model's engine is not ready yet. Try again.",
        ),
        // The key is ours, not the caller's.
        401 | 403 => RunnerError::new(ErrorKind::EngineFailed, "The model's engine refused our credentials."),
        _ if message.is_empty() => RunnerError::new(
            ErrorKind::Engine { status },
            format!("The model's engine answered with status {status}."),
        ),
        _ => RunnerError::new(ErrorKind::Engine { status }, message),
    }
}

fn context_exceeded(message: String, prompt: u64, context: u64) -> RunnerError {
    RunnerError::new(ErrorKind::ContextExceeded { prompt, context }, message).code("context_length_exceeded")
}

fn not_capable(what: &str) -> RunnerError {
    RunnerError::new(ErrorKind::NotCapable, format!("This model does not support {what}.")).param("model")
}

/// Runs of digits in a text.
fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_bodies() {
        let cases: [(u16, &str, ErrorKind, &str); 9] = [
            (
                400,
                r#"{"error":{"code":400,"message":"request (24010 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":24010,"n_ctx":4096}}"#,
                ErrorKind::ContextExceeded {
                    prompt: 24010,
                    context: 4096,
                },
                "request (24010 tokens) exceeds",
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"input (3602 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
                ErrorKind::ContextExceeded {
                    prompt: 3602,
                    context: 512,
                },
                "the input (3602 tokens) exceeds the context length (512 tokens)",
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#,
                ErrorKind::NotCapable,
                "does not support image input",
            ),
            (
                501,
                r#"{"error":{"code":501,"message":"This server does not support embeddings. Start it with `--embeddings`","type":"not_supported_error"}}"#,
                ErrorKind::NotCapable,
                "does not support embeddings",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"Failed to initialize samplers: failed to parse grammar","type":"invalid_request_error"}}"#,
                ErrorKind::Engine { status: 400 },
                "failed to parse grammar",
            ),
            (
                503,
                r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
                ErrorKind::Overloaded {
                    retry_after: Duration::from_secs(1),
                },
                "not ready",
            ),
            (
                401,
                r#"{"error":{"message":"Invalid API Key"}}"#,
                ErrorKind::EngineFailed,
                "our credentials",
            ),
            (502, "<html>", ErrorKind::Engine { status: 502 }, "status 502"),
            (500, r#"{"error":"text"}"#, ErrorKind::Engine { status: 500 }, "text"),
        ];
        for (status, body, kind, words) in cases {
            let error = error_from_response(status, body.as_bytes());
            assert_eq!(error.kind, kind, "{body}");
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
