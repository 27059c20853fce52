//! The fields of a transcription's form (audio contract 1 and 2).

use domain::RunnerError;
use domain::audio::{Listening, Task, VoiceActivity, VoiceFilter};
use serde_json::Value;

use super::language;

/// Temperatures tried in order when the client leaves the choice to us.
const LADDER: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// Widest search; wider ones only cost time and memory.
const MAX_BEAMS: u32 = 16;

/// The document a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DocumentFormat {
    /// Text, language, duration and segments.
    #[default]
    Json,
    /// The text alone.
    Text,
    /// Subtitles in `SubRip`'s form.
    Srt,
    /// Subtitles in `WebVTT`'s form.
    Vtt,
    /// Everything that is known.
    VerboseJson,
}

/// How the answer is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Which document.
    pub format: DocumentFormat,
    /// With times of words (`verbose_json` only).
    pub words: bool,
    /// With segments (`verbose_json` only; the other formats always have what they have).
    pub segments: bool,
    /// As events while it is heard.
    pub stream: bool,
}

/// A whole request without its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The model's name as the client wrote it; `None`: the default one.
    pub model: Option<String>,
    /// What the engine is told.
    pub listening: Listening,
    /// Translate even where the model answers in the language it hears (`force`).
    pub force: bool,
    /// How the answer is to look.
    pub wanted: Wanted,
}

/// Collects the fields of a form, in whatever order they come.
#[derive(Debug, Default)]
pub struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    /// A text field. Names are taken with and without the brackets of lists, which some clients number.
    pub fn field(&mut self, name: &str, value: String) {
        let of_list = name.strip_suffix(']').and_then(|open| {
            let (name, number) = open.rsplit_once('[')?;
            number.bytes().all(|digit| digit.is_ascii_digit()).then_some(name)
        });
        let name = of_list.unwrap_or(name);
        self.fields.push((name.to_owned(), value));
    }

    /// The last value of a field; blank ones count as missing.
    fn last(&self, name: &str) -> Option<&str> {
        let value = self.fields.iter().rev().find(|(field, _)| field == name)?;
        Some(value.1.trim()).filter(|value| !value.is_empty())
    }

    /// All values of a repeatable field; blank ones count as missing.
    fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        let of_name = self.fields.iter().filter(move |(field, _)| field == name);
        of_name.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, RunnerError> {
        let Some(value) = self.last(name) else { return Ok(None) };
        match value.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "no" | "off" => Ok(Some(false)),
            _ => Err(bad_value(name, value, "true or false")),
        }
    }

    fn number(&self, name: &str, what: &str, range: std::ops::RangeInclusive<f64>) -> Result<Option<f64>, RunnerError> {
        let Some(value) = self.last(name) else { return Ok(None) };
        match value.parse::<f64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad_value(name, value, what)),
        }
    }

    /// Checks everything. `task` is that of the route; `task=translate` on the transcription route is honoured.
    ///
    /// # Errors
    /// `invalid_value` or `unsupported_language` with the field's name.
    pub fn finish(self, task: Task) -> Result<Asked, RunnerError> {
        let task = match self.last("task").map(str::to_lowercase).as_deref() {
            None => task,
            Some("transcribe") if task == Task::Transcribe => Task::Transcribe,
            Some("translate") => Task::Translate,
            Some(other) if task == Task::Translate => return Err(bad_value("task", other, "translate on this route")),
            Some(other) => return Err(bad_value("task", other, "transcribe or translate")),
        };
        let format = match self.last("response_format").map(str::to_lowercase).as_deref() {
            None | Some("json") => DocumentFormat::Json,
            Some("text") => DocumentFormat::Text,
            Some("srt") => DocumentFormat::Srt,
            Some("vtt") => DocumentFormat::Vtt,
            Some("verbose_json") => DocumentFormat::VerboseJson,
            Some("diarized_json") => {
                return Err(invalid(
                    "response_format",
                    "Speakers cannot be told apart here: use verbose_json.",
                ));
            }
            Some(other) => {
                return Err(bad_value(
                    "response_format",
                    other,
                    "json, text, srt, vtt or verbose_json",
                ));
            }
        };
        let (words, segments) = self.granularities()?;
        if let Some(other) = self.all("include").find(|include| *include != "logprobs") {
            return Err(bad_value("include", other, "logprobs"));
        }
        let stream = self.boolean("stream")?.unwrap_or(false);
        let verbose = format == DocumentFormat::VerboseJson;
        let words = (words || self.boolean("word_timestamps")?.unwrap_or(false)) && verbose;

        let mut languages = Vec::new();
        for language in self.all("languages") {
            languages.extend(language::code(language, "languages")?.map(str::to_owned));
        }
        let mut language = match self.last("language") {
            Some(language) => language::code(language, "language")?.map(str::to_owned),
            None => None,
        };
        if language.is_none() && languages.len() == 1 {
            language = languages.pop();
        }
        if language.is_some() {
            languages.clear();
        }
        let temperatures = match self.number("temperature", "a number from 0 to 1", 0.0..=1.0)? {
            Some(temperature) if temperature > 0.0 => vec![temperature as f32],
            _ => LADDER.to_vec(),
        };
        let beams = f64::from(MAX_BEAMS);
        let beam_size = self.number("beam_size", "a whole number from 1 to 16", 1.0..=beams)?;
        if let Some(fraction) = beam_size.filter(|beams| beams.fract() != 0.0) {
            return Err(bad_value(
                "beam_size",
                &fraction.to_string(),
                "a whole number from 1 to 16",
            ));
        }
        Ok(Asked {
            model: self.last("model").map(str::to_owned),
            listening: Listening {
                task,
                language,
                languages,
                prompt: self.last("prompt").map(str::to_owned),
                hotwords: self.hotwords(),
                temperatures,
                beam_size: beam_size.map(|beams| beams as u32),
                word_timestamps: words,
                without_timestamps: self.boolean("without_timestamps")?.unwrap_or(false),
                voice_filter: self.voice_filter()?,
                max_duration_s: 0,
                batched: !stream,
            },
            force: self.boolean("force")?.unwrap_or(false),
            wanted: Wanted {
                format,
                words,
                segments,
                stream,
            },
        })
    }

    /// Words, segments. Clients send this with formats that have neither, so only unknown words are refused.
    fn granularities(&self) -> Result<(bool, bool), RunnerError> {
        let (mut words, mut segments) = (false, false);
        for granularity in self.all("timestamp_granularities") {
            match granularity {
                "word" => words = true,
                "segment" => segments = true,
                other => return Err(bad_value("timestamp_granularities", other, "word or segment")),
            }
        }
        Ok((words, segments || !words))
    }

    fn hotwords(&self) -> Option<String> {
        let words: Vec<&str> = self.last("hotwords").into_iter().chain(self.all("keywords")).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// `vad_filter` decides whether silence is left out; `chunking_strategy` turns it on and may say how.
    fn voice_filter(&self) -> Result<VoiceFilter, RunnerError> {
        let strategy = self.chunking_strategy()?;
        Ok(match (self.boolean("vad_filter")?, strategy) {
            (Some(false), _) => VoiceFilter::Off,
            (_, Some(activity)) => VoiceFilter::On(activity),
            (Some(true), None) => VoiceFilter::On(VoiceActivity::default()),
            (None, None) => VoiceFilter::Auto,
        })
    }

    /// `auto`, a JSON object, or, as OpenAI's Python client sends an object, one field per member.
    fn chunking_strategy(&self) -> Result<Option<VoiceActivity>, RunnerError> {
        const NAME: &str = "chunking_strategy";
        const WHAT: &str = r#""auto" or an object with "type": "server_vad""#;
        let mut members: serde_json::Map<String, Value> = self
            .fields
            .iter()
            .filter_map(|(name, value)| {
                let member = name.strip_prefix(NAME)?.strip_prefix('[')?.strip_suffix(']')?;
                let value = value
                    .parse::<f64>()
                    .map_or_else(|_| Value::from(value.trim()), Value::from);
                Some((member.to_owned(), value))
            })
            .collect();
        match self.last(NAME) {
            None if members.is_empty() => return Ok(None),
            None => {}
            Some("auto") => return Ok(Some(VoiceActivity::default())),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(object)) => members = object,
                _ => return Err(bad_value(NAME, text, WHAT)),
            },
        }
        match members.get("type").and_then(Value::as_str) {
            Some("auto") => return Ok(Some(VoiceActivity::default())),
            Some("server_vad") => {}
            _ => return Err(bad_value(NAME, &Value::from(members).to_string(), WHAT)),
        }
        let number = |member: &str, most: f64| match members.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if (0.0..=most).contains(&number) => Ok(Some(number)),
                _ => Err(bad_value(
                    NAME,
                    &format!("{member}: {value}"),
                    &format!("a number from 0 to {most} there"),
                )),
            },
        };
        Ok(Some(VoiceActivity {
            threshold: number("threshold", 1.0)?.map(|threshold| threshold as f32),
            min_silence_duration_ms: number("silence_duration_ms", 60_000.0)?.map(|ms| ms as u32),
            speech_pad_ms: number("prefix_padding_ms", 60_000.0)?.map(|ms| ms as u32),
        }))
    }
}

fn invalid(param: &str, message: impl Into<String>) -> RunnerError {
    RunnerError::invalid(message).code("invalid_value").param(param)
}

fn bad_value(param: &str, value: &str, expected: &str) -> RunnerError {
    let value: String = value.chars().take(60).collect();
    invalid(
        param,
        format!("'{value}' is no value for {param}: it must be {expected}."),
    )
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
