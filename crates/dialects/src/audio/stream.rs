//! A transcription as events while it is heard (audio contract 3).

use domain::audio::Segment;
use domain::{RunnerError, chat::Usage};
use serde_json::{Map, Value, json};

use super::answer::{extensions, language, plain_segments, seconds, text_document, usage, words};
use super::form::Asked;
use super::hearing::Hearing;
use crate::json::to_vec;
use crate::openai::error_value;
use crate::{StreamForm, Transcoder, sse};

/// The engine's lines in, events out: a delta for each segment, then the whole, then `[DONE]`.
#[derive(Debug)]
pub struct Events {
    asked: Asked,
    hearing: Hearing,
    closed: bool,
}

impl Events {
    /// Before the first byte.
    pub fn new(asked: Asked) -> Self {
        Self {
            asked,
            hearing: Hearing::default(),
            closed: false,
        }
    }

    /// What was heard so far.
    pub fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    fn done(&self) -> Value {
        let heard = &self.hearing.heard;
        let mut event = Map::new();
        event.insert("type".into(), "transcript.text.done".into());
        event.insert(
            "text".into(),
            text_document(self.asked.wanted.format, &self.hearing).into(),
        );
        event.insert("usage".into(), usage(heard.duration));
        event.insert("language".into(), language(&self.asked, heard).into());
        event.insert("duration".into(), seconds(heard.duration));
        event.insert("segments".into(), plain_segments(&self.hearing.segments));
        if self.asked.wanted.words {
            event.insert("words".into(), words(&self.hearing.segments));
        }
        extensions(&self.asked, heard, &mut event);
        event.into()
    }
}

fn delta(hearing: &Hearing, segment: &Segment) -> Value {
    json!({
        "type": "transcript.text.delta",
        "delta": segment.text,
        "segment": {"id": segment.id, "start": seconds(segment.start), "end": seconds(segment.end)},
        "progress": seconds(f64::from(hearing.progress)),
    })
}

impl Transcoder for Events {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        self.hearing.push(chunk, |hearing, segment| {
            sse::write_data(&to_vec(&delta(hearing, segment)), out);
        });
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        match self.hearing.finish() {
            Ok(()) => {
                self.closed = true;
                sse::write_data(&to_vec(&self.done()), out);
                sse::write_data(b"[DONE]", out);
            }
            Err(error) => self.fail(&error, out),
        }
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if !self.closed {
            self.closed = true;
            Waiting.fail(error, out);
        }
    }

    fn ended(&self) -> bool {
        self.hearing.is_over()
    }

    fn error(&self) -> Option<&RunnerError> {
        self.hearing.error()
    }

    fn usage(&self) -> Option<&Usage> {
        None
    }
}

/// The stream before its first event.
#[derive(Debug, Clone, Copy)]
pub struct Waiting;

impl StreamForm for Waiting {
    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": keep-alive\n\n");
    }

    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        sse::write_data(
            &to_vec(&json!({"error": error_value(&super::error::named(error))})),
            out,
        );
    }
}
