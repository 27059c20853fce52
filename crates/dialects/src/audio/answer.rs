//! The five documents of a transcription (audio contract 1).

use std::fmt::Write as _;

use domain::audio::{Heard, Segment, Task};
use serde_json::{Map, Value, json};

use super::form::{Asked, DocumentFormat};
use super::hearing::Hearing;
use super::language::language_name;
use crate::Rendered;
use crate::json::to_vec;

/// The finished document.
pub fn document(asked: &Asked, hearing: &Hearing) -> Rendered {
    match asked.wanted.format {
        DocumentFormat::Json => Rendered::json(200, to_vec(&json_document(asked, hearing))),
        DocumentFormat::VerboseJson => Rendered::json(200, to_vec(&verbose_document(asked, hearing))),
        DocumentFormat::Text => Rendered::text(200, &(hearing.text() + "\n")),
        DocumentFormat::Srt => Rendered {
            content_type: "application/x-subrip",
            ..Rendered::text(200, &srt(&hearing.segments))
        },
        DocumentFormat::Vtt => Rendered {
            content_type: "text/vtt",
            ..Rendered::text(200, &vtt(&hearing.segments))
        },
    }
}

/// The document as text, for those formats that are text.
pub(super) fn text_document(format: DocumentFormat, hearing: &Hearing) -> String {
    match format {
        DocumentFormat::Srt => srt(&hearing.segments),
        DocumentFormat::Vtt => vtt(&hearing.segments),
        DocumentFormat::Json | DocumentFormat::Text | DocumentFormat::VerboseJson => hearing.text(),
    }
}

/// Seconds with at most three decimals.
pub(super) fn seconds(time: f64) -> Value {
    let rounded = (time * 1000.0).round() / 1000.0;
    if rounded.is_finite() {
        rounded.into()
    } else {
        0.0.into()
    }
}

/// OpenAI counts whole seconds, rounded up.
pub(super) fn usage(duration: f64) -> Value {
    json!({"type": "duration", "seconds": duration.max(0.0).ceil() as u64})
}

/// The code of the language of the text. Where there was nothing to detect it from: the one asked for, else English.
pub(super) fn language<'h>(asked: &'h Asked, heard: &'h Heard) -> &'h str {
    if asked.listening.task == Task::Translate {
        return "en";
    }
    let known = heard.language.as_deref().or(asked.listening.language.as_deref());
    known.unwrap_or("en")
}

/// What only `json` and events tell: segments with trimmed texts.
pub(super) fn plain_segments(segments: &[Segment]) -> Value {
    let plain = |segment: &Segment| {
        json!({
            "start": seconds(segment.start),
            "end": seconds(segment.end),
            "text": segment.text.trim(),
        })
    };
    segments.iter().map(plain).collect()
}

/// Adds what we know beyond OpenAI: the language that was heard, where it is not the text's, and how sure that is.
pub(super) fn extensions(asked: &Asked, heard: &Heard, document: &mut Map<String, Value>) {
    if asked.listening.task == Task::Translate {
        document.insert("source_language".into(), json!(heard.language));
    } else if heard.language.is_none() {
        // Silence: `language` is a guess.
        document.insert("detected_language".into(), Value::Null);
    }
    if heard.language.is_some() && asked.listening.language.is_none() {
        document.insert("language_probability".into(), seconds(heard.language_probability));
    }
}

fn json_document(asked: &Asked, hearing: &Hearing) -> Value {
    let heard = &hearing.heard;
    let mut document = Map::new();
    document.insert("text".into(), hearing.text().into());
    document.insert("language".into(), language(asked, heard).into());
    document.insert("duration".into(), seconds(heard.duration));
    document.insert("segments".into(), plain_segments(&hearing.segments));
    document.insert("usage".into(), usage(heard.duration));
    extensions(asked, heard, &mut document);
    document.into()
}

fn verbose_document(asked: &Asked, hearing: &Hearing) -> Value {
    let heard = &hearing.heard;
    let mut document = Map::new();
    let task = match asked.listening.task {
        Task::Transcribe => "transcribe",
        Task::Translate => "translate",
    };
    document.insert("task".into(), task.into());
    document.insert("language".into(), language_name(language(asked, heard)).into());
    document.insert("duration".into(), seconds(heard.duration));
    document.insert("text".into(), hearing.text().into());
    if asked.wanted.words {
        document.insert("words".into(), words(&hearing.segments));
    }
    if asked.wanted.segments {
        document.insert("segments".into(), verbose_segments(&hearing.segments));
    }
    document.insert("usage".into(), usage(heard.duration));
    extensions(asked, heard, &mut document);
    document.into()
}

pub(super) fn words(segments: &[Segment]) -> Value {
    let words = segments.iter().flat_map(|segment| &segment.words);
    words
        .map(|word| {
            json!({
                "word": word.word.trim(),
                "start": seconds(word.start),
                "end": seconds(word.end),
            })
        })
        .collect()
}

fn verbose_segments(segments: &[Segment]) -> Value {
    let verbose = |segment: &Segment| {
        json!({
            "id": segment.id,
            "seek": segment.seek,
            "start": seconds(segment.start),
            "end": seconds(segment.end),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        })
    };
    segments.iter().map(verbose).collect()
}

/// The arrow divides the times of a subtitle, so it must not stand in its text.
fn subtitle(text: &str) -> String {
    text.trim().replace("-->", "->")
}

/// `HH:MM:SS` and milliseconds after `mark`.
fn clock(time: f64, mark: char) -> String {
    let ms = (time.max(0.0) * 1000.0).round() as u64;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}{mark}{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

fn srt(segments: &[Segment]) -> String {
    let mut out = String::new();
    for (number, segment) in (1..).zip(segments) {
        let (start, end) = (clock(segment.start, ','), clock(segment.end, ','));
        // Writing to a string cannot fail.
        let _ = write!(out, "{number}\n{start} --> {end}\n{}\n\n", subtitle(&segment.text));
    }
    out
}

fn vtt(segments: &[Segment]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for segment in segments {
        let (start, end) = (clock(segment.start, '.'), clock(segment.end, '.'));
        let _ = write!(out, "{start} --> {end}\n{}\n\n", subtitle(&segment.text));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (time, expected) in [
            (0.0, "00:00:00,000"),
            (1.52, "00:00:01,520"),
            (59.9996, "00:01:00,000"),
            (3_661.001, "01:01:01,001"),
            (360_000.0, "100:00:00,000"),
            (-1.0, "00:00:00,000"),
        ] {
            assert_eq!(clock(time, ','), expected);
        }
        assert_eq!(seconds(3.380_999_9).to_string(), "3.381");
        assert_eq!(usage(5.2)["seconds"], 6);
        assert_eq!(usage(5.0)["seconds"], 5);
    }
}
