use std::path::PathBuf;

use std::sync::Arc;

use domain::{ErrorKind, FailureCode, RunnerError};
use thiserror::Error;

/// Why an engine cannot be used. Messages are for the person at the machine: they may name files of the engine, and they
/// say what to do next. [`RunnerError`] is what a remote caller gets (no paths, promise H10).
#[derive(Debug, Clone, Error)]
pub enum EngineError {
    /// No llama-server anywhere.
    #[error(
        "No llama-server was found. Run `llama-runner engine build` to build one (about ten minutes), or set \
         `engines.llama_server.path` in config.json to an existing one."
    )]
    Missing,
    /// A path was named by config or environment and there is no such program.
    #[error("{origin} names {path}, which is not an executable file. Correct it, or remove it to use another engine.")]
    BadPath {
        /// The program named.
        path: PathBuf,
        /// Who named it.
        origin: &'static str,
    },
    /// The program is there and does not behave like llama-server.
    #[error("{path} could not be used as llama-server: {reason}.")]
    Probe {
        /// The program.
        path: PathBuf,
        /// What it did.
        reason: String,
    },
    /// An engine argument that LlamaRunner sets itself or that is never allowed (promise S9).
    #[error("The engine argument '{flag}' is not allowed: {why}.")]
    ReservedFlag {
        /// The argument at fault.
        flag: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An environment variable that may not be set for an engine (promise S10).
    #[error("The engine environment variable '{name}' is not allowed: {why}.")]
    ReservedEnv {
        /// The variable at fault.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Tools for building are missing.
    #[error("Building llama-server needs {missing}. Install with: {command}")]
    BuildTools {
        /// What is missing, for people.
        missing: String,
        /// The command that installs it on Debian and Ubuntu.
        command: String,
    },
    /// Not enough room for the build.
    #[error(
        "Building llama-server needs about {need_mib} MiB of free disk space in {folder}; {free_mib} MiB are free."
    )]
    Disk {
        /// Where.
        folder: PathBuf,
        /// Needed.
        need_mib: u64,
        /// Free.
        free_mib: u64,
    },
    /// A build step failed.
    #[error("Building llama-server failed at the step \"{step}\": {reason}. The full log is in {log}.")]
    Build {
        /// The step, for people.
        step: &'static str,
        /// The last words of the tool.
        reason: String,
        /// The log file.
        log: PathBuf,
    },
    /// A build or an installation was cancelled. What is done so far is kept for the next one.
    #[error("Cancelled. The next try goes on from what is there already.")]
    Cancelled,
    /// A file operation failed.
    #[error("{action} {path} failed: {source}")]
    Io {
        /// What was tried, for example `Writing`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// The speech engine is not there and is not to be installed by itself.
    #[error("The speech engine is not installed. {}", how_to_install(.name))]
    SpeechMissing {
        /// Which environment: `speech`, `kokoro`, `piper`.
        name: String,
    },
    /// The speech engine was there once.
    #[error(
        "The speech engine cannot be used: {reason}. Run `llama-runner engine {}` to install it again.",
        installing(.name)
    )]
    SpeechBroken {
        /// Which environment: `speech`, `kokoro`, `piper`.
        name: String,
        /// What happened to it.
        reason: String,
    },
    /// The interpreter that was named cannot be used.
    #[error(
        "The Python that {origin} names cannot be used for speech: {reason}. Install faster-whisper and uvicorn \
         there, or remove it to use LlamaRunner's own environment."
    )]
    SpeechNamed {
        /// Who named it.
        origin: &'static str,
        /// What it did.
        reason: String,
    },
    /// No Python that the speech engine could be installed with.
    #[error("Speech needs Python 3.10 to 3.14: {0}.")]
    SpeechPython(String),
    /// Not enough room for the speech engine.
    #[error(
        "Installing the speech engine needs about {need_mib} MiB of free disk space in {folder}; {free_mib} MiB are free."
    )]
    SpeechDisk {
        /// Where.
        folder: PathBuf,
        /// Needed.
        need_mib: u64,
        /// Free.
        free_mib: u64,
    },
    /// Installing the speech engine failed.
    #[error("Installing the speech engine failed: {reason}. The full log is in {log}.")]
    SpeechInstall {
        /// What happened, and what to do where that is known.
        reason: String,
        /// The log file.
        log: PathBuf,
    },
    /// An engine of the user's cannot be used.
    #[error("The engine '{name}' {why}.")]
    Custom {
        /// Its name under `engines.custom`.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The command behind `llama-runner engine`.
fn installing(name: &str) -> &'static str {
    match name {
        "kokoro" => "voices install kokoro",
        "piper" => "voices install piper",
        _ => "whisper install",
    }
}

fn how_to_install(name: &str) -> &'static str {
    match name {
        "kokoro" => "Run `llama-runner engine voices install kokoro`; it shows the licence first.",
        "piper" => "Run `llama-runner engine voices install piper`; it shows the licence first.",
        _ => {
            "Run `llama-runner engine whisper install`, or set `engines.faster_whisper.auto_install` to true in config.json."
        }
    }
}

impl EngineError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source: Arc::new(source),
        }
    }

    /// The word for callers, where the fault has one.
    pub fn code(&self) -> Option<FailureCode> {
        match self {
            Self::SpeechMissing { .. }
            | Self::SpeechBroken { .. }
            | Self::SpeechNamed { .. }
            | Self::SpeechPython(_)
            | Self::SpeechDisk { .. }
            | Self::SpeechInstall { .. } => Some(FailureCode::EngineNotInstalled),
            Self::Missing
            | Self::BadPath { .. }
            | Self::Probe { .. }
            | Self::ReservedFlag { .. }
            | Self::ReservedEnv { .. }
            | Self::BuildTools { .. }
            | Self::Disk { .. }
            | Self::Build { .. }
            | Self::Cancelled
            | Self::Io { .. }
            | Self::Custom { .. } => None,
        }
    }
}

impl From<&EngineError> for RunnerError {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::Missing | EngineError::Custom { .. } => Self::new(ErrorKind::EngineFailed, error.to_string()),
            EngineError::ReservedFlag { .. } | EngineError::ReservedEnv { .. } => Self::invalid(error.to_string()),
            EngineError::BadPath { origin, .. } => Self::new(
                ErrorKind::EngineFailed,
                format!("The llama-server named by {origin} is not an executable file."),
            ),
            EngineError::Probe { reason, .. } => Self::new(
                ErrorKind::EngineFailed,
                format!("The llama-server found could not be used: {reason}."),
            ),
            EngineError::SpeechMissing { .. } | EngineError::SpeechBroken { .. } | EngineError::SpeechNamed { .. } => {
                not_installed(domain::without_paths(&error.to_string()))
            }
            EngineError::SpeechPython(_) => not_installed(format!("The speech engine is not installed. {error}")),
            EngineError::SpeechDisk { need_mib, free_mib, .. } => not_installed(format!(
                "The speech engine is not installed: that needs {need_mib} MiB of free disk space, and {free_mib} MiB are free."
            )),
            EngineError::SpeechInstall { reason, .. } => not_installed(format!(
                "The speech engine could not be installed: {}. Run `llama-runner engine whisper install` to try again and see \
                 more.",
                domain::without_paths(reason)
            )),
            EngineError::BuildTools { .. }
            | EngineError::Disk { .. }
            | EngineError::Build { .. }
            | EngineError::Cancelled
            | EngineError::Io { .. } => Self::new(
                ErrorKind::EngineFailed,
                "The engine could not be prepared. Run `llama-runner doctor` to see why.",
            ),
        }
    }
}

/// Status and words are the audio contract's (6).
fn not_installed(message: String) -> RunnerError {
    RunnerError::new(ErrorKind::EngineFailed, message).code(FailureCode::EngineNotInstalled.as_str())
}

impl From<EngineError> for RunnerError {
    fn from(error: EngineError) -> Self {
        Self::from(&error)
    }
}
