//! Speech in both directions: what is asked, what an engine hears, and how it stands. The audio contract has the rules.

use serde::{Deserialize, Serialize};

use crate::{ModelKey, RequestId};

/// What becomes of the words that are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Text in the language that is spoken.
    #[default]
    Transcribe,
    /// English text.
    Translate,
}

/// How silence is found and left out (audio contract 7.5). Absent numbers: the engine's own.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct VoiceActivity {
    /// Probability above which a moment counts as speech, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Milliseconds of silence that end a piece of speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_silence_duration_ms: Option<u32>,
    /// Milliseconds kept around each piece of speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speech_pad_ms: Option<u32>,
}

/// When silence is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoiceFilter {
    /// For recordings over 30 s.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always.
    On(VoiceActivity),
}

/// How a recording is to be heard: what every dialect's form comes down to, and what the engine is sent as JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Listening {
    /// Transcribe or translate.
    pub task: Task,
    /// Code of the language spoken (`en`); `None`: detect it.
    pub language: Option<String>,
    /// Languages to choose from when it is detected; empty: all.
    pub languages: Vec<String>,
    /// Text before the recording: names, spelling, style.
    pub prompt: Option<String>,
    /// Words to expect.
    pub hotwords: Option<String>,
    /// Sampling temperatures, tried in order until the text is good enough.
    pub temperatures: Vec<f32>,
    /// Beams of the search; `None`: the engine's own.
    pub beam_size: Option<u32>,
    /// Times of single words are wanted.
    pub word_timestamps: bool,
    /// No times at all are wanted.
    pub without_timestamps: bool,
    /// Leave silence out.
    pub voice_filter: VoiceFilter,
    /// Longest recording, in seconds; 0: any.
    pub max_duration_s: u32,
    /// Nobody waits for single segments, so the engine may hear several windows at once (audio contract 7.4).
    pub batched: bool,
}

/// A word with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word as heard, with the blank before it.
    pub word: String,
    /// Begin, in seconds.
    pub start: f64,
    /// End, in seconds.
    pub end: f64,
    /// How sure the model is, 0 to 1.
    #[serde(default)]
    pub probability: f64,
}

/// A piece of speech with its time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Segment {
    /// Number, from 0.
    pub id: u32,
    /// Where its window begins, in frames of 10 ms.
    pub seek: u64,
    /// Begin, in seconds.
    pub start: f64,
    /// End, in seconds.
    pub end: f64,
    /// The text, with its leading blank.
    pub text: String,
    /// Tokens of the text.
    pub tokens: Vec<u32>,
    /// Temperature that gave it.
    pub temperature: f64,
    /// Mean logarithm of the tokens' probabilities.
    pub avg_logprob: f64,
    /// How repetitive the text is.
    pub compression_ratio: f64,
    /// Probability that there is no speech.
    pub no_speech_prob: f64,
    /// Its words, when they were asked for.
    pub words: Vec<Word>,
}

/// What is known before the first segment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// Length of the recording, in seconds.
    pub duration: f64,
    /// Code of the language spoken, as asked or detected; `None`: there was nothing to detect it from.
    pub language: Option<String>,
    /// How sure the detection is, 0 to 1.
    pub language_probability: f64,
}

/// One line of the engine's answer (audio contract 7.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ListeningEvent {
    /// First: what is known of the recording.
    Info(Heard),
    /// It goes on; also a sign of life.
    Progress {
        /// 0 to 1.
        progress: f32,
    },
    /// A piece of text.
    Segment(Segment),
    /// Last: all of it was heard.
    Done {
        /// Time it took, in seconds.
        processing_s: f64,
    },
    /// Last: it could not be heard to the end.
    Error {
        /// A code of the audio contract 6.
        code: String,
        /// One sentence.
        message: String,
    },
}

/// Where a transcription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TranscriptionState {
    /// Waits for the engine.
    Queued,
    /// The engine listens.
    Running,
    /// The text is there.
    Completed,
    /// There will be no text; `error` says why.
    Failed,
    /// The client went away.
    Cancelled,
}

/// A transcription or translation for the window and for events. It does not hold the text (audio contract 7.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TranscriptionView {
    /// Id of its request.
    pub id: RequestId,
    /// The model that listens.
    pub model: ModelKey,
    /// The name the client used.
    pub asked: String,
    /// Transcribe or translate.
    pub task: Task,
    /// Where it stands.
    pub state: TranscriptionState,
    /// 0 to 1.
    pub progress: f32,
    /// Length of the recording in seconds, once known.
    pub duration: Option<f64>,
    /// Code of the language, once known.
    pub language: Option<String>,
    /// Time the engine took, in seconds, at the end.
    pub processing_s: Option<f64>,
    /// Characters of the text so far.
    pub characters: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// A kind of sound file that speech is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum AudioFormat {
    /// MPEG layer 3.
    #[default]
    Mp3,
    /// Opus in an Ogg file.
    Opus,
    /// AAC in ADTS frames.
    Aac,
    /// FLAC.
    Flac,
    /// WAV with unknown length.
    Wav,
    /// 24 kHz, 16 bit little endian, mono, no header.
    Pcm,
}

impl AudioFormat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Mp3, Self::Opus, Self::Aac, Self::Flac, Self::Wav, Self::Pcm];

    /// The wire word, also the usual file ending.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
            Self::Aac => "aac",
            Self::Flac => "flac",
            Self::Wav => "wav",
            Self::Pcm => "pcm",
        }
    }

    /// Its media type (audio contract 4).
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Aac => "audio/aac",
            Self::Flac => "audio/flac",
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
        }
    }
}

/// What is to be said, as a voice engine is sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speaking {
    /// The text in pieces that are spoken one after the other, so that the first sound comes early.
    pub sentences: Vec<String>,
    /// A voice: the engine's own name, or one of OpenAI's, which the engine maps.
    pub voice: String,
    /// Speed, 1 is normal.
    pub speed: f32,
    /// How the sound is written.
    pub format: AudioFormat,
    /// How it is to be said, for engines that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

/// A voice that an engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voice {
    /// What a request names.
    pub id: String,
    /// For people.
    pub name: String,
    /// Language code, where it has one.
    #[serde(default)]
    pub language: Option<String>,
    /// `female`, `male`, where it is known.
    #[serde(default)]
    pub gender: Option<String>,
}
