use domain::{
    RunnerError,
    chat::{FinishReason, TokenLogprob, Usage},
};

use super::error::{Route, status_and_text};
use super::reply::{Line, ReplyHead, Shape, tool_calls, write_logprobs};
use crate::engine::{GenerationDecoder, Piece, ToolCalls, Wire};
use crate::{Transcoder, json::to_vec, ndjson};

/// Engine stream to NDJSON lines of `/api/chat` or `/api/generate`. The final line is written by `finish`, so that a
/// handler can add the context tokens before.
pub struct ReplyStream {
    decoder: GenerationDecoder,
    state: State,
}

struct State {
    line: Line,
    top_logprobs: u32,
    /// Reply text of generate.
    text: String,
    context: Vec<i64>,
    calls: ToolCalls,
    /// Probabilities of tokens that made no visible text yet.
    waiting: Vec<TokenLogprob>,
    /// A line was written up to its closing brace, so that its probabilities can still be added.
    open: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    error: Option<RunnerError>,
    /// The final line or an error line was written.
    closed: bool,
}

impl ReplyStream {
    /// For one request.
    pub fn new(shape: Shape, wire: Wire, head: &ReplyHead) -> Self {
        Self {
            decoder: GenerationDecoder::new(wire),
            state: State {
                line: Line::new(shape, head),
                top_logprobs: head.top_logprobs,
                text: String::new(),
                context: Vec::new(),
                calls: ToolCalls::default(),
                waiting: Vec::new(),
                open: false,
                finish: None,
                usage: None,
                error: None,
                closed: false,
            },
        }
    }

    /// The reply so far (reasoning left out), for the `context` of the final line. Kept for [`Shape::Generate`] only.
    pub fn text(&self) -> &str {
        &self.state.text
    }

    /// Tokens of prompt and reply for the final line of generate.
    pub fn set_context(&mut self, tokens: Vec<i64>) {
        self.state.context = tokens;
    }
}

impl State {
    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        match piece {
            Piece::Text(text) => {
                self.close_line(out);
                self.line.text(&text, out);
                self.open = true;
                if self.line.shape() == Shape::Generate {
                    self.text.push_str(&text);
                }
            }
            Piece::Reasoning(text) => {
                self.close_line(out);
                self.line.thinking(&text, out);
                self.open = true;
            }
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                self.calls.add(index, id.as_deref(), name.as_deref(), &arguments);
            }
            Piece::Logprobs(tokens) => self.waiting.extend(tokens),
            Piece::Finish(reason) => {
                self.finish = Some(reason);
                self.emit_calls(out);
            }
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::Error(error) => self.fail(error, out),
            Piece::PromptProgress(_) | Piece::Done => {}
        }
    }

    /// Adds the probabilities that wait, and ends the open line.
    fn close_line(&mut self, out: &mut Vec<u8>) {
        if !self.open {
            return;
        }
        self.open = false;
        self.write_waiting(out);
        out.extend_from_slice(b"}\n");
    }

    fn write_waiting(&mut self, out: &mut Vec<u8>) {
        if !self.waiting.is_empty() {
            out.extend_from_slice(b",\"logprobs\":");
            write_logprobs(&self.waiting, self.top_logprobs, out);
            self.waiting.clear();
        }
    }

    /// Whole calls in a line of their own, before the final one (contract 4.2).
    fn emit_calls(&mut self, out: &mut Vec<u8>) {
        let calls = self.calls.take();
        if calls.is_empty() {
            return;
        }
        self.close_line(out);
        match tool_calls(&calls) {
            Err(error) => self.fail(error, out),
            Ok(calls) => {
                self.line.open(out);
                out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":");
                out.extend(to_vec(&calls));
                out.extend_from_slice(b"},\"done\":false");
                self.open = true;
            }
        }
    }

    fn fail(&mut self, error: RunnerError, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        self.close_line(out);
        self.closed = true;
        ndjson::write_error(&status_and_text(&error, Route::Other).1, out);
        self.error = Some(error);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        self.emit_calls(out);
        if self.closed {
            return;
        }
        self.close_line(out);
        self.closed = true;
        self.line.open(out);
        self.line.empty_message(out);
        let usage = self.usage.unwrap_or_default();
        self.line.end(self.finish, &usage, Some(&self.context), out);
        self.write_waiting(out);
        out.extend_from_slice(b"}\n");
    }
}

impl Transcoder for ReplyStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let state = &mut self.state;
        self.decoder.decode(chunk, |piece| state.piece(piece, out));
        // Lines go out whole: whatever belongs to this one came in the same engine event.
        self.state.close_line(out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match self.decoder.cut() {
            Some(error) => self.state.fail(error, out),
            None => self.state.finish(out),
        }
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.state.fail(error.clone(), out);
    }

    fn ended(&self) -> bool {
        self.state.closed || self.decoder.ended()
    }

    fn error(&self) -> Option<&RunnerError> {
        self.state.error.as_ref()
    }

    fn usage(&self) -> Option<&Usage> {
        self.state.usage.as_ref()
    }
}
