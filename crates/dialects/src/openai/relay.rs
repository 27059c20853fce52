use domain::RunnerError;
use serde_json::json;

use super::error::error_value;
use crate::{StreamForm, engine, json::to_vec, sse};

/// How an error inside a stream is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamErrorForm {
    /// `data: {"error":{…}}`, then the connection ends without `[DONE]` (promise H3).
    OpenAi,
    /// llama-server's: as OpenAI's, with its own words and a number as `code`.
    LlamaCpp,
    /// LM Studio contract 8: `event: error` with `data: {"error":{…},"message":"…"}`, then `data: [DONE]`.
    LmStudio,
}

impl StreamForm for StreamErrorForm {
    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        stream_error(error, *self, out);
    }
}

/// Appends the error frame.
pub fn stream_error(error: &RunnerError, form: StreamErrorForm, out: &mut Vec<u8>) {
    match form {
        StreamErrorForm::OpenAi => sse::write_data(&to_vec(&json!({"error": error_value(error)})), out),
        StreamErrorForm::LlamaCpp => {
            sse::write_data(&to_vec(&json!({"error": crate::llamacpp::error_value(error)})), out);
        }
        StreamErrorForm::LmStudio => {
            let value = crate::lmstudio_rest::error_value(error);
            let body = to_vec(&json!({"error": value, "message": error.message}));
            sse::write_event("error", &body, out);
            sse::write_data(b"[DONE]", out);
        }
    }
}

/// Enough of the stream's end to hold `data: [DONE]` with any line ends.
const TAIL: usize = 20;

/// Watches relayed SSE bytes (never changes them), so that a cut stream can be told from a complete one. Costs a few bytes
/// copied per chunk, whatever the chunk's size.
#[derive(Debug, Default)]
pub struct RelayTail {
    tail: [u8; TAIL],
    length: usize,
    ended: bool,
    /// For streams that end with a last event instead of `[DONE]`.
    native: Option<NativeEnd>,
}

/// llama-server's own streams: those of completions end with an event that says `"stop":true`, those of responses with
/// `response.completed`.
#[derive(Debug, Default)]
struct NativeEnd {
    splitter: sse::SseSplitter,
    stopped: bool,
}

impl NativeEnd {
    fn observe(&mut self, chunk: &[u8]) {
        let stopped = &mut self.stopped;
        self.splitter.push(chunk, |event| {
            // Inside a string the quotes would be escaped.
            *stopped = memchr::memmem::find(event.data, br#""stop":true"#).is_some()
                || memchr::memmem::find(event.data, br#""type":"response.completed""#).is_some();
        });
    }
}

impl RelayTail {
    /// A watcher for one stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A watcher for a stream of `/completion` or `/infill`.
    pub fn native() -> Self {
        Self {
            native: Some(NativeEnd::default()),
            ..Self::default()
        }
    }

    /// Sees a relayed chunk.
    pub fn observe(&mut self, chunk: &[u8]) {
        if let Some(native) = &mut self.native {
            native.observe(chunk);
        }
        if let Some(last) = chunk.len().checked_sub(TAIL) {
            self.tail.copy_from_slice(&chunk[last..]);
            self.length = TAIL;
            return;
        }
        let kept = self.length.min(TAIL - chunk.len());
        self.tail.copy_within(self.length - kept..self.length, 0);
        self.tail[kept..kept + chunk.len()].copy_from_slice(chunk);
        self.length = kept + chunk.len();
    }

    /// The last event was `data: [DONE]`, or the last one of llama-server's own form.
    pub fn complete(&self) -> bool {
        if self.native.as_ref().is_some_and(|native| native.stopped) {
            return true;
        }
        let seen = self.seen().trim_ascii_end();
        seen.ends_with(b"data: [DONE]") || seen.ends_with(b"data:[DONE]")
    }

    /// The engine's body ended: nothing when the stream was complete, else the error frame of a cut stream.
    pub fn finish(&mut self, form: StreamErrorForm, out: &mut Vec<u8>) {
        if self.complete() {
            self.ended = true;
            return;
        }
        self.fail(&engine::cut_error(), form, out);
    }

    /// Ends the open line, if any, and writes the error frame; nothing after a complete stream or a second time.
    pub fn fail(&mut self, error: &RunnerError, form: StreamErrorForm, out: &mut Vec<u8>) {
        if self.ended || self.complete() {
            return;
        }
        self.ended = true;
        let seen = self.seen();
        if !(seen.is_empty() || seen.ends_with(b"\n\n") || seen.ends_with(b"\r\n\r\n")) {
            // The half event must not swallow ours: its line is ended and a blank line closes it. The client sees a chunk it
            // cannot parse, which is an error to it as well.
            out.extend_from_slice(if seen.ends_with(b"\n") { b"\n" } else { b"\n\n" });
        }
        stream_error(error, form, out);
    }

    fn seen(&self) -> &[u8] {
        &self.tail[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_only_after_done() {
        let cases: [(&[&[u8]], bool); 6] = [
            (&[b"data: {}\n\ndata: [DONE]\n\n"], true),
            (&[b"data: {}\n\ndata: [DO", b"NE]", b"\n", b"\n"], true),
            (&[b"data: {}\n\n", b"data: [DONE]\r\n\r\n"], true),
            (&[b"data: {\"a\":\"[DONE]\"}\n\n"], false),
            (&[b"data: {}\n\n"], false),
            (&[], false),
        ];
        for (chunks, complete) in cases {
            let mut whole = RelayTail::new();
            let mut single = RelayTail::new();
            for chunk in chunks {
                whole.observe(chunk);
                chunk.chunks(1).for_each(|byte| single.observe(byte));
            }
            assert_eq!(
                (whole.complete(), single.complete()),
                (complete, complete),
                "{chunks:?}"
            );
        }
    }

    #[test]
    fn a_cut_stream_says_so() {
        for (seen, lead) in [
            ("data: {}\n\n", ""),
            ("data: {\"a\":", "\n\n"),
            ("data: {}\n", "\n"),
            ("", ""),
        ] {
            let mut tail = RelayTail::new();
            tail.observe(seen.as_bytes());
            let mut out = Vec::new();
            tail.finish(StreamErrorForm::OpenAi, &mut out);
            tail.finish(StreamErrorForm::OpenAi, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(
                text.starts_with(&format!(
                    "{lead}data: {{\"error\":{{\"message\":\"The model's engine ended"
                )),
                "{text}"
            );
            assert_eq!(text.matches("data:").count(), 1);
            assert!(!text.contains("[DONE]") && text.ends_with("}}\n\n"));
        }
        let mut tail = RelayTail::new();
        let mut out = Vec::new();
        tail.fail(&RunnerError::internal("x"), StreamErrorForm::LmStudio, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("event: error\ndata: {\"error\":{\"message\":\"x\""),
            "{text}"
        );
        assert!(text.ends_with("\"message\":\"x\"}\n\ndata: [DONE]\n\n"), "{text}");
    }
}
