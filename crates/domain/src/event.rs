use serde::{Deserialize, Serialize};

use crate::{InstanceView, JobView, ModelKey, TranscriptionView};

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Details for developers.
    Debug,
    /// Normal.
    Info,
    /// Something the user may want to change.
    Warn,
    /// Something failed.
    Error,
}

/// Where a log line came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Our own program.
    App,
    /// The engine of this model.
    Engine(ModelKey),
}

/// One log line, cleaned of control characters and cut to 16 KiB (promise O3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Loudness.
    pub level: Level,
    /// The text, without a line end.
    pub text: String,
}

/// What happened. Everything the tray, the window and (later) webhooks show comes from here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// An instance changed state, progress or load.
    Instance {
        /// The new view.
        instance: InstanceView,
    },
    /// An instance is gone.
    InstanceGone {
        /// Its model.
        model: ModelKey,
    },
    /// A model failed to start or died.
    ModelFailed {
        /// The model.
        model: ModelKey,
        /// One sentence.
        reason: String,
    },
    /// Models were added, removed or changed on disk.
    CatalogChanged {
        /// How many there are now.
        models: usize,
    },
    /// The configuration was reloaded, or a bad file was refused.
    Config {
        /// True when the new file is in effect.
        accepted: bool,
        /// What changed, or why it was refused.
        message: String,
    },
    /// A download changed.
    Download {
        /// How it stands now.
        job: JobView,
    },
    /// A transcription or translation began, went on or ended.
    Transcription {
        /// How it stands now.
        transcription: TranscriptionView,
    },
    /// Requests in flight changed.
    Requests {
        /// Running or queued now.
        active: u32,
    },
    /// A log line.
    Log {
        /// Where from.
        stream: LogStream,
        /// The line.
        line: LogLine,
    },
    /// The app is shutting down.
    ShuttingDown,
}

/// An event with its place in the stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Rising by one; for `Last-Event-ID`.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}
