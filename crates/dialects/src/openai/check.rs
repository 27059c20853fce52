use std::borrow::Cow;

use domain::RunnerError;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::engine::check_schema_bytes;
use crate::peek::{Key, Peeked};

/// Changes to make to a body before it is relayed; use with [`crate::peek::rewrite`].
pub type Edits = Vec<(Key, Vec<u8>)>;

/// Checks a chat body where the engine is wrong or would be hurt (promise H8; engine guide 8). Ok holds the changes to make:
/// clamps, and `tool_choice` objects that name a function, which the engine ignores.
///
/// # Errors
/// `InvalidRequest` with `param` and `code` set.
pub fn check_chat(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    let Some(messages) = peeked.get(Key::Messages) else {
        return Err(missing("messages"));
    };
    if !messages.is_array() {
        return Err(RunnerError::invalid("'messages' must be an array")
            .param("messages")
            .code("invalid_type"));
    }
    if messages.is_empty() {
        return Err(RunnerError::invalid("[] is too short - 'messages'")
            .param("messages")
            .code("invalid_value"));
    }
    check_images(messages.raw)?;
    let mut edits = common(peeked)?;
    tool_choice(peeked, &mut edits)?;
    Ok(edits)
}

/// Checks a `/v1/completions` body.
///
/// # Errors
/// As [`check_chat`].
pub fn check_completion(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    if peeked.get(Key::Prompt).is_none() {
        return Err(missing("prompt"));
    }
    common(peeked)
}

/// Checks a `/v1/embeddings` body.
///
/// # Errors
/// As [`check_chat`].
pub fn check_embeddings(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    match peeked.get(Key::Input) {
        None => Err(missing("input")),
        Some(input) if input.is_array() && input.is_empty() => Err(RunnerError::invalid("invalid input")
            .param("input")
            .code("invalid_value")),
        Some(_) => Ok(Vec::new()),
    }
}

/// Checks a rerank body.
///
/// # Errors
/// As [`check_chat`].
pub fn check_rerank(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    match peeked.get(Key::Query) {
        None => return Err(missing("query")),
        Some(query) if !query.is_string() => {
            return Err(RunnerError::invalid("'query' must be a string")
                .param("query")
                .code("invalid_type"));
        }
        Some(_) => {}
    }
    match peeked.get(Key::Documents) {
        None => Err(missing("documents")),
        Some(documents) if !documents.is_array() || documents.is_empty() => {
            Err(RunnerError::invalid("'documents' must be a non-empty array")
                .param("documents")
                .code("invalid_value"))
        }
        Some(_) => Ok(Vec::new()),
    }
}

/// The engine fetches `http(s):` and opens `file:` URLs itself: a way into the caller's network and disk, so only data URLs
/// pass (Ollama contract 7.2, LM Studio contract 4.2). Bodies without images cost one search.
fn check_images(messages: &[u8]) -> Result<(), RunnerError> {
    if memchr::memmem::find(messages, b"image_url").is_none() {
        return Ok(());
    }
    let Ok(list) = serde_json::from_slice::<Vec<ImageMessage<'_>>>(messages) else {
        return Ok(());
    };
    let parts = list
        .iter()
        .filter_map(|message| message.content.as_ref())
        .flat_map(|content| match content {
            Content::Parts(parts) => parts.as_slice(),
            Content::Other(_) => &[],
        });
    for url in parts.filter_map(|part| part.image_url.as_ref()) {
        let url = match url {
            ImageUrl::Object { url } | ImageUrl::Text(url) => url,
            ImageUrl::Other(_) => continue,
        };
        if !url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            return Err(RunnerError::invalid(
                "image URLs are not currently supported, please use base64 encoded data instead: 'url' field must be a base64 \
                 encoded image",
            )
            .param("messages")
            .code("invalid_value"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct ImageMessage<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content<'a> {
    #[serde(borrow)]
    Parts(Vec<ImagePart<'a>>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct ImagePart<'a> {
    #[serde(borrow, default)]
    image_url: Option<ImageUrl<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ImageUrl<'a> {
    Object {
        #[serde(borrow)]
        url: Cow<'a, str>,
    },
    Text(#[serde(borrow)] Cow<'a, str>),
    Other(IgnoredAny),
}

fn missing(name: &str) -> RunnerError {
    RunnerError::invalid(format!("'{name}' field is required"))
        .param(name)
        .code("missing_required_parameter")
}

/// Numbers the engine must not see out of range: (key, lowest, highest).
const RANGES: [(Key, i64, i64); 6] = [
    (Key::MaxTokens, -1, i32::MAX as i64),
    (Key::MaxCompletionTokens, -1, i32::MAX as i64),
    (Key::NPredict, -1, i32::MAX as i64),
    (Key::NKeep, -1, i32::MAX as i64),
    (Key::NDiscard, 0, i32::MAX as i64),
    (Key::NProbs, 0, 100),
];

fn common(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    let mut edits = Edits::new();
    for (key, lowest, highest) in RANGES {
        let Some(field) = peeked.get(key) else { continue };
        let name = key.as_str();
        let Some(number) = field.as_f64() else {
            return Err(RunnerError::invalid(format!("'{name}' must be an integer"))
                .param(name)
                .code("invalid_type"));
        };
        let clamped = number.clamp(lowest as f64, highest as f64);
        if clamped.to_bits() != number.to_bits() {
            edits.push((key, (clamped as i64).to_string().into_bytes()));
        }
    }
    if peeked.get(Key::IdSlot).is_some() {
        // Slots belong to the router's queue, not to callers.
        edits.push((Key::IdSlot, b"-1".to_vec()));
    }
    for key in [Key::Grammar, Key::JsonSchema, Key::ResponseFormat, Key::Tools] {
        if let Some(field) = peeked.get(key) {
            check_schema_bytes(field.raw).map_err(|error| error.param(key.as_str()))?;
        }
    }
    Ok(edits)
}

/// The engine ignores an object that names a function and may call another tool. When the named tool exists, the others are
/// taken out of the request and the choice becomes `required`, which the engine obeys.
fn tool_choice(peeked: &Peeked<'_>, edits: &mut Edits) -> Result<(), RunnerError> {
    let Some(choice) = peeked.get(Key::ToolChoice) else {
        return Ok(());
    };
    let invalid = |message: &str| RunnerError::invalid(message).param("tool_choice").code("invalid_value");
    if !choice.is_object() {
        return match choice.as_str().as_deref() {
            Some("none" | "auto" | "required") => Ok(()),
            _ => Err(invalid(
                "'tool_choice' must be 'none', 'auto', 'required' or an object that names a function",
            )),
        };
    }
    let parse = |raw| serde_json::from_slice::<serde_json::Value>(raw).unwrap_or_default();
    let value = parse(choice.raw);
    let name = value
        .pointer("/function/name")
        .or_else(|| value.get("name"))
        .and_then(serde_json::Value::as_str);
    let Some(name) = name else {
        return Err(invalid("'tool_choice.function.name' is required"));
    };
    let tools = peeked.get(Key::Tools).map(|tools| parse(tools.raw)).unwrap_or_default();
    let named = tools
        .as_array()
        .into_iter()
        .flatten()
        .find(|tool| tool.pointer("/function/name").and_then(serde_json::Value::as_str) == Some(name));
    let Some(tool) = named else {
        return Err(invalid(&format!(
            "'tool_choice' names '{name}', which is not in 'tools'"
        )));
    };
    edits.push((Key::Tools, crate::json::to_vec(&[tool])));
    edits.push((Key::ToolChoice, b"\"required\"".to_vec()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peek::{peek, rewrite};

    fn chat(body: &str) -> Result<String, RunnerError> {
        let peeked = peek(body.as_bytes())?;
        let edits = check_chat(&peeked)?;
        Ok(String::from_utf8(rewrite(body.as_bytes(), &peeked, &edits)).unwrap())
    }

    #[test]
    fn missing_and_empty() {
        for (body, words) in [
            (r#"{"model":"x"}"#, "'messages' field is required"),
            (r#"{"messages":null}"#, "'messages' field is required"),
            (r#"{"messages":[ ]}"#, "[] is too short - 'messages'"),
            (r#"{"messages":"hi"}"#, "'messages' must be an array"),
            (
                r#"{"messages":[1],"max_tokens":"x"}"#,
                "'max_tokens' must be an integer",
            ),
            (r#"{"messages":[1],"tool_choice":"maybe"}"#, "'tool_choice' must be"),
            (r#"{"messages":[1],"tool_choice":{"type":"function"}}"#, "function.name"),
            (
                r#"{"messages":[1],"tool_choice":{"function":{"name":"f"}},"tools":[]}"#,
                "not in 'tools'",
            ),
        ] {
            let error = chat(body).expect_err(body);
            assert!(error.message.contains(words), "{}", error.message);
            assert!(error.param.is_some() && error.code.is_some());
        }
    }

    #[test]
    fn clamps_and_choices() {
        let same = r#"{"messages":[1],"max_tokens":-1,"n_predict":5,"tool_choice":"auto"}"#;
        assert_eq!(chat(same).unwrap(), same);
        assert_eq!(
            chat(r#"{"messages":[1],"n_predict":1e18,"n_keep":-9,"n_discard":-3,"id_slot":7,"n_probs":100000}"#)
                .unwrap(),
            r#"{"messages":[1],"n_predict":2147483647,"n_keep":-1,"n_discard":0,"id_slot":-1,"n_probs":100}"#
        );
        assert_eq!(
            chat(r#"{"messages":[1],"tools":[{"function":{"name":"a"}},{"function":{"name":"b"}}],"tool_choice":{"type":"function","function":{"name":"b"}}}"#).unwrap(),
            r#"{"messages":[1],"tools":[{"function":{"name":"b"}}],"tool_choice":"required"}"#
        );
    }

    #[test]
    fn only_data_urls_reach_the_engine() {
        let with = |url: &str| {
            chat(&format!(
                r#"{{"messages":[{{"content":"image_url"}},{{"content":[{{"type":"text","text":"x"}},{{"image_url":{url}}}]}}]}}"#
            ))
        };
        for url in [
            r#"{"url":"data:image/png;base64,AA=="}"#,
            r#""data:image/png;base64,AA==""#,
            "null",
            "5",
        ] {
            assert!(with(url).is_ok(), "{url}");
        }
        for url in [
            r#"{"url":"http://10.0.0.1/a.png"}"#,
            r#"{"url":"file:\/\/\/etc\/passwd"}"#,
            r#""https://x""#,
        ] {
            assert!(
                with(url)
                    .unwrap_err()
                    .message
                    .contains("image URLs are not currently supported"),
                "{url}"
            );
        }
    }

    #[test]
    fn other_routes() {
        let check = |f: fn(&Peeked<'_>) -> Result<Edits, RunnerError>, body: &str| {
            f(&peek(body.as_bytes()).unwrap()).err().map(|e| e.message)
        };
        assert_eq!(check(check_completion, "{}").unwrap(), "'prompt' field is required");
        assert_eq!(check(check_completion, r#"{"prompt":""}"#), None);
        assert_eq!(check(check_embeddings, "{}").unwrap(), "'input' field is required");
        assert_eq!(check(check_embeddings, r#"{"input":[]}"#).unwrap(), "invalid input");
        assert_eq!(check(check_embeddings, r#"{"input":"a"}"#), None);
        assert_eq!(
            check(check_rerank, r#"{"documents":["a"]}"#).unwrap(),
            "'query' field is required"
        );
        assert_eq!(
            check(check_rerank, r#"{"query":"q","documents":[]}"#).unwrap(),
            "'documents' must be a non-empty array"
        );
        assert_eq!(check(check_rerank, r#"{"query":"q","documents":["a"]}"#), None);
    }
}
