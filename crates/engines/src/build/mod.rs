//! Builds llama-server from the registry source package (engine guide 1).

use std::path::{Path, PathBuf};

use crate::EngineError;

/// A step of the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildStep {
    /// Another process builds; waiting for it.
    Waiting,
    /// Looking for compiler, Python and disk space.
    Tools,
    /// Making the Python environment with cmake and ninja.
    Python,
    /// Fetching the source package.
    Download,
    /// Checking its SHA-256.
    Verify,
    /// Unpacking.
    Unpack,
    /// Configuring.
    Configure,
    /// Compiling.
    Compile,
    /// Running the result once.
    SmokeTest,
    /// Moving it into place.
    Install,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildProgress {
    /// The step that runs.
    pub step: BuildStep,
    /// Share of the whole work done, 0 to 1.
    pub fraction: f32,
    /// One line for people.
    pub message: String,
}

/// Builds the pinned llama-server into `<cache_dir>/engines/llama.cpp/…` unless it is there, and returns its path.
/// Blocks for minutes.
pub fn build_llama_server(_cache_dir: &Path, _progress: &dyn Fn(BuildProgress)) -> Result<PathBuf, EngineError> {
    Err(EngineError::Missing)
}
