use std::time::Duration;

use domain::{
    ErrorKind, RunnerError,
    chat::{FinishReason, TokenLogprob, ToolCall, Usage},
};
use serde_json::{Map, Value, json};

use crate::clock::{Clock, write_rfc3339};
use crate::engine::Answer;
use crate::json::{to_vec, write_f64, write_str, write_u64};

/// What every reply of one request shares.
#[derive(Clone)]
pub struct ReplyHead {
    /// `model` as the caller wrote it.
    pub model: String,
    /// Clock for `created_at` and `total_duration`.
    pub clock: Clock,
    /// When the request arrived, by the same clock.
    pub started_ns: i64,
    /// Arrival to runner ready.
    pub load: Duration,
    /// [`super::ChatJob::top_logprobs`].
    pub top_logprobs: u32,
}

/// Which of the two reply shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// `done_reason` of a reply without generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadReason {
    /// The model was loaded.
    Load,
    /// The model was unloaded.
    Unload,
}

/// The single object of a load or unload (one JSON object even for streams, contract 4.4).
pub fn load_reply(shape: Shape, head: &ReplyHead, reason: LoadReason) -> Vec<u8> {
    let line = Line::new(shape, head);
    let mut out = Vec::with_capacity(160);
    line.open(&mut out);
    line.empty_message(&mut out);
    out.extend_from_slice(match reason {
        LoadReason::Load => b",\"done\":true,\"done_reason\":\"load\"}",
        LoadReason::Unload => b",\"done\":true,\"done_reason\":\"unload\"}",
    });
    out
}

/// The answer to `_debug_render_only`.
pub fn render_only_reply(shape: Shape, head: &ReplyHead, prompt: &str, images: usize) -> Vec<u8> {
    let line = Line::new(shape, head);
    let mut out = Vec::with_capacity(prompt.len() + 200);
    line.open(&mut out);
    line.empty_message(&mut out);
    out.extend_from_slice(b",\"done\":false,\"_debug_info\":{\"rendered_template\":");
    write_str(prompt, &mut out);
    if images > 0 {
        out.extend_from_slice(b",\"image_count\":");
        write_u64(images as u64, &mut out);
    }
    out.extend_from_slice(b"}}");
    out
}

/// The single object of `stream:false`.
///
/// # Errors
/// `EngineFailed` when a tool call's arguments are not a JSON object.
pub fn reply(shape: Shape, head: &ReplyHead, answer: &Answer, context: Option<&[i64]>) -> Result<Vec<u8>, RunnerError> {
    let line = Line::new(shape, head);
    let mut out = Vec::with_capacity(answer.text.len() + answer.reasoning.len() + 512);
    line.open(&mut out);
    match shape {
        Shape::Generate => {
            out.extend_from_slice(b",\"response\":");
            write_str(&answer.text, &mut out);
            if !answer.reasoning.is_empty() {
                out.extend_from_slice(b",\"thinking\":");
                write_str(&answer.reasoning, &mut out);
            }
        }
        Shape::Chat => {
            out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
            write_str(&answer.text, &mut out);
            if !answer.reasoning.is_empty() {
                out.extend_from_slice(b",\"thinking\":");
                write_str(&answer.reasoning, &mut out);
            }
            if !answer.tool_calls.is_empty() {
                out.extend_from_slice(b",\"tool_calls\":");
                out.extend(to_vec(&tool_calls(&answer.tool_calls)?));
            }
            out.push(b'}');
        }
    }
    line.end(answer.finish, &answer.usage, context, &mut out);
    if !answer.logprobs.is_empty() {
        out.extend_from_slice(b",\"logprobs\":");
        write_logprobs(&answer.logprobs, head.top_logprobs, &mut out);
    }
    out.push(b'}');
    Ok(out)
}

/// Writes the parts of lines that do not change between the lines of one reply.
pub(super) struct Line {
    shape: Shape,
    /// `{"model":"…","created_at":"`.
    head: Vec<u8>,
    clock: Clock,
    started_ns: i64,
    load: Duration,
}

impl Line {
    pub(super) fn new(shape: Shape, head: &ReplyHead) -> Self {
        let mut start = Vec::with_capacity(head.model.len() + 40);
        start.extend_from_slice(b"{\"model\":");
        write_str(&head.model, &mut start);
        start.extend_from_slice(b",\"created_at\":\"");
        Self {
            shape,
            head: start,
            clock: head.clock.clone(),
            started_ns: head.started_ns,
            load: head.load,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Model and time.
    pub(super) fn open(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        write_rfc3339((self.clock)(), out);
        out.push(b'"');
    }

    /// A message or response with nothing in it.
    pub(super) fn empty_message(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.shape {
            Shape::Chat => b",\"message\":{\"role\":\"assistant\",\"content\":\"\"}",
            Shape::Generate => &b",\"response\":\"\""[..],
        });
    }

    /// A line with text, up to and including `"done":false`; the brace is still owed.
    pub(super) fn text(&self, text: &str, out: &mut Vec<u8>) {
        self.open(out);
        match self.shape {
            Shape::Chat => {
                out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
                write_str(text, out);
                out.extend_from_slice(b"},\"done\":false");
            }
            Shape::Generate => {
                out.extend_from_slice(b",\"response\":");
                write_str(text, out);
                out.extend_from_slice(b",\"done\":false");
            }
        }
    }

    /// A line with reasoning, as [`Line::text`].
    pub(super) fn thinking(&self, text: &str, out: &mut Vec<u8>) {
        self.open(out);
        match self.shape {
            Shape::Chat => {
                out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":");
                write_str(text, out);
                out.extend_from_slice(b"},\"done\":false");
            }
            Shape::Generate => {
                out.extend_from_slice(b",\"response\":\"\",\"thinking\":");
                write_str(text, out);
                out.extend_from_slice(b",\"done\":false");
            }
        }
    }

    /// `done`, its reason, the context and the metrics that are not zero; the brace is still owed.
    pub(super) fn end(&self, finish: Option<FinishReason>, usage: &Usage, context: Option<&[i64]>, out: &mut Vec<u8>) {
        out.extend_from_slice(match finish {
            Some(FinishReason::Length) => b",\"done\":true,\"done_reason\":\"length\"",
            // Natively there is no word for tool calls.
            Some(FinishReason::Stop | FinishReason::ToolCalls) | None => {
                &b",\"done\":true,\"done_reason\":\"stop\""[..]
            }
        });
        if let Some(tokens) = context.filter(|tokens| !tokens.is_empty()) {
            out.extend_from_slice(b",\"context\":");
            out.extend(to_vec(&tokens));
        }
        let total = (self.clock)().saturating_sub(self.started_ns).max(1).unsigned_abs();
        // A count without a time (everything came from the cache) must not look like a division by zero to clients.
        let time = |tokens: u64, time: Duration| if tokens > 0 { nanos(time).max(1) } else { nanos(time) };
        for (name, number) in [
            (&b",\"total_duration\":"[..], total),
            (b",\"load_duration\":", nanos(self.load).max(1)),
            (b",\"prompt_eval_count\":", usage.prompt_tokens),
            (
                b",\"prompt_eval_duration\":",
                time(usage.prompt_tokens, usage.prompt_time),
            ),
            (b",\"eval_count\":", usage.completion_tokens),
            (
                b",\"eval_duration\":",
                time(usage.completion_tokens, usage.completion_time),
            ),
        ] {
            if number > 0 {
                out.extend_from_slice(name);
                write_u64(number, out);
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole tool calls in Ollama's form: arguments are an object.
///
/// # Errors
/// `EngineFailed` when the arguments are not a JSON object.
pub(super) fn tool_calls(calls: &[ToolCall]) -> Result<Value, RunnerError> {
    let whole = |(index, call): (usize, &ToolCall)| {
        let text = if call.arguments.trim().is_empty() {
            "{}"
        } else {
            call.arguments.as_str()
        };
        let arguments: Map<String, Value> = serde_json::from_str(text).map_err(|_| {
            RunnerError::new(
                ErrorKind::EngineFailed,
                format!(
                    "the model called the tool {:?} with arguments that are not a JSON object",
                    call.name
                ),
            )
        })?;
        let mut whole = json!({"function": {"index": index, "name": call.name, "arguments": arguments}});
        if let Some(id) = &call.id {
            whole = json!({"id": id, "function": whole["function"]});
        }
        Ok(whole)
    };
    calls
        .iter()
        .enumerate()
        .map(whole)
        .collect::<Result<Vec<_>, _>>()
        .map(Value::Array)
}

/// The flat list of contract 4.6; at most `top` alternatives, none when 0.
pub(super) fn write_logprobs(tokens: &[TokenLogprob], top: u32, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_token(token, out);
        if top > 0 {
            out.extend_from_slice(b",\"top_logprobs\":[");
            for (j, alternative) in token.top.iter().take(top as usize).enumerate() {
                if j > 0 {
                    out.push(b',');
                }
                write_token(alternative, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// `{"token":…,"logprob":…,"bytes":[…]`; the brace is still owed.
fn write_token(token: &TokenLogprob, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"token\":");
    write_str(&token.token, out);
    out.extend_from_slice(b",\"logprob\":");
    write_f64(token.logprob, out);
    out.extend_from_slice(b",\"bytes\":[");
    // Ollama's are those of the text, also where a token is a part of a character (contract 4.6).
    for (i, byte) in token.token.bytes().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_u64(u64::from(byte), out);
    }
    out.push(b']');
}
