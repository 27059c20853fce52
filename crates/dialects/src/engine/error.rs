use std::time::Duration;

use domain::{ErrorKind, RunnerError, without_paths};
use serde_json::Value;

/// Longest message passed on, in characters.
const MAX_MESSAGE: usize = 2000;

/// The engine answered with an error status: its words, unwrapped and without paths (promise H10). A context overflow
/// becomes `ContextExceeded`, a missing capability `NotCapable`; words about engine flags are replaced, since the caller
/// cannot set them. Shape: `{"error":{"code":…,"message":…,"type":…}}` (engine guide 2.1 and 8).
pub fn error_from_response(status: u16, body: &[u8]) -> RunnerError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let inner = value
        .get("error")
        .filter(|error| !error.is_null())
        .cloned()
        .unwrap_or(value);
    error_from_value(Some(status), &inner)
}

/// The same for the `error` member of a body or of a stream event.
pub(crate) fn error_from_value(status: Option<u16>, error: &Value) -> RunnerError {
    let number = |name: &str| error.get(name).and_then(Value::as_u64);
    let status = status
        .or_else(|| number("code").and_then(|code| u16::try_from(code).ok()))
        .filter(|code| *code >= 400)
        .unwrap_or(500);
    let kind = error.get("type").and_then(Value::as_str).unwrap_or_default();
    let message = error
        .get("message")
        .or(Some(error))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let lower = message.to_ascii_lowercase();

    let overflows = [
        "too large to process",
        "exceeds the available context size",
        "larger than the max context size",
    ];
    if kind == "exceed_context_size_error" || overflows.iter().any(|words| lower.contains(words)) {
        // Older engines and embeddings name both counts in the text alone.
        let mut numbers = numbers(message);
        let prompt = number("n_prompt_tokens").or_else(|| numbers.next());
        let context = number("n_ctx").or_else(|| numbers.next());
        let mut error = context_exceeded(prompt, context);
        if lower.contains("too large") {
            // Programs made for llama-server look for its words.
            error.message = error.message.replace("exceeds", "is too large: it exceeds");
        }
        return error;
    }
    if let Some(what) = ["image", "audio", "video"]
        .into_iter()
        .find(|w| lower.starts_with(&format!("{w} input is not")))
    {
        return not_capable(&format!("{what} input"));
    }
    // "Pooling type 'none' is not OAI compatible": a model that was not made for embeddings.
    if lower.contains("does not support embeddings") || lower.contains("pooling type 'none'") {
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
        401 | 403 => RunnerError::internal("The model's engine refused our credentials."),
        404 if message == "File Not Found" => RunnerError::new(
            ErrorKind::Unsupported,
            "The model's engine does not offer this operation. Use a newer engine.",
        ),
        501 => RunnerError::new(ErrorKind::Unsupported, said(message, status)),
        _ => RunnerError::new(ErrorKind::Engine { status }, said(message, status)),
    }
}

/// The engine's words, or that it had none.
fn said(message: &str, status: u16) -> String {
    let text: String = without_paths(message).chars().take(MAX_MESSAGE).collect();
    if text.is_empty() {
        return format!("The model's engine answered with status {status}.");
    }
    text
}

/// The prompt does not fit, with both token counts where they are known.
pub fn context_exceeded(prompt: Option<u64>, context: Option<u64>) -> RunnerError {
    let text = match (prompt, context) {
        (Some(prompt), Some(context)) => {
            format!("the input ({prompt} tokens) exceeds the context length ({context} tokens)")
        }
        _ => "the input exceeds the context length".into(),
    };
    let kind = ErrorKind::ContextExceeded {
        prompt: prompt.unwrap_or(0),
        context: context.unwrap_or(0),
    };
    RunnerError::new(kind, text).code("context_length_exceeded")
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
        let cases: [(u16, &str, ErrorKind, &str); 19] = [
            (
                400,
                r#"{"error":{"code":400,"message":"request (24010 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":24010,"n_ctx":4096}}"#,
                ErrorKind::ContextExceeded {
                    prompt: 24010,
                    context: 4096,
                },
                "the input (24010 tokens) exceeds the context length (4096 tokens)",
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"input (3602 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
                ErrorKind::ContextExceeded {
                    prompt: 3602,
                    context: 512,
                },
                "the input (3602 tokens) is too large: it exceeds the context length (512 tokens)",
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
                ErrorKind::Internal,
                "our credentials",
            ),
            // Older engines name no numbers apart.
            (
                400,
                r#"{"error":{"message":"the request (6010 tokens) exceeds the available context size (512 tokens)","type":"exceed_context_size_error"}}"#,
                ErrorKind::ContextExceeded {
                    prompt: 6010,
                    context: 512,
                },
                "(6010 tokens) exceeds the context length (512 tokens)",
            ),
            (
                500,
                r#"{"error":{"message":"input is larger than the max context size. skipping"}}"#,
                ErrorKind::ContextExceeded { prompt: 0, context: 0 },
                "the input exceeds the context length",
            ),
            (
                400,
                r#"{"error":{"message":"Pooling type 'none' is not OAI compatible. Please use a different pooling type"}}"#,
                ErrorKind::NotCapable,
                "does not support embeddings",
            ),
            (
                404,
                r#"{"error":{"message":"File Not Found","type":"not_found_error","code":404}}"#,
                ErrorKind::Unsupported,
                "newer engine",
            ),
            (
                501,
                r#"{"error":{"message":"Not now"}}"#,
                ErrorKind::Unsupported,
                "Not now",
            ),
            (
                500,
                r#"{"error":{"message":"cannot open '/home/me/m.gguf'"}}"#,
                ErrorKind::Engine { status: 500 },
                "cannot open 'file'",
            ),
            (502, "", ErrorKind::Engine { status: 502 }, "status 502"),
            (
                502,
                r#"{"error":null}"#,
                ErrorKind::Engine { status: 502 },
                "status 502",
            ),
            (
                502,
                r#"{"error":{"message":5}}"#,
                ErrorKind::Engine { status: 502 },
                "status 502",
            ),
            (
                500,
                r#"{"message":"plain"}"#,
                ErrorKind::Engine { status: 500 },
                "plain",
            ),
            (502, "<html>", ErrorKind::Engine { status: 502 }, "status 502"),
            (500, r#"{"error":"text"}"#, ErrorKind::Engine { status: 500 }, "text"),
        ];
        for (status, body, kind, words) in cases {
            let error = error_from_response(status, body.as_bytes());
            assert_eq!(error.kind, kind, "{body}");
            assert!(error.message.contains(words), "{}", error.message);
            assert!(!error.message.contains('/'), "{}", error.message);
        }
    }

    #[test]
    fn in_the_middle_of_a_stream_the_code_counts() {
        let busy = serde_json::json!({"code": 503, "message": "busy"});
        assert!(matches!(
            error_from_value(None, &busy).kind,
            ErrorKind::Overloaded { .. }
        ));
        let broke = serde_json::json!({"code": 0, "message": "broke"});
        assert_eq!(error_from_value(None, &broke).kind, ErrorKind::Engine { status: 500 });
    }

    #[test]
    fn long_words_are_cut() {
        let body = serde_json::json!({"error": {"message": "x".repeat(100_000)}}).to_string();
        assert_eq!(error_from_response(400, body.as_bytes()).message.len(), MAX_MESSAGE);
    }
}
