use std::time::Duration;

use domain::RunnerError;
use domain::chat::Usage;
use serde_json::{Value, json};

use super::chat::{ChatResult, OutputItem};
use super::error::error_value;
use super::seconds;
use crate::StreamForm;
use crate::engine::{GenerationDecoder, Piece, Wire};
use crate::json::{to_vec, write_str};
use crate::sse::write_event;

/// The events of `POST /api/v1/chat` with `stream` (contract 7.5), from the first to the last: the caller tells what
/// happens around the engine's answer, [`ChatStream::push`] reads the answer itself. It also collects what an answer that
/// is not streamed needs.
pub struct ChatStream {
    decoder: GenerationDecoder,
    told: Told,
}

struct Told {
    instance_id: String,
    prompt: Prompt,
    /// The last item of `output` is still open.
    open: bool,
    output: Vec<OutputItem>,
    usage: Usage,
    error: Option<RunnerError>,
}

/// Where the reading of the prompt stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Prompt {
    Before,
    /// Share told last.
    Reading(f64),
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl ChatStream {
    /// For one answer.
    pub fn new(instance_id: String) -> Self {
        Self {
            decoder: GenerationDecoder::new(Wire::Chat),
            told: Told {
                instance_id,
                prompt: Prompt::Before,
                open: false,
                output: Vec::new(),
                usage: Usage::default(),
                error: None,
            },
        }
    }

    /// The first event.
    pub fn start(&self, out: &mut Vec<u8>) {
        self.told.event("chat.start", json!({}), true, out);
    }

    /// The model is not there and will be loaded.
    pub fn load_start(&self, out: &mut Vec<u8>) {
        self.told.event("model_load.start", json!({}), true, out);
    }

    /// How far the load is, 0 to 1.
    pub fn load_progress(&self, progress: f32, out: &mut Vec<u8>) {
        self.told
            .event("model_load.progress", json!({ "progress": progress }), true, out);
    }

    /// The model is there.
    pub fn load_end(&self, took: Duration, out: &mut Vec<u8>) {
        self.told
            .event("model_load.end", json!({"load_time_seconds": seconds(took)}), true, out);
    }

    /// The engine has the request.
    pub fn prompt_start(&mut self, out: &mut Vec<u8>) {
        self.told.prompt = Prompt::Reading(0.0);
        self.told.event("prompt_processing.start", json!({}), false, out);
    }

    /// The next piece of the engine's answer.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let told = &mut self.told;
        self.decoder.decode(chunk, |piece| told.piece(piece, out));
    }

    /// The engine said it is done, or failed: nothing that it may still send matters.
    pub fn ended(&self) -> bool {
        self.decoder.ended()
    }

    /// Something of the answer is there.
    pub fn has_output(&self) -> bool {
        !self.told.output.is_empty()
    }

    /// The engine's answer ended; one that was cut becomes an error.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let cut = self.decoder.cut();
        if self.told.error.is_none() {
            self.told.error = cut;
        }
        self.told.close(out);
        if let Some(error) = &self.told.error {
            write_error(error, out);
        }
    }

    /// Something else went wrong; only [`Self::end`] follows.
    pub fn fail(&mut self, error: RunnerError, out: &mut Vec<u8>) {
        self.told.close(out);
        write_error(&error, out);
        self.told.error = Some(error);
    }

    /// What went wrong, if anything did.
    pub fn error(&self) -> Option<&RunnerError> {
        self.told.error.as_ref()
    }

    /// The answer so far.
    pub fn output(&self) -> &[OutputItem] {
        &self.told.output
    }

    /// Reasoning of the answer so far.
    pub fn reasoning(&self) -> String {
        let texts = self.told.output.iter().filter_map(|item| match item {
            OutputItem::Reasoning(text) => Some(text.as_str()),
            OutputItem::Message(_) => None,
        });
        texts.collect()
    }

    /// The result, with what the stream itself knows filled in.
    pub fn result(&self) -> ChatResult {
        ChatResult {
            instance_id: self.told.instance_id.clone(),
            output: self.told.output.clone(),
            usage: self.told.usage,
            ..ChatResult::default()
        }
    }

    /// The last event.
    pub fn end(&self, result: &ChatResult, out: &mut Vec<u8>) {
        self.told
            .event("chat.end", json!({"result": result.value()}), false, out);
    }
}

/// The stream of a chat that failed before its first event.
pub struct ChatForm {
    instance_id: String,
}

impl ChatForm {
    /// For one answer.
    pub fn new(instance_id: String) -> Self {
        Self { instance_id }
    }
}

impl StreamForm for ChatForm {
    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        let mut stream = ChatStream::new(self.instance_id.clone());
        stream.start(out);
        stream.fail(error.clone(), out);
        stream.end(&stream.result(), out);
    }
}

fn write_error(error: &RunnerError, out: &mut Vec<u8>) {
    write_event(
        "error",
        &to_vec(&json!({"type": "error", "error": error_value(error)})),
        out,
    );
}

impl Told {
    fn event(&self, name: &str, members: Value, with_instance: bool, out: &mut Vec<u8>) {
        let mut value = json!({ "type": name });
        if with_instance {
            value["model_instance_id"] = self.instance_id.as_str().into();
        }
        if let (Value::Object(event), Value::Object(members)) = (&mut value, members) {
            event.extend(members);
        }
        write_event(name, &to_vec(&value), out);
    }

    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match piece {
            Piece::Text(text) => self.delta(Kind::Message, &text, out),
            Piece::Reasoning(text) => self.delta(Kind::Reasoning, &text, out),
            Piece::PromptProgress(progress) => {
                let share = progress.processed as f64 / progress.total.max(1) as f64;
                if let Prompt::Reading(last) = self.prompt
                    && share > last
                {
                    let share = share.min(1.0);
                    self.prompt = Prompt::Reading(share);
                    self.event("prompt_processing.progress", json!({ "progress": share }), false, out);
                }
            }
            Piece::Finish(_) => self.prompt_end(out),
            Piece::Usage(usage) => self.usage = usage,
            Piece::Error(error) => self.error = Some(error),
            // No tools are offered on this route, so the engine looks for no calls.
            Piece::ToolCall { .. } | Piece::Logprobs(_) | Piece::Done => {}
        }
    }

    fn prompt_end(&mut self, out: &mut Vec<u8>) {
        if matches!(self.prompt, Prompt::Reading(_)) {
            self.prompt = Prompt::After;
            self.event("prompt_processing.end", json!({}), false, out);
        }
    }

    fn delta(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        self.prompt_end(out);
        let current = self.output.last().filter(|_| self.open).map(OutputItem::kind);
        if current != Some(kind) {
            self.close(out);
            let (name, item) = match kind {
                Kind::Reasoning => ("reasoning.start", OutputItem::Reasoning(String::new())),
                Kind::Message => ("message.start", OutputItem::Message(String::new())),
            };
            self.event(name, json!({}), false, out);
            self.output.push(item);
            self.open = true;
        }
        // One of these per token: written by hand.
        let name: &[u8] = match kind {
            Kind::Reasoning => b"reasoning.delta",
            Kind::Message => b"message.delta",
        };
        for piece in [
            b"event: ".as_slice(),
            name,
            b"\ndata: {\"type\":\"",
            name,
            b"\",\"content\":",
        ] {
            out.extend_from_slice(piece);
        }
        write_str(text, out);
        out.extend_from_slice(b"}\n\n");
        if let Some(item) = self.output.last_mut() {
            item.text_mut().push_str(text);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.prompt_end(out);
        if !std::mem::take(&mut self.open) {
            return;
        }
        let name = match self.output.last().map(OutputItem::kind) {
            Some(Kind::Reasoning) => "reasoning.end",
            Some(Kind::Message) | None => "message.end",
        };
        self.event(name, json!({}), false, out);
    }
}

impl OutputItem {
    fn kind(&self) -> Kind {
        match self {
            Self::Reasoning(_) => Kind::Reasoning,
            Self::Message(_) => Kind::Message,
        }
    }
}
