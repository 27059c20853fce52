//! A response's items and the events that tell of them.

use domain::RunnerError;
use domain::chat::{FinishReason, TokenLogprob, Usage};
use serde_json::{Map, Value, json};

use super::output::{self, Call, Stage};
use super::stream::{ReasoningForm, ResponseHead};
use crate::engine::Piece;
use crate::json::{to_vec, write_str, write_u64};
use crate::openai::error::error_value;

/// What a response is so far, and its events.
pub(super) struct State {
    pub(super) head: ResponseHead,
    sequence: u64,
    started: bool,
    /// Items that are complete.
    pub(super) output: Vec<Value>,
    open: Option<Open>,
    /// Text whose probabilities come with the next piece.
    held: Option<String>,
    with_logprobs: bool,
    /// The output index of each call of the engine's.
    calls: u32,
    pub(super) reasoning_tokens: u64,
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<FinishReason>,
    pub(super) error: Option<RunnerError>,
    pub(super) response: Option<Value>,
    pub(super) ended: bool,
    pub(super) over: bool,
}

enum Open {
    Reasoning {
        id: String,
        text: String,
    },
    Message {
        id: String,
        text: String,
        logprobs: Vec<Value>,
    },
    Call {
        index: u32,
        id: String,
        call_id: String,
        name: String,
        namespace: Option<String>,
        arguments: String,
    },
}

impl State {
    pub(super) fn new(head: ResponseHead, with_logprobs: bool) -> Self {
        Self {
            head,
            sequence: 0,
            started: false,
            output: Vec::new(),
            open: None,
            held: None,
            with_logprobs,
            calls: 0,
            reasoning_tokens: 0,
            usage: None,
            finish: None,
            error: None,
            response: None,
            ended: false,
            over: false,
        }
    }

    /// Appends the events of one piece of the engine's answer.
    pub(super) fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match piece {
            Piece::Text(text) => {
                self.start(out);
                self.flush_held(&[], out);
                if self.with_logprobs {
                    self.held = Some(text.into_owned());
                } else {
                    self.text(&text, &[], out);
                }
            }
            Piece::Logprobs(tokens) => self.flush_held(&tokens, out),
            Piece::Reasoning(text) => {
                self.start(out);
                self.flush_held(&[], out);
                self.reasoning_tokens += 1;
                self.reason(&text, out);
            }
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                self.start(out);
                self.flush_held(&[], out);
                self.call(index, id.as_deref(), name.as_deref(), &arguments, out);
            }
            Piece::Finish(reason) => {
                self.start(out);
                self.finish = Some(reason);
            }
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::Error(error) => self.error = Some(error),
            _ => {}
        }
    }

    /// `response.created` and `response.in_progress`, before anything else.
    pub(super) fn start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        for name in ["response.created", "response.in_progress"] {
            let head = &self.head;
            let stage = Stage {
                status: "in_progress",
                ..Stage::default()
            };
            let response = output::response(&head.id, &head.model, head.created_at, &head.echo, stage);
            self.event(name, json!({"response": response}), out);
        }
    }

    fn flush_held(&mut self, tokens: &[TokenLogprob], out: &mut Vec<u8>) {
        let logprobs: Vec<Value> = tokens
            .iter()
            .map(|token| output::logprob(token, self.head.alternatives))
            .collect();
        if let Some(text) = self.held.take() {
            self.text(&text, &logprobs, out);
        }
    }

    /// Begins a message, unless one is open.
    pub(super) fn open_message(&mut self, out: &mut Vec<u8>) {
        if matches!(self.open, Some(Open::Message { .. })) {
            return;
        }
        self.close(out);
        let at = self.output.len();
        let id = self.head.item_id("msg", at);
        let item = output::message(&id, "in_progress", &[]);
        self.event(
            "response.output_item.added",
            json!({"output_index": at, "item": item}),
            out,
        );
        let part = output::text_part("", &[]);
        self.event(
            "response.content_part.added",
            json!({"item_id": id, "output_index": at, "content_index": 0, "part": part}),
            out,
        );
        self.open = Some(Open::Message {
            id,
            text: String::new(),
            logprobs: Vec::new(),
        });
    }

    fn text(&mut self, piece: &str, probabilities: &[Value], out: &mut Vec<u8>) {
        self.open_message(out);
        let at = self.output.len() as u64;
        let sequence = self.next();
        if let Some(Open::Message { id, text, logprobs }) = &mut self.open {
            begin("response.output_text.delta", sequence, id, at, out);
            out.extend_from_slice(b",\"content_index\":0,\"delta\":");
            write_str(piece, out);
            out.extend_from_slice(b",\"logprobs\":");
            if probabilities.is_empty() {
                out.extend_from_slice(b"[]");
            } else {
                out.extend_from_slice(&to_vec(&probabilities));
            }
            end(out);
            text.push_str(piece);
            logprobs.extend_from_slice(probabilities);
        }
    }

    fn reason(&mut self, piece: &str, out: &mut Vec<u8>) {
        let form = self.head.reasoning;
        if !matches!(self.open, Some(Open::Reasoning { .. })) {
            self.close(out);
            let at = self.output.len();
            let id = self.head.item_id("rs", at);
            let item = json!({"id": id, "type": "reasoning", "summary": []});
            self.event(
                "response.output_item.added",
                json!({"output_index": at, "item": item}),
                out,
            );
            let (name, place) = part_event(form, "added");
            let part = part_of(form, "");
            self.event(
                name,
                json!({"item_id": id, "output_index": at, place: 0, "part": part}),
                out,
            );
            self.open = Some(Open::Reasoning {
                id,
                text: String::new(),
            });
        }
        let at = self.output.len() as u64;
        let sequence = self.next();
        if let Some(Open::Reasoning { id, text }) = &mut self.open {
            let (name, place): (_, &[u8]) = match form {
                ReasoningForm::Text => ("response.reasoning_text.delta", b",\"content_index\":0,\"delta\":"),
                ReasoningForm::Summary => (
                    "response.reasoning_summary_text.delta",
                    b",\"summary_index\":0,\"delta\":",
                ),
            };
            begin(name, sequence, id, at, out);
            out.extend_from_slice(place);
            write_str(piece, out);
            end(out);
            text.push_str(piece);
        }
    }

    fn call(&mut self, index: u32, id: Option<&str>, name: Option<&str>, piece: &str, out: &mut Vec<u8>) {
        let same = matches!(&self.open, Some(Open::Call { index: open, .. }) if *open == index);
        if !same {
            if index < self.calls {
                // A piece of a call that is complete: the engine never sends one.
                return;
            }
            self.close(out);
            self.calls = index.saturating_add(1);
            let at = self.output.len();
            let flat = name.unwrap_or_default();
            let (namespace, name) = match self.head.namespaces.get(flat) {
                Some((namespace, name)) => (Some(namespace.clone()), name.clone()),
                None => (None, flat.to_owned()),
            };
            let item_id = self.head.item_id("fc", at);
            let call_id = id.map_or_else(|| self.head.item_id("call", at), str::to_owned);
            let item = Call {
                id: &item_id,
                answered_by: &call_id,
                name: &name,
                namespace: namespace.as_deref(),
                arguments: "",
                status: "in_progress",
            }
            .item();
            self.event(
                "response.output_item.added",
                json!({"output_index": at, "item": item}),
                out,
            );
            self.open = Some(Open::Call {
                index,
                id: item_id,
                call_id,
                name,
                namespace,
                arguments: String::new(),
            });
        }
        if piece.is_empty() {
            return;
        }
        let at = self.output.len() as u64;
        let sequence = self.next();
        if let Some(Open::Call { id, arguments, .. }) = &mut self.open {
            begin("response.function_call_arguments.delta", sequence, id, at, out);
            out.extend_from_slice(b",\"delta\":");
            write_str(piece, out);
            end(out);
            arguments.push_str(piece);
        }
    }

    /// Completes the open item.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.flush_held(&[], out);
        let Some(open) = self.open.take() else { return };
        let at = self.output.len();
        let cut = self.finish == Some(FinishReason::Length);
        let status = if cut { "incomplete" } else { "completed" };
        let item = match open {
            Open::Reasoning { id, text } => {
                let form = self.head.reasoning;
                let (name, place) = match form {
                    ReasoningForm::Text => ("response.reasoning_text.done", "content_index"),
                    ReasoningForm::Summary => ("response.reasoning_summary_text.done", "summary_index"),
                };
                self.event(
                    name,
                    json!({"item_id": id, "output_index": at, place: 0, "text": text}),
                    out,
                );
                let (name, place) = part_event(form, "done");
                let part = part_of(form, &text);
                self.event(
                    name,
                    json!({"item_id": id, "output_index": at, place: 0, "part": part}),
                    out,
                );
                output::reasoning(&id, &text, form, self.head.sealed)
            }
            Open::Message { id, text, logprobs } => {
                self.event(
                    "response.output_text.done",
                    json!({"item_id": id, "output_index": at, "content_index": 0, "text": text, "logprobs": logprobs}),
                    out,
                );
                let part = output::text_part(&text, &logprobs);
                self.event(
                    "response.content_part.done",
                    json!({"item_id": id, "output_index": at, "content_index": 0, "part": part}),
                    out,
                );
                output::message(&id, status, &[part])
            }
            Open::Call {
                id,
                call_id,
                name,
                namespace,
                arguments,
                ..
            } => {
                self.event(
                    "response.function_call_arguments.done",
                    json!({"item_id": id, "output_index": at, "name": name, "arguments": arguments}),
                    out,
                );
                Call {
                    id: &id,
                    answered_by: &call_id,
                    name: &name,
                    namespace: namespace.as_deref(),
                    arguments: &arguments,
                    status,
                }
                .item()
            }
        };
        self.event(
            "response.output_item.done",
            json!({"output_index": at, "item": item}),
            out,
        );
        self.output.push(item);
    }

    /// `response.failed`, after what was said so far. No normal end follows (promise H3).
    pub(super) fn failed(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.start(out);
        self.over = true;
        let value = error_value(error);
        let head = &self.head;
        let stage = Stage {
            status: "failed",
            error: json!({"code": value["code"], "message": value["message"]}),
            output: std::mem::take(&mut self.output),
            usage: self
                .usage
                .map_or(Value::Null, |usage| output::usage(&usage, self.reasoning_tokens)),
            ..Stage::default()
        };
        let response = output::response(&head.id, &head.model, head.created_at, &head.echo, stage);
        self.event("response.failed", json!({"response": response}), out);
    }

    fn next(&mut self) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }

    /// One of the events that come once per item or response.
    pub(super) fn event(&mut self, name: &str, members: Value, out: &mut Vec<u8>) {
        let mut object = Map::new();
        object.insert("type".into(), name.into());
        object.insert("sequence_number".into(), self.next().into());
        if let Value::Object(members) = members {
            object.extend(members);
        }
        crate::sse::write_event(name, &to_vec(&object), out);
    }
}

/// The event around a part of reasoning, and the name of its place.
fn part_event(form: ReasoningForm, stage: &str) -> (&'static str, &'static str) {
    match (form, stage) {
        (ReasoningForm::Text, "added") => ("response.content_part.added", "content_index"),
        (ReasoningForm::Text, _) => ("response.content_part.done", "content_index"),
        (ReasoningForm::Summary, "added") => ("response.reasoning_summary_part.added", "summary_index"),
        (ReasoningForm::Summary, _) => ("response.reasoning_summary_part.done", "summary_index"),
    }
}

fn part_of(form: ReasoningForm, text: &str) -> Value {
    match form {
        ReasoningForm::Text => json!({"type": "reasoning_text", "text": text}),
        ReasoningForm::Summary => json!({"type": "summary_text", "text": text}),
    }
}

/// The members all deltas begin with. By hand: this runs for every token.
fn begin(name: &str, sequence: u64, item: &str, index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: {\"type\":\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\",\"sequence_number\":");
    write_u64(sequence, out);
    out.extend_from_slice(b",\"item_id\":\"");
    out.extend_from_slice(item.as_bytes());
    out.extend_from_slice(b"\",\"output_index\":");
    write_u64(index, out);
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n\n");
}
