//! Several answers to one request. The engine counts only the first one's tokens in a whole answer, and in a stream puts a
//! count behind each: here they are added up.

use std::collections::BTreeMap;

use domain::RunnerError;
use domain::chat::Usage;
use memchr::memmem;
use serde_json::{Map, Value, json};

use super::check::Edits;
use super::reasoning::{ReasoningName, name_reasoning};
use super::relay::{StreamErrorForm, stream_error};
use crate::Transcoder;
use crate::engine::{cut_error, error_from_value};
use crate::json::to_vec;
use crate::peek::{Field, Key, Peeked};
use crate::sse::{SseSplitter, write_data};

/// How many answers a request gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Several {
    /// Answers to each prompt.
    answers: u64,
}

impl Several {
    /// `None`: one answer.
    pub fn of(peeked: &Peeked<'_>, answers: u32) -> Option<Self> {
        let prompts = peeked.get(Key::Prompt).filter(Field::is_array).map_or(1, |prompt| {
            let list: Vec<Value> = serde_json::from_slice(prompt.raw).unwrap_or_default();
            let tokens = list.first().is_some_and(Value::is_number);
            if tokens { 1 } else { list.len() }
        });
        (answers > 1 || prompts > 1).then_some(Self {
            answers: u64::from(answers),
        })
    }

    /// The engine has to stream, with counts, for a whole answer to be counted right.
    pub fn edits() -> Edits {
        vec![
            (Key::Stream, b"true".to_vec()),
            (Key::StreamOptions, br#"{"include_usage":true}"#.to_vec()),
        ]
    }
}

/// Counts of several answers: all they wrote, each prompt once.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    prompt: u64,
    cached: u64,
    completion: u64,
}

impl Sum {
    fn add(&mut self, usage: &Value) {
        let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        self.prompt += number("/prompt_tokens");
        self.cached += number("/prompt_tokens_details/cached_tokens");
        self.completion += number("/completion_tokens");
    }

    fn value(self, several: Several) -> Value {
        let prompt = self.prompt / several.answers.max(1);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": self.completion,
            "total_tokens": prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": (self.cached / several.answers.max(1)).min(prompt)},
        })
    }
}

/// A stream with several answers: one chunk of counts, at the end.
pub struct SeveralStream {
    splitter: SseSplitter,
    state: State,
}

struct State {
    several: Several,
    name: Option<ReasoningName>,
    form: StreamErrorForm,
    /// The last chunk of counts, and what they add up to.
    counts: Option<(Map<String, Value>, Sum)>,
    scratch: Vec<u8>,
    error: Option<RunnerError>,
    ended: bool,
}

impl SeveralStream {
    /// For one stream. `name`: another name for `reasoning_content`.
    pub fn new(several: Several, name: Option<ReasoningName>, form: StreamErrorForm) -> Self {
        Self {
            splitter: SseSplitter::new(),
            state: State {
                several,
                name,
                form,
                counts: None,
                scratch: Vec::new(),
                error: None,
                ended: false,
            },
        }
    }
}

impl State {
    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        // With several prompts the engine says `null` where it has nothing to say yet.
        if self.ended || data == b"null" {
            return;
        }
        if data == b"[DONE]" {
            if let Some((mut chunk, sum)) = self.counts.take() {
                chunk.insert("usage".into(), sum.value(self.several));
                write_data(&to_vec(&chunk), out);
            }
            write_data(data, out);
            self.ended = true;
            return;
        }
        if memmem::find(data, b"\"choices\":[]").is_some() || data.starts_with(b"{\"error\"") {
            let chunk: Map<String, Value> = serde_json::from_slice(data).unwrap_or_default();
            if let Some(error) = chunk.get("error") {
                return self.fail(&error_from_value(None, error), out);
            }
            if let Some(usage) = chunk.get("usage") {
                let mut sum = self.counts.as_ref().map_or_else(Sum::default, |(_, sum)| *sum);
                sum.add(usage);
                self.counts = Some((chunk, sum));
                return;
            }
        }
        match self.name {
            None => write_data(data, out),
            Some(name) => {
                self.scratch.clear();
                name_reasoning(data, name, &mut self.scratch);
                write_data(&self.scratch, out);
            }
        }
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.ended, true) {
            stream_error(error, self.form, out);
            self.error = Some(error.clone());
        }
    }
}

impl Transcoder for SeveralStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let state = &mut self.state;
        self.splitter.push(chunk, |event| state.event(event.data, out));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.state.fail(&cut_error(), out);
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.state.fail(error, out);
    }

    fn ended(&self) -> bool {
        self.state.ended
    }

    fn error(&self) -> Option<&RunnerError> {
        self.state.error.as_ref()
    }

    fn usage(&self) -> Option<&Usage> {
        None
    }
}

/// Puts a stream with several answers together into one whole answer.
pub struct SeveralAnswers {
    splitter: SseSplitter,
    parts: Parts,
}

#[derive(Default)]
struct Parts {
    /// Members that all chunks share.
    head: Map<String, Value>,
    choices: BTreeMap<u64, Map<String, Value>>,
    sum: Sum,
    error: Option<RunnerError>,
    ended: bool,
}

impl SeveralAnswers {
    /// For one stream.
    #[expect(
        clippy::new_without_default,
        reason = "an empty one is made for a stream, never as a value"
    )]
    pub fn new() -> Self {
        Self {
            splitter: SseSplitter::new(),
            parts: Parts::default(),
        }
    }

    /// Next piece of the engine's body.
    pub fn push(&mut self, chunk: &[u8]) {
        let parts = &mut self.parts;
        self.splitter.push(chunk, |event| parts.event(event.data));
    }

    /// Nothing that may still come matters.
    pub fn ended(&self) -> bool {
        self.parts.ended
    }

    /// The whole answer.
    ///
    /// # Errors
    /// What the engine reported, or that its stream was cut.
    pub fn finish(self, several: Several) -> Result<Vec<u8>, RunnerError> {
        let parts = self.parts;
        if let Some(error) = parts.error {
            return Err(error);
        }
        if !parts.ended {
            return Err(cut_error());
        }
        let mut whole = parts.head;
        whole.insert(
            "choices".into(),
            parts.choices.into_values().map(Value::Object).collect(),
        );
        whole.insert("usage".into(), parts.sum.value(several));
        Ok(to_vec(&whole))
    }
}

impl Parts {
    fn event(&mut self, data: &[u8]) {
        if self.ended || data == b"null" {
            return;
        }
        if data == b"[DONE]" {
            self.ended = true;
            return;
        }
        let Ok(mut chunk) = serde_json::from_slice::<Map<String, Value>>(data) else {
            self.error = Some(cut_error());
            self.ended = true;
            return;
        };
        if let Some(error) = chunk.get("error") {
            self.error = Some(error_from_value(None, error));
            self.ended = true;
            return;
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.sum.add(usage);
        }
        if let Some(Value::Array(choices)) = chunk.remove("choices") {
            for choice in choices {
                if let Value::Object(choice) = choice {
                    self.choice(choice);
                }
            }
        }
        if self.head.is_empty() {
            for name in ["id", "object", "created", "model", "system_fingerprint"] {
                if let Some(value) = chunk.remove(name) {
                    self.head.insert(name.into(), value);
                }
            }
            if self
                .head
                .get("object")
                .is_some_and(|kind| kind == "chat.completion.chunk")
            {
                self.head.insert("object".into(), "chat.completion".into());
            }
        }
    }

    fn choice(&mut self, mut piece: Map<String, Value>) {
        let index = piece.get("index").and_then(Value::as_u64).unwrap_or(0);
        let whole = self.choices.entry(index).or_insert_with(|| {
            let mut empty = Map::new();
            empty.insert("index".into(), index.into());
            empty
        });
        if let Some(Value::String(text)) = piece.remove("text") {
            append(whole, "text", &text);
            whole.entry("logprobs").or_insert(Value::Null);
        }
        if let Some(Value::Object(delta)) = piece.remove("delta") {
            let message = whole
                .entry("message")
                .or_insert_with(|| json!({"role": "assistant", "content": ""}));
            if let Some(message) = message.as_object_mut() {
                merge(message, delta);
            }
        }
        if let Some(Value::Array(tokens)) = piece
            .get_mut("logprobs")
            .and_then(|l| l.get_mut("content"))
            .map(Value::take)
        {
            let so_far = whole.entry("logprobs").or_insert(Value::Null);
            if so_far.is_null() {
                *so_far = json!({"content": []});
            }
            if let Some(list) = so_far["content"].as_array_mut() {
                list.extend(tokens);
            }
        }
        if let Some(reason) = piece.remove("finish_reason").filter(|reason| !reason.is_null()) {
            whole.insert("finish_reason".into(), reason);
        }
    }
}

/// Adds a delta to a message.
fn merge(message: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, value) in delta {
        match value {
            Value::String(text) if name != "role" => append(message, &name, &text),
            Value::Array(calls) if name == "tool_calls" => {
                let list = message.entry("tool_calls").or_insert_with(|| json!([]));
                for call in calls {
                    merge_call(list, &call);
                }
            }
            _ => {}
        }
    }
}

/// Most tool calls of one answer.
const MAX_CALLS: u64 = 1024;

fn merge_call(list: &mut Value, piece: &Value) {
    let index = piece.get("index").and_then(Value::as_u64).unwrap_or(0);
    let Some(list) = list.as_array_mut().filter(|_| index < MAX_CALLS) else {
        return;
    };
    while list.len() as u64 <= index {
        list.push(json!({"type": "function", "function": {"name": "", "arguments": ""}}));
    }
    let call = &mut list[index as usize];
    if let Some(id) = piece.get("id").filter(|id| id.is_string()) {
        call["id"] = id.clone();
    }
    if let Some(function) = call["function"].as_object_mut() {
        for name in ["name", "arguments"] {
            if let Some(text) = piece.pointer(&format!("/function/{name}")).and_then(Value::as_str) {
                append(function, name, text);
            }
        }
    }
}

fn append(object: &mut Map<String, Value>, name: &str, text: &str) {
    match object.get_mut(name) {
        Some(Value::String(so_far)) => so_far.push_str(text),
        _ => {
            object.insert(name.to_owned(), text.into());
        }
    }
}
