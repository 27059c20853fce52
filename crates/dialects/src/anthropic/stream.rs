use domain::{
    RunnerError,
    chat::{FinishReason, PromptProgress, Usage},
};
use serde_json::json;

use super::error::stream_error;
use super::reply::{ReplyHead, call_id};
use crate::engine::{GenerationDecoder, Piece, Wire};
use crate::json::{to_vec, write_str, write_u64};
use crate::{Transcoder, sse};

/// Engine chat stream to Anthropic's events. `message_start` is written as soon as the engine has counted the prompt, every
/// piece of text and of a tool's input as it comes.
pub struct MessageStream {
    decoder: GenerationDecoder,
    state: State,
}

/// The content block that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Thinking,
    Text,
    /// The engine's number of the call.
    Tool(u32),
}

struct State {
    head: ReplyHead,
    started: bool,
    block: Block,
    /// Index of the open block, or of the next one when none is open.
    index: u64,
    called: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    error: Option<RunnerError>,
    /// `message_stop` or `error` was written.
    closed: bool,
}

impl MessageStream {
    /// For one request.
    pub fn new(head: ReplyHead) -> Self {
        Self {
            decoder: GenerationDecoder::new(Wire::Chat),
            state: State {
                head,
                started: false,
                block: Block::None,
                index: 0,
                called: false,
                finish: None,
                usage: None,
                error: None,
                closed: false,
            },
        }
    }
}

impl State {
    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        match piece {
            Piece::PromptProgress(progress) => self.progress(progress, out),
            Piece::Reasoning(text) => {
                self.open(Block::Thinking, out);
                if !self.head.hides_thinking {
                    self.delta(r#""thinking_delta","thinking":"#, &text, out);
                }
            }
            Piece::Text(text) => {
                self.open(Block::Text, out);
                self.delta(r#""text_delta","text":"#, &text, out);
            }
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                if let Some(name) = name {
                    self.open_tool(index, id.as_deref(), &name, out);
                }
                // A piece of a call that is over belongs nowhere.
                if self.block == Block::Tool(index) && !arguments.is_empty() {
                    self.delta(r#""input_json_delta","partial_json":"#, &arguments, out);
                }
            }
            Piece::Logprobs(_) | Piece::Done => {}
            Piece::Finish(reason) => self.finish = Some(reason),
            Piece::Usage(usage) => self.usage = Some(usage),
            // Before the first event the handler can still answer with a status.
            Piece::Error(error) if !self.started => self.error = Some(error),
            Piece::Error(error) => self.fail(error, out),
        }
    }

    fn progress(&mut self, progress: PromptProgress, out: &mut Vec<u8>) {
        if self.started {
            // A long prompt is read in steps: each shows that the answer is coming.
            if self.block == Block::None && self.index == 0 && progress.processed < progress.total {
                ping(out);
            }
            return;
        }
        self.start(progress.total, progress.cached, out);
    }

    fn start(&mut self, prompt_tokens: u64, cached_tokens: u64, out: &mut Vec<u8>) {
        self.started = true;
        let usage = Usage {
            prompt_tokens,
            cached_tokens,
            ..Usage::default()
        };
        let message = json!({
            "type": "message_start",
            "message": {
                "id": self.head.id,
                "type": "message",
                "role": "assistant",
                "model": self.head.model,
                "content": [],
                "stop_reason": null,
                "stop_sequence": null,
                "usage": self.head.usage(&usage),
            },
        });
        sse::write_event("message_start", &to_vec(&message), out);
        ping(out);
    }

    /// Makes this the open block, closing another one before.
    fn open(&mut self, block: Block, out: &mut Vec<u8>) {
        if self.block == block {
            return;
        }
        let content: &[u8] = match block {
            Block::Thinking => br#"{"type":"thinking","thinking":"","signature":""}"#,
            _ => br#"{"type":"text","text":""}"#,
        };
        self.begin(block, content, out);
    }

    fn open_tool(&mut self, call: u32, id: Option<&str>, name: &str, out: &mut Vec<u8>) {
        if self.block == Block::Tool(call) {
            return;
        }
        let id = id.map_or_else(|| call_id(&self.head.id, call as usize), str::to_owned);
        let content = to_vec(&json!({"type": "tool_use", "id": id, "name": name, "input": {}}));
        self.called = true;
        self.begin(Block::Tool(call), &content, out);
    }

    fn begin(&mut self, block: Block, content: &[u8], out: &mut Vec<u8>) {
        if !self.started {
            let tokens = self
                .usage
                .map_or(self.head.estimated_tokens, |usage| usage.prompt_tokens);
            self.start(tokens, 0, out);
        }
        self.close_block(out);
        self.block = block;
        out.extend_from_slice(b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":");
        write_u64(self.index, out);
        out.extend_from_slice(b",\"content_block\":");
        out.extend_from_slice(content);
        out.extend_from_slice(b"}\n\n");
    }

    /// Written by hand: this runs for every token.
    fn delta(&self, member: &str, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
        write_u64(self.index, out);
        out.extend_from_slice(b",\"delta\":{\"type\":");
        out.extend_from_slice(member.as_bytes());
        write_str(text, out);
        out.extend_from_slice(b"}}\n\n");
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        if self.block == Block::None {
            return;
        }
        if self.block == Block::Thinking {
            // Nothing is signed here; clients want the event before the block ends.
            self.delta(r#""signature_delta","signature":"#, "", out);
        }
        self.block = Block::None;
        out.extend_from_slice(b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":");
        write_u64(self.index, out);
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    fn fail(&mut self, error: RunnerError, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        self.closed = true;
        stream_error(&error, self.head.request_id.as_deref(), out);
        self.error = Some(error);
    }

    fn finish(&mut self, stop_text: Option<&str>, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        if let Some(error) = self.error.take() {
            return self.fail(error, out);
        }
        let usage = self.usage.unwrap_or_default();
        if !self.started {
            self.start(usage.prompt_tokens, usage.cached_tokens, out);
        }
        self.close_block(out);
        self.closed = true;
        let (stop_reason, stop_sequence) = self.head.stop(self.finish, self.called, stop_text);
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
            "usage": self.head.usage(&usage),
        });
        sse::write_event("message_delta", &to_vec(&delta), out);
        sse::write_event("message_stop", br#"{"type":"message_stop"}"#, out);
    }
}

fn ping(out: &mut Vec<u8>) {
    sse::write_event("ping", br#"{"type":"ping"}"#, out);
}

impl Transcoder for MessageStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let state = &mut self.state;
        self.decoder.decode(chunk, |piece| state.piece(piece, out));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match self.decoder.cut() {
            Some(error) => self.state.fail(error, out),
            None => self.state.finish(self.decoder.stop_text(), out),
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
