//! What one request meets. A recording that is a JSON object `{"stub": {…}}` is its own script, so that tests which send many
//! at once need nothing shared; else `transcribe` or `speak` of the file `STUB_SCRIPT`; else all goes well.
//!
//! ```json
//! {"transcribe": {
//!     "before": [{"gate": "/tmp/decoded"}],
//!     "error": {"status": 400, "code": "unsupported_audio", "message": "This is no sound file."},
//!     "steps": [{"event": "info", "duration": 5.2, "language": "en"}, {"gate": "/tmp/go"}, {"die": "exit:1"}]
//! }}
//! ```
//!
//! Steps are lines of the answer (objects with `event`) or deeds: `{"gate": FILE}` waits until the file is there,
//! `{"die": "exit:N"|"signal:N"}`, `{"hang": true}` for ever (the worker is stuck then), `{"cut": true}` breaks the connection,
//! `{"raw": TEXT}` sends text as it is. `once`: a file; who finds that it exists leaves the script out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// Only the request that gets to make this file is served by the script.
    pub(crate) once: Option<PathBuf>,
    /// Deeds before the status is known.
    pub(crate) before: Vec<Value>,
    /// The answer is this error.
    pub(crate) error: Option<Refusal>,
    /// The answer; none: two segments, or every sentence.
    pub(crate) steps: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScriptFile {
    transcribe: Option<Script>,
    speak: Option<Script>,
}

/// Of a recording that holds a script: more is never read of one that does not.
const SCRIPT_BYTES: usize = 1 << 20;

impl Script {
    /// The script for a recording.
    pub(crate) fn for_recording(file: Option<&Path>, recording: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Own {
            stub: Script,
        }
        if recording.starts_with(b"{") && recording.len() <= SCRIPT_BYTES {
            let own: Own = serde_json::from_slice(recording).map_err(|error| error.to_string())?;
            return Ok(own.stub.if_first());
        }
        Ok(read(file)?.transcribe.unwrap_or_default().if_first())
    }

    /// The script for a text.
    pub(crate) fn for_speech(file: Option<&Path>) -> Result<Self, String> {
        Ok(read(file)?.speak.unwrap_or_default().if_first())
    }

    fn if_first(self) -> Self {
        let again = self
            .once
            .as_ref()
            .is_some_and(|once| std::fs::File::create_new(once).is_err());
        if again { Self::default() } else { self }
    }
}

fn read(file: Option<&Path>) -> Result<ScriptFile, String> {
    let Some(bytes) = file.and_then(|file| std::fs::read(file).ok()) else {
        return Ok(ScriptFile::default());
    };
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// The usual answer: 5.2 s of English in two segments.
pub(crate) fn usual(asked: &Value) -> Vec<Value> {
    let words = asked["word_timestamps"] == json!(true);
    let language = asked["language"].as_str().unwrap_or("en");
    let segment = |id: u32, start: f64, end: f64, text: &str| {
        let mut segment = json!({"event": "segment", "id": id, "seek": 0, "start": start, "end": end, "text": text,
            "tokens": [50364, 2425, 11], "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 0.9,
            "no_speech_prob": 0.01});
        if words {
            let all: Vec<&str> = text.split_whitespace().collect();
            let each = (end - start) / all.len() as f64;
            let words = all.iter().enumerate().map(|(at, word)| {
                let from = start + each * at as f64;
                json!({"word": format!(" {word}"), "start": from, "end": from + each, "probability": 0.9})
            });
            segment["words"] = words.collect();
        }
        segment
    };
    vec![
        json!({"event": "info", "duration": 5.2, "language": language, "language_probability": 0.98}),
        json!({"event": "progress", "progress": 0.0}),
        segment(0, 0.0, 2.5, " Hello, this is a test"),
        segment(1, 2.5, 5.2, " of the transcription service."),
        json!({"event": "done", "processing_s": 0.4}),
    ]
}

/// Waits until a file is there.
pub(crate) async fn wait_for_file(file: &Path) {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
