use std::time::Duration;

use domain::{RunnerError, chat::Usage};
use memchr::memmem;
use serde_json::{Map, Value};

use super::signature::{ChunkSigner, Signature};
use super::stats::{Counts, V0Facts};
use crate::engine::{cut_error, error_from_value};
use crate::openai::StreamErrorForm;
use crate::sse::{SseSplitter, write_data};
use crate::{Clock, Transcoder};

/// Relays an OpenAI stream of the engine, adding `stats`, `model_info` and `runtime` to the last chunk before `[DONE]`
/// (contract 6). Chunks with text get their signature and pass; only a chunk that may be the last is held until the next one
/// arrives.
pub struct V0Stream {
    splitter: SseSplitter,
    state: State,
}

struct State {
    signer: ChunkSigner,
    facts: V0Facts,
    clock: Clock,
    started_ns: i64,
    first_ns: Option<i64>,
    held: Vec<u8>,
    scratch: Vec<u8>,
    counts: Counts,
    usage: Option<Usage>,
    error: Option<RunnerError>,
    ended: bool,
}

impl V0Stream {
    /// For one stream, made when the request is sent; `clock` measures the time to the first token.
    pub fn new(signature: Signature, facts: V0Facts, clock: Clock) -> Self {
        let started_ns = clock();
        Self {
            splitter: SseSplitter::new(),
            state: State {
                signer: ChunkSigner::new(signature),
                scratch: Vec::new(),
                facts,
                clock,
                started_ns,
                first_ns: None,
                held: Vec::new(),
                counts: Counts::default(),
                usage: None,
                error: None,
                ended: false,
            },
        }
    }
}

impl State {
    fn event(&mut self, name: &[u8], data: &[u8], out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        if data == b"[DONE]" {
            self.last_chunk(out);
            write_data(data, out);
            self.ended = true;
            return;
        }
        self.release(out);
        if name == b"error" || data.starts_with(b"{\"error\"") {
            let value: Value = serde_json::from_slice(data).unwrap_or_default();
            let error = error_from_value(None, value.get("error").unwrap_or(&value));
            self.fail(&error, out);
            return;
        }
        if self.first_ns.is_none() && memmem::find(data, b"\"content\":null").is_none() {
            self.first_ns = Some((self.clock)());
        }
        let open = memmem::find(data, b"\"finish_reason\":null").is_some();
        if open && memmem::find(data, b"\"timings\"").is_none() {
            self.send(data, out);
        } else {
            self.held.extend_from_slice(data);
        }
    }

    /// Sends the chunk that turned out not to be the last.
    fn release(&mut self, out: &mut Vec<u8>) {
        if self.held.is_empty() {
            return;
        }
        if let Ok(chunk) = serde_json::from_slice::<Map<String, Value>>(&self.held) {
            self.read(&chunk);
        }
        let held = std::mem::take(&mut self.held);
        self.send(&held, out);
    }

    fn send(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.scratch.clear();
        self.signer.chunk(chunk, &mut self.scratch);
        write_data(&self.scratch, out);
    }

    fn read(&mut self, chunk: &Map<String, Value>) {
        self.counts.read(chunk);
        let number = |name: &str| {
            self.counts
                .timings
                .as_ref()
                .and_then(|t| t.get(name))
                .and_then(Value::as_f64)
        };
        if let Some(predicted) = number("predicted_n") {
            let cached = number("cache_n").unwrap_or(0.0) as u64;
            let time = |name: &str| Duration::try_from_secs_f64(number(name).unwrap_or(0.0) / 1e3).unwrap_or_default();
            self.usage = Some(Usage {
                prompt_tokens: cached.saturating_add(number("prompt_n").unwrap_or(0.0) as u64),
                cached_tokens: cached,
                completion_tokens: predicted as u64,
                prompt_time: time("prompt_ms"),
                completion_time: time("predicted_ms"),
            });
        }
    }

    fn last_chunk(&mut self, out: &mut Vec<u8>) {
        self.scratch.clear();
        self.signer.chunk(&self.held, &mut self.scratch);
        let Ok(mut chunk) = serde_json::from_slice::<Map<String, Value>>(&self.scratch) else {
            // Nothing to add to; what came is passed on.
            return self.release(out);
        };
        self.held.clear();
        self.read(&chunk);
        let now = (self.clock)();
        let since = |at: i64| Duration::from_nanos(at.saturating_sub(self.started_ns).max(0).unsigned_abs());
        self.facts.add(
            &mut chunk,
            &self.counts,
            since(self.first_ns.unwrap_or(now)),
            since(now),
        );
        write_data(&crate::json::to_vec(&chunk), out);
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        self.release(out);
        self.ended = true;
        crate::openai::stream_error(error, StreamErrorForm::LmStudio, out);
        self.error = Some(error.clone());
    }
}

impl Transcoder for V0Stream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let state = &mut self.state;
        self.splitter
            .push(chunk, |event| state.event(event.event, event.data, out));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.state.ended {
            self.state.fail(&cut_error(), out);
        }
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
        self.state.usage.as_ref()
    }
}
