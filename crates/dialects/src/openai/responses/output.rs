//! Output items and the response object.

use serde_json::{Map, Value, json};

use super::input::seal;
use super::stream::ReasoningForm;
use domain::chat::{TokenLogprob, Usage};

/// A reasoning item.
pub(super) fn reasoning(id: &str, text: &str, form: ReasoningForm, sealed: bool) -> Value {
    let mut item = json!({"id": id, "type": "reasoning", "summary": []});
    match form {
        ReasoningForm::Text => item["content"] = json!([{"type": "reasoning_text", "text": text}]),
        ReasoningForm::Summary => item["summary"] = json!([{"type": "summary_text", "text": text}]),
    }
    if sealed {
        item["encrypted_content"] = seal(text).into();
    }
    item
}

/// A message item. `content` is empty while it is in progress.
pub(super) fn message(id: &str, status: &str, content: &[Value]) -> Value {
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

/// The text part of a message.
pub(super) fn text_part(text: &str, logprobs: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
}

/// A call as it is shown.
pub(super) struct Call<'a> {
    pub(super) id: &'a str,
    /// `call_id`.
    pub(super) answered_by: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) arguments: &'a str,
    pub(super) status: &'a str,
}

impl Call<'_> {
    /// A function call item.
    pub(super) fn item(&self) -> Value {
        let mut item = json!({
            "id": self.id, "type": "function_call", "status": self.status, "call_id": self.answered_by, "name": self.name,
            "arguments": self.arguments
        });
        if let Some(namespace) = self.namespace {
            item["namespace"] = namespace.into();
        }
        item
    }
}

/// Probabilities in OpenAI's form.
pub(super) fn logprob(token: &TokenLogprob, alternatives: usize) -> Value {
    let top: Vec<Value> = token
        .top
        .iter()
        .take(alternatives)
        .map(|token| json!({"token": token.token, "logprob": token.logprob, "bytes": token.bytes}))
        .collect();
    json!({"token": token.token, "logprob": token.logprob, "bytes": token.bytes, "top_logprobs": top})
}

/// Counts in OpenAI's form.
pub(super) fn usage(usage: &Usage, reasoning: u64) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning.min(usage.completion_tokens)},
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}

/// What differs between the stages of one response.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) status: &'static str,
    pub(super) completed_at: Option<i64>,
    pub(super) error: Value,
    pub(super) incomplete: Value,
    pub(super) output: Vec<Value>,
    pub(super) usage: Value,
}

/// The response object.
pub(super) fn response(id: &str, model: &str, created_at: i64, echo: &Map<String, Value>, stage: Stage) -> Value {
    let mut object = Map::with_capacity(echo.len() + 12);
    object.insert("id".into(), id.into());
    object.insert("object".into(), "response".into());
    object.insert("created_at".into(), created_at.into());
    object.insert("completed_at".into(), stage.completed_at.into());
    object.insert("status".into(), stage.status.into());
    object.insert("error".into(), stage.error);
    object.insert("incomplete_details".into(), stage.incomplete);
    object.insert("model".into(), model.into());
    object.insert("output".into(), stage.output.into());
    object.insert("usage".into(), stage.usage);
    object.extend(echo.iter().map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(object)
}
