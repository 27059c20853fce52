use std::collections::HashMap;

use domain::RunnerError;
use domain::chat::{FinishReason, Usage};
use serde_json::{Map, Value, json};

use super::events::State;
use super::output::{self, Stage};
use super::request::ResponsesCall;
use super::stored::StoredResponse;
use crate::engine::{GenerationDecoder, Wire};
use crate::{Clock, Transcoder};

/// How reasoning is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReasoningForm {
    /// `reasoning_text` parts (LM Studio contract 4.5).
    #[default]
    Text,
    /// `summary_text` parts (Ollama contract 7.3), also when a request asks for summaries.
    Summary,
}

/// What all events of one response share.
#[derive(Clone)]
pub struct ResponseHead {
    pub(super) id: String,
    pub(super) model: String,
    clock: Clock,
    pub(super) created_at: i64,
    pub(super) echo: Map<String, Value>,
    pub(super) namespaces: HashMap<String, (String, String)>,
    pub(super) reasoning: ReasoningForm,
    pub(super) sealed: bool,
    pub(super) alternatives: usize,
    items: Vec<Value>,
}

impl ResponseHead {
    /// For one request. `hex`: 48 hexadecimal digits that no other response has; `model`: the name that is repeated.
    pub fn new(call: &ResponsesCall, hex: &str, model: &str, clock: Clock) -> Self {
        Self {
            id: format!("resp_{hex}"),
            model: model.to_owned(),
            created_at: clock().div_euclid(1_000_000_000),
            clock,
            echo: call.echo.clone(),
            namespaces: call.namespaces.clone(),
            reasoning: call.reasoning,
            sealed: call.sealed,
            alternatives: call.echo.get("top_logprobs").and_then(Value::as_u64).unwrap_or(0) as usize,
            items: call.items.clone(),
        }
    }

    /// The id of the response.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// An id that belongs to this response: its digits with a number in place of the last ones.
    pub(super) fn item_id(&self, prefix: &str, number: usize) -> String {
        let hex = &self.id["resp_".len()..];
        let kept = hex.len().saturating_sub(4);
        format!("{prefix}_{}{number:04x}", &hex[..kept])
    }
}

/// Engine stream to the events of `/v1/responses`. Everything goes out as it comes, argument pieces included.
///
/// The last event is written by [`Transcoder::finish`], so that a handler can keep the answer before the client knows that it
/// is complete: [`ResponseStream::settle`] gives it.
pub struct ResponseStream {
    decoder: GenerationDecoder,
    state: State,
}

impl ResponseStream {
    /// For one stream. `with_logprobs`: the engine was asked for probabilities.
    pub fn new(head: ResponseHead, with_logprobs: bool) -> Self {
        Self {
            decoder: GenerationDecoder::new(Wire::Chat),
            state: State::new(head, with_logprobs),
        }
    }

    /// Writes what is owed before the last event. What is to be kept, when the response did not fail.
    pub fn settle(&mut self, out: &mut Vec<u8>) -> Option<StoredResponse> {
        if let Some(error) = self.decoder.cut() {
            self.state.error.get_or_insert(error);
        }
        let state = &mut self.state;
        if state.over || state.error.is_some() {
            return None;
        }
        state.start(out);
        state.close(out);
        if state.output.is_empty() {
            state.open_message(out);
            state.close(out);
        }
        let response = state.response.get_or_insert_with(|| {
            let head = &state.head;
            let incomplete = state.finish == Some(FinishReason::Length);
            let stage = Stage {
                status: if incomplete { "incomplete" } else { "completed" },
                completed_at: (!incomplete).then(|| (head.clock)().div_euclid(1_000_000_000)),
                incomplete: if incomplete {
                    json!({"reason": "max_output_tokens"})
                } else {
                    Value::Null
                },
                output: state.output.clone(),
                usage: output::usage(&state.usage.unwrap_or_default(), state.reasoning_tokens),
                ..Stage::default()
            };
            output::response(&head.id, &head.model, head.created_at, &head.echo, stage)
        });
        let id = |prefix: &str, i: usize| state.head.item_id(prefix, 0x8000 + i);
        Some(StoredResponse::new(response.clone(), state.head.items.clone(), id))
    }

    /// The whole answer; for requests that do not stream.
    ///
    /// # Errors
    /// What the engine reported, or that its answer was cut.
    pub fn into_stored(mut self) -> Result<StoredResponse, RunnerError> {
        let stored = self.settle(&mut Vec::new());
        match (stored, self.state.error) {
            (Some(stored), None) => Ok(stored),
            (_, error) => Err(error.unwrap_or_else(crate::engine::cut_error)),
        }
    }
}

impl Transcoder for ResponseStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Self { decoder, state } = self;
        decoder.decode(chunk, |piece| state.piece(piece, out));
        if decoder.ended() {
            state.ended = true;
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.state.over {
            return;
        }
        self.settle(out);
        let state = &mut self.state;
        if let Some(error) = state.error.clone() {
            return state.failed(&error, out);
        }
        state.over = true;
        if let Some(response) = state.response.take() {
            let name = if response["status"] == "incomplete" {
                "response.incomplete"
            } else {
                "response.completed"
            };
            state.event(name, json!({"response": response}), out);
        }
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.state.ended = true;
        if !self.state.over {
            self.state.error.get_or_insert_with(|| error.clone());
            self.state.failed(error, out);
        }
    }

    fn ended(&self) -> bool {
        self.state.ended
    }

    fn error(&self) -> Option<&RunnerError> {
        self.state.error.as_ref()
    }

    fn usage(&self) -> Option<&Usage> {
        self.state.usage.as_ref()
    }
}
