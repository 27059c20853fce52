use domain::chat::{FinishReason, Usage};
use serde_json::{Value, json};

use crate::engine::Answer;
use crate::json::to_vec;

/// What an answer needs to know about its request.
#[derive(Debug, Clone, Default)]
pub struct ReplyHead {
    /// `msg_` and 24 hexadecimal digits.
    pub id: String,
    /// `model` as asked for.
    pub model: String,
    /// The request's stop texts.
    pub stops: Vec<String>,
    /// Tell cached tokens apart: only in answers to requests that speak of caching, as Anthropic does.
    pub caches: bool,
    /// Thinking blocks are empty: they only show that the model thought.
    pub hides_thinking: bool,
    /// A guess at the tokens of the prompt, for an engine that does not tell them before the answer.
    pub estimated_tokens: u64,
    /// For the error of a stream that breaks.
    pub request_id: Option<String>,
}

impl ReplyHead {
    pub(super) fn usage(&self, usage: &Usage) -> Value {
        let cached = if self.caches { usage.cached_tokens } else { 0 };
        json!({
            "input_tokens": usage.prompt_tokens.saturating_sub(cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": usage.completion_tokens,
        })
    }

    /// `stop_reason` and `stop_sequence`.
    pub(super) fn stop<'a>(
        &self,
        finish: Option<FinishReason>,
        called: bool,
        stop_text: Option<&'a str>,
    ) -> (&'static str, Option<&'a str>) {
        match finish {
            // A call that was cut is no call to answer.
            Some(FinishReason::Length) => ("max_tokens", None),
            Some(FinishReason::ToolCalls) => ("tool_use", None),
            _ if called => ("tool_use", None),
            // Templates have stop texts of their own.
            Some(FinishReason::Stop) | None => {
                match stop_text.filter(|text| self.stops.iter().any(|stop| stop == text)) {
                    Some(text) => ("stop_sequence", Some(text)),
                    None => ("end_turn", None),
                }
            }
        }
    }
}

/// The body of an answer that is not streamed.
pub fn reply(head: &ReplyHead, answer: &Answer) -> Vec<u8> {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        let thinking = if head.hides_thinking { "" } else { &answer.reasoning };
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    for (at, call) in answer.tool_calls.iter().enumerate() {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        let input = if input.is_object() { input } else { json!({}) };
        let id = call.id.clone().unwrap_or_else(|| call_id(&head.id, at));
        content.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": input}));
    }
    let called = !answer.tool_calls.is_empty();
    let (stop_reason, stop_sequence) = head.stop(answer.finish, called, answer.stop_text.as_deref());
    to_vec(&json!({
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": head.usage(&answer.usage),
    }))
}

/// An id for a call that the engine gave none.
pub(super) fn call_id(message: &str, at: usize) -> String {
    format!("toolu_{}{at}", message.trim_start_matches("msg_"))
}

/// `{"input_tokens": n}`.
pub fn count_reply(tokens: u64) -> Vec<u8> {
    to_vec(&json!({"input_tokens": tokens}))
}
