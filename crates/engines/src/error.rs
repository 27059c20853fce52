use std::path::PathBuf;

use domain::{ErrorKind, RunnerError};
use thiserror::Error;

/// Why an engine cannot be used. Messages are for the person at the machine: they may name files of the engine, and they
/// say what to do next. [`RunnerError`] is what a remote caller gets (no paths, promise H10).
#[derive(Debug, Error)]
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
    /// The build was cancelled. What is done so far is kept and the next build goes on from there.
    #[error("Building llama-server was cancelled. The next build goes on where this one stopped.")]
    Cancelled,
    /// A file operation failed.
    #[error("{action} {path} failed: {source}")]
    Io {
        /// What was tried, for example `Writing`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl EngineError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<&EngineError> for RunnerError {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::Missing => Self::new(ErrorKind::EngineFailed, error.to_string()),
            EngineError::ReservedFlag { .. } | EngineError::ReservedEnv { .. } => Self::invalid(error.to_string()),
            EngineError::BadPath { origin, .. } => Self::new(
                ErrorKind::EngineFailed,
                format!("The llama-server named by {origin} is not an executable file."),
            ),
            EngineError::Probe { reason, .. } => Self::new(
                ErrorKind::EngineFailed,
                format!("The llama-server found could not be used: {reason}."),
            ),
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

impl From<EngineError> for RunnerError {
    fn from(error: EngineError) -> Self {
        Self::from(&error)
    }
}
