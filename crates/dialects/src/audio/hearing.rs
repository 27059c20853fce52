//! What the engine has told of a recording so far: its lines read, whatever the chunking.

use domain::audio::{Heard, ListeningEvent, Segment};
use domain::{ErrorKind, RunnerError};

/// Longest line of the engine, in bytes: a segment with all its words is some kilobytes.
const MAX_LINE: usize = 4 << 20;

/// The engine's answer as far as it has come.
#[derive(Debug, Default)]
pub struct Hearing {
    /// Bytes of the incomplete line.
    pending: Vec<u8>,
    /// Known before the first segment.
    pub heard: Heard,
    /// The segments so far.
    pub segments: Vec<Segment>,
    /// 0 to 1.
    pub progress: f32,
    /// Time the engine took, in seconds, once it is done.
    pub processing_s: Option<f64>,
    error: Option<RunnerError>,
}

impl Hearing {
    /// Reads the next piece of the engine's body; `on_segment` gets each segment after it was added.
    pub fn push(&mut self, chunk: &[u8], mut on_segment: impl FnMut(&Self, &Segment)) {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if self.pending.is_empty() {
                self.line(line, &mut on_segment);
            } else {
                let mut whole = std::mem::take(&mut self.pending);
                whole.extend_from_slice(line);
                self.line(&whole, &mut on_segment);
            }
        }
        if self.pending.len() + rest.len() > MAX_LINE {
            self.pending.clear();
            self.break_off("The speech engine sent a line without end.");
        } else {
            self.pending.extend_from_slice(rest);
        }
    }

    fn line(&mut self, line: &[u8], on_segment: &mut impl FnMut(&Self, &Segment)) {
        if self.is_over() || line.trim_ascii().is_empty() {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(ListeningEvent::Info(heard)) => self.heard = heard,
            Ok(ListeningEvent::Progress { progress }) => self.advance(progress),
            Ok(ListeningEvent::Segment(segment)) => {
                if self.heard.duration > 0.0 {
                    self.advance((segment.end / self.heard.duration) as f32);
                }
                on_segment(self, &segment);
                self.segments.push(segment);
            }
            Ok(ListeningEvent::Done { processing_s }) => {
                self.progress = 1.0;
                self.processing_s = Some(processing_s);
            }
            Ok(ListeningEvent::Error { code, message }) => self.error = Some(engine_error(&code, message)),
            Err(_) => self.break_off("The speech engine's answer could not be read."),
        }
    }

    /// Progress never goes back.
    fn advance(&mut self, progress: f32) {
        if progress.is_finite() {
            self.progress = self.progress.max(progress.clamp(0.0, 1.0));
        }
    }

    fn break_off(&mut self, message: &str) {
        self.error
            .get_or_insert_with(|| RunnerError::new(ErrorKind::EngineFailed, message));
    }

    /// Done or failed: nothing that may still come matters.
    pub fn is_over(&self) -> bool {
        self.processing_s.is_some() || self.error.is_some()
    }

    /// What the engine complained of.
    pub fn error(&self) -> Option<&RunnerError> {
        self.error.as_ref()
    }

    /// The body ended. An answer without its last line is no answer (promise H3).
    ///
    /// # Errors
    /// The engine's own, or that it broke off.
    pub fn finish(&mut self) -> Result<(), RunnerError> {
        if !self.is_over() {
            self.break_off("The speech engine stopped in the middle of its answer.");
        }
        self.error.clone().map_or(Ok(()), Err)
    }

    /// The whole text: blanks between words are the segments' own, because not every language has them.
    pub fn text(&self) -> String {
        let whole: String = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        whole.trim().to_owned()
    }
}

/// An error body or line of the engine. Codes that are the caller's fault keep it.
pub fn engine_error(code: &str, message: String) -> RunnerError {
    let kind = match code {
        "empty_file"
        | "unsupported_audio"
        | "no_audio_stream"
        | "audio_too_long"
        | "unsupported_language"
        | "invalid_value"
        | "voice_not_found" => ErrorKind::InvalidRequest,
        "model_not_supported" => ErrorKind::NotCapable,
        _ => ErrorKind::EngineFailed,
    };
    let param = match code {
        "unsupported_language" => Some("language"),
        "empty_file" | "unsupported_audio" | "no_audio_stream" | "audio_too_long" => Some("file"),
        "model_not_supported" => Some("model"),
        "voice_not_found" => Some("voice"),
        _ => None,
    };
    let mut error = RunnerError::new(kind, message).code(code);
    error.param = param.map(str::to_owned);
    error
}
