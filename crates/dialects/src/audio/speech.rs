//! `/v1/audio/speech`: what is to be said, and how the sound goes back (audio contract 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::audio::{AudioFormat, Speaking, Voice};
use domain::chat::Usage;
use domain::{Capability, RunnerError};
use serde_json::{Map, Value, json};

use super::sentences;
use crate::json::to_vec;
use crate::openai::fields::{Fields, invalid, missing, wrong_type};
use crate::openai::{self, Ids, ModelListOptions};
use crate::{ModelView, StreamForm, Transcoder, sse};

/// Longest text, in characters.
const MAX_INPUT: usize = 4096;
/// The voice of a request that names none.
const VOICE: &str = "alloy";

/// A request for speech.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechRequest {
    /// The model's name as the client wrote it.
    pub model: Option<String>,
    /// The text.
    pub input: String,
    /// A voice's name; OpenAI's first one when the request names none.
    pub voice: String,
    /// How the sound is written.
    pub format: AudioFormat,
    /// 0.25 to 4.
    pub speed: f32,
    /// How it is to be said.
    pub instructions: Option<String>,
    /// `stream_format` is `sse`: the sound goes out in events instead of as a file.
    pub events: bool,
}

impl SpeechRequest {
    /// Reads the body of a request. Unknown fields are ignored.
    ///
    /// # Errors
    /// `InvalidRequest` that names the field, with the codes of the audio contract 4 and 6.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let members: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            RunnerError::invalid(format!("The request body is not a JSON object: {error}.")).code("invalid_json")
        })?;
        let fields = Fields::of(&members, "");
        let model = fields.text("model")?.map(str::trim).filter(|name| !name.is_empty());
        let input = fields.required("input")?;
        check_input(input)?;
        let speed = fields.number("speed")?.unwrap_or(1.0);
        if !(0.25..=4.0).contains(&speed) {
            return Err(invalid("speed", "'speed' must be between 0.25 and 4."));
        }
        let events = match fields.text("stream_format")? {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(other) => {
                let message = format!("'{other}' is no stream format. Choose 'audio' or 'sse'.");
                return Err(invalid("stream_format", message));
            }
        };
        Ok(Self {
            model: model.map(str::to_owned),
            voice: voice(&fields)?,
            format: format(fields.text("response_format")?)?,
            speed: speed as f32,
            instructions: fields.text("instructions")?.map(str::to_owned),
            events,
            input: input.to_owned(),
        })
    }

    /// What a voice engine is asked.
    pub fn speaking(&self) -> Speaking {
        Speaking {
            sentences: sentences(&self.input),
            voice: self.voice.clone(),
            speed: self.speed,
            format: self.format,
            instructions: self.instructions.clone(),
        }
    }
}

fn check_input(input: &str) -> Result<(), RunnerError> {
    let length = input.chars().count();
    if length > MAX_INPUT {
        let message = format!(
            "Invalid 'input': string too long. Expected a string with maximum length {MAX_INPUT}, but got a string with \
             length {length} instead."
        );
        return Err(RunnerError::invalid(message)
            .param("input")
            .code("string_above_max_length"));
    }
    if input.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid("input", "'input' is empty: there is nothing to say."));
    }
    Ok(())
}

/// A name, or an object with the name in `id`.
fn voice(fields: &Fields<'_>) -> Result<String, RunnerError> {
    let name = match fields.get("voice") {
        None => VOICE,
        Some(Value::String(name)) => name,
        Some(Value::Object(members)) => match members.get("id") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(wrong_type("voice.id", "a string")),
            None => return Err(missing("voice.id")),
        },
        Some(_) => return Err(wrong_type("voice", "a string or an object with 'id'")),
    };
    match name.trim() {
        "" => Err(invalid(
            "voice",
            "'voice' is empty. GET /v1/audio/voices lists the voices.",
        )),
        name => Ok(name.to_owned()),
    }
}

fn format(name: Option<&str>) -> Result<AudioFormat, RunnerError> {
    let Some(name) = name else {
        return Ok(AudioFormat::default());
    };
    let known = AudioFormat::ALL
        .into_iter()
        .find(|format| format.as_str().eq_ignore_ascii_case(name));
    known.ok_or_else(|| {
        let all: Vec<&str> = AudioFormat::ALL.into_iter().map(AudioFormat::as_str).collect();
        let message = format!("'{name}' is no audio format. Choose one of {}.", all.join(", "));
        invalid("response_format", message)
    })
}

/// The frame around the events of a spoken text.
#[derive(Debug, Clone, Copy)]
pub struct SpeechForm;

impl StreamForm for SpeechForm {
    fn fail(&self, error: &RunnerError, out: &mut Vec<u8>) {
        write_error(error, out);
    }
}

fn write_error(error: &RunnerError, out: &mut Vec<u8>) {
    sse::write_data(&super::error(error).body, out);
}

/// Bytes of a sound file in, `speech.audio.delta` and `speech.audio.done` out. Every event but the last holds whole groups
/// of three bytes, so that the base64 texts may also be joined before they are read.
#[derive(Debug)]
pub struct SpeechStream {
    usage: Value,
    held: Vec<u8>,
    heard: bool,
    over: bool,
}

/// Signs of a text that are about one token.
const SIGNS_PER_TOKEN: usize = 4;
/// Signs that are said in a second.
const SIGNS_PER_SECOND: f32 = 15.0;
/// Tokens that a second of speech is counted as.
const TOKENS_PER_SECOND: f32 = 20.0;

impl SpeechStream {
    /// A stream for this request. Voice engines count no tokens, so `usage` is reckoned from the length of the text.
    pub fn new(request: &SpeechRequest) -> Self {
        let signs = request.input.chars().count();
        let input = signs.div_ceil(SIGNS_PER_TOKEN);
        let seconds = signs as f32 / SIGNS_PER_SECOND / request.speed;
        let output = (seconds * TOKENS_PER_SECOND).ceil() as usize;
        Self {
            usage: json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output}),
            held: Vec::new(),
            heard: false,
            over: false,
        }
    }

    fn delta(bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: {\"type\":\"speech.audio.delta\",\"audio\":\"");
        let start = out.len();
        out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        // The room is exactly what base64 needs.
        let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
        out.truncate(start + written);
        out.extend_from_slice(b"\"}\n\n");
    }
}

impl Transcoder for SpeechStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.over || chunk.is_empty() {
            return;
        }
        self.heard = true;
        self.held.extend_from_slice(chunk);
        let whole = self.held.len() / 3 * 3;
        if whole > 0 {
            Self::delta(&self.held[..whole], out);
            self.held.drain(..whole);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if !self.heard {
            let error = RunnerError::new(
                domain::ErrorKind::EngineFailed,
                "The voice engine ended without a sound.",
            );
            write_error(&error, out);
            return;
        }
        if !self.held.is_empty() {
            Self::delta(&std::mem::take(&mut self.held), out);
        }
        let done = json!({"type": "speech.audio.done", "usage": self.usage});
        sse::write_data(&to_vec(&done), out);
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.over, true) {
            write_error(error, out);
        }
    }

    fn ended(&self) -> bool {
        self.over
    }

    fn error(&self) -> Option<&RunnerError> {
        None
    }

    fn usage(&self) -> Option<&Usage> {
        None
    }
}

/// The voices of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVoices {
    /// The model, as lists name it.
    pub model: String,
    /// What its engine has.
    pub voices: Vec<Voice>,
}

/// OpenAI's voices: every voice engine has one for each of these names (audio contract 4).
const USUAL_VOICES: [&str; 13] = [
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
];

/// What is known of an engine's voices without asking it.
pub fn usual_voices() -> Vec<Voice> {
    let voice = |id: &str| Voice {
        id: id.to_owned(),
        name: id.to_owned(),
        language: None,
        gender: None,
    };
    USUAL_VOICES.into_iter().map(voice).collect()
}

/// The answer of `/v1/audio/voices`: the same objects under both names, since clients differ in which they read.
pub fn voices(models: &[ModelVoices]) -> Vec<u8> {
    let of = |model: &ModelVoices| -> Vec<Value> {
        let object = |voice: &Voice| {
            json!({
                "id": voice.id,
                "name": voice.name,
                "language": voice.language,
                "gender": voice.gender,
                "model": model.model,
            })
        };
        model.voices.iter().map(object).collect()
    };
    let all: Vec<Value> = models.iter().flat_map(of).collect();
    to_vec(&json!({"object": "list", "voices": all, "data": all}))
}

/// Reads the voices that an engine names: `{"voices": […]}`, of objects or plain names, or the same under `data`. What it
/// cannot read counts as none.
pub fn read_voices(body: &[u8]) -> Vec<Voice> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let list = ["voices", "data"].iter().find_map(|name| answer.get(name)?.as_array());
    let read = |voice: &Value| {
        let text = |name: &str| voice.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = voice
            .as_str()
            .map(str::to_owned)
            .or_else(|| text("id"))
            .or_else(|| text("voice_id"))?;
        Some(Voice {
            name: text("name").unwrap_or_else(|| id.clone()),
            language: text("language"),
            gender: text("gender"),
            id,
        })
    };
    list.into_iter().flatten().filter_map(read).collect()
}

/// The answer of `/v1/audio/models`: under `data` every model that hears or speaks, as `/v1/models` shows it; under
/// `models` those that speak, which is what a choice of voices is made from.
pub fn audio_models(models: &[ModelView], ids: Ids) -> Vec<u8> {
    let heard = [Capability::Transcription, Capability::Translation, Capability::Speech];
    let mut data = Vec::new();
    let mut speaking = Vec::new();
    for model in models.iter().filter(|model| !model.entry.unlisted) {
        if !heard.iter().any(|capability| model.entry.can(*capability)) {
            continue;
        }
        let id = openai::listed_id(&model.entry, ids);
        let options = ModelListOptions {
            ids,
            ..ModelListOptions::default()
        };
        data.push(openai::model_value(model, &id, options));
        if model.entry.can(Capability::Speech) {
            speaking.push(json!({"id": id, "name": model.entry.display_name}));
        }
    }
    to_vec(&json!({"object": "list", "data": data, "models": speaking}))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(speed: f32) -> SpeechRequest {
        SpeechRequest {
            model: None,
            input: "a".repeat(150),
            voice: VOICE.into(),
            format: AudioFormat::Mp3,
            speed,
            instructions: None,
            events: true,
        }
    }

    fn events(out: &[u8]) -> Vec<Value> {
        let mut events = Vec::new();
        sse::SseSplitter::new().push(out, |event| events.push(serde_json::from_slice(event.data).unwrap()));
        events
    }

    proptest! {
        #[test]
        fn joined_texts_are_the_file(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..20)) {
            let whole = chunks.concat();
            let mut stream = SpeechStream::new(&request(1.0));
            let mut out = Vec::new();
            for chunk in &chunks {
                stream.push(chunk, &mut out);
            }
            stream.finish(&mut out);
            stream.finish(&mut out);
            let events = events(&out);
            let (last, deltas) = events.split_last().unwrap();
            if whole.is_empty() {
                prop_assert!(last.get("error").is_some());
                return Ok(());
            }
            let texts: Vec<&str> = deltas.iter().map(|delta| delta["audio"].as_str().unwrap()).collect();
            prop_assert_eq!(STANDARD.decode(texts.concat()).unwrap(), whole);
            prop_assert_eq!(&last["type"], "speech.audio.done");
        }
    }

    #[test]
    fn usage_follows_length_and_speed() {
        let of = |speed| {
            let mut stream = SpeechStream::new(&request(speed));
            let mut out = Vec::new();
            stream.push(b"abc", &mut out);
            stream.finish(&mut out);
            events(&out).pop().unwrap()["usage"].clone()
        };
        assert_eq!(
            of(1.0),
            json!({"input_tokens": 38, "output_tokens": 200, "total_tokens": 238})
        );
        assert_eq!(
            of(2.0),
            json!({"input_tokens": 38, "output_tokens": 100, "total_tokens": 138})
        );
    }

    #[test]
    fn a_break_is_told_once() {
        let mut stream = SpeechStream::new(&request(1.0));
        let mut out = Vec::new();
        stream.push(b"abcd", &mut out);
        let error = RunnerError::new(domain::ErrorKind::EngineFailed, "The engine died.");
        stream.fail(&error, &mut out);
        stream.fail(&error, &mut out);
        stream.finish(&mut out);
        stream.push(b"more", &mut out);
        let events = events(&out);
        assert_eq!(events.len(), 2);
        assert_eq!(events[1]["error"]["code"], "engine_failed");
    }

    #[test]
    fn voices_of_other_engines_are_read() {
        let ids = |body: &str| -> Vec<String> {
            read_voices(body.as_bytes())
                .into_iter()
                .map(|voice| format!("{}={}", voice.id, voice.name))
                .collect()
        };
        assert_eq!(ids(r#"{"voices":["a","b"]}"#), ["a=a", "b=b"]);
        assert_eq!(
            ids(r#"{"voices":[{"id":"a","name":"Anna"},{"voice_id":"b"},{"x":1}]}"#),
            ["a=Anna", "b=b"]
        );
        assert_eq!(ids(r#"{"data":[{"id":"a"}]}"#), ["a=a"]);
        assert!(ids("no JSON").is_empty());
    }
}
