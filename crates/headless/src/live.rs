//! Segments as they are printed while the rest of the recording is still heard.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::arguments::Transcript;

/// What was printed of one recording. All pieces together are the server's document (audio contract 1), but for
/// [`Transcript::Json`]: that is one line of JSON for each segment.
#[derive(Debug)]
pub(crate) struct Live {
    format: Transcript,
    /// The recording's name.
    name: String,
    /// Segments so far.
    segments: u32,
}

impl Live {
    /// Before the first segment.
    pub(crate) fn new(format: Transcript, name: String) -> Self {
        Self {
            format,
            name,
            segments: 0,
        }
    }

    /// What stands before everything.
    pub(crate) fn head(&self) -> &'static str {
        if self.format == Transcript::Vtt {
            "WEBVTT\n\n"
        } else {
            ""
        }
    }

    /// The next segment, from a `transcript.text.delta` event.
    pub(crate) fn segment(&mut self, delta: &Value) -> String {
        self.segments += 1;
        let text = delta["delta"].as_str().unwrap_or_default();
        let segment = &delta["segment"];
        let [start, end] = ["start", "end"].map(|key| segment[key].as_f64().unwrap_or_default());
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = match self.format {
            Transcript::Text => write!(out, "{}", if self.segments == 1 { text.trim_start() } else { text }),
            Transcript::Srt => {
                let (start, end) = (clock(start, ','), clock(end, ','));
                writeln!(out, "{}\n{start} --> {end}\n{}\n", self.segments, subtitle(text))
            }
            Transcript::Vtt => {
                let (start, end) = (clock(start, '.'), clock(end, '.'));
                writeln!(out, "{start} --> {end}\n{}\n", subtitle(text))
            }
            Transcript::Json | Transcript::VerboseJson => {
                let line = json!({ "file": self.name, "id": segment["id"], "start": segment["start"],
                    "end": segment["end"], "text": text.trim() });
                writeln!(out, "{line}")
            }
        };
        out
    }

    /// What stands behind everything, also when it ends too early.
    pub(crate) fn tail(&self, whole: bool) -> &'static str {
        if self.format == Transcript::Text && (whole || self.segments > 0) {
            "\n"
        } else {
            ""
        }
    }
}

/// The arrow divides the times of a subtitle, so it must not stand in its text.
fn subtitle(text: &str) -> String {
    text.trim().replace("-->", "->")
}

/// `HH:MM:SS` and milliseconds after `mark`.
fn clock(seconds: f64, mark: char) -> String {
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}{mark}{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_subtitles() {
        for (seconds, text) in [
            (0.0, "00:00:00,000"),
            (59.9996, "00:01:00,000"),
            (3_661.001, "01:01:01,001"),
            (-1.0, "00:00:00,000"),
        ] {
            assert_eq!(clock(seconds, ','), text);
        }
        assert_eq!(subtitle(" a --> b "), "a -> b");
    }
}
