//! Builds llama-server from the registry's source package, without root and without any repository host: a Python
//! environment with cmake and ninja, the pinned package with its SHA-256, one compile, one smoke test, one rename
//! (engine guide 1 and 5b).
//!
//! Blocking: run it on a thread of its own. Two processes build once (file lock); a build that was cut goes on where it
//! stopped, and nothing half-made is ever found by [`crate::Engines`].

mod recipe;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use recipe::BuildRecipe;

use crate::{EngineError, process};
use steps::Builder;

/// A step of the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

impl BuildStep {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for another build",
            Self::Tools => "checking the tools",
            Self::Python => "preparing cmake and ninja",
            Self::Download => "fetching the source package",
            Self::Verify => "checking the source package",
            Self::Unpack => "unpacking",
            Self::Configure => "configuring",
            Self::Compile => "compiling",
            Self::SmokeTest => "testing the result",
            Self::Install => "installing",
        }
    }

    /// Where this step starts in the whole work: compiling takes nearly all of it.
    fn starts_at(self) -> f32 {
        match self {
            Self::Waiting | Self::Tools => 0.0,
            Self::Python => 0.005,
            Self::Download => 0.025,
            Self::Verify => 0.05,
            Self::Unpack => 0.052,
            Self::Configure => 0.06,
            Self::Compile => COMPILE_START,
            Self::SmokeTest => COMPILE_END,
            Self::Install => 0.995,
        }
    }
}

const COMPILE_START: f32 = 0.07;
const COMPILE_END: f32 = 0.99;

/// How far a build is.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildProgress {
    /// The step that runs.
    pub step: BuildStep,
    /// Share of the whole work done, 0 to 1; never falls.
    pub fraction: f32,
    /// One line for people, for example `compiling (57 of 211)`.
    pub message: String,
}

/// Builds the pinned llama-server into `<cache_dir>/engines/llama.cpp/<key>/` unless it is there, and returns its path.
/// Blocks for minutes (about 950 seconds of processor time).
///
/// # Errors
/// [`EngineError::BuildTools`] with the command that installs what is missing, [`EngineError::Disk`],
/// [`EngineError::Build`] with the last words of the step, or [`EngineError::Io`].
pub fn build_llama_server(cache_dir: &Path, progress: &dyn Fn(BuildProgress)) -> Result<PathBuf, EngineError> {
    BuildRecipe::pinned().build(cache_dir, &AtomicBool::new(false), progress)
}

impl BuildRecipe {
    /// Where the finished program lies.
    pub fn program(&self, cache_dir: &Path) -> PathBuf {
        folder(cache_dir)
            .join(&self.key)
            .join(format!("llama-server{}", std::env::consts::EXE_SUFFIX))
    }

    /// As [`build_llama_server`], for any recipe. Setting `cancel` from another thread ends the running tool within a
    /// moment; what is done is kept for the next build.
    ///
    /// # Errors
    /// As [`build_llama_server`]; [`EngineError::Cancelled`] after `cancel`.
    pub fn build(
        &self,
        cache_dir: &Path,
        cancel: &AtomicBool,
        progress: &dyn Fn(BuildProgress),
    ) -> Result<PathBuf, EngineError> {
        let program = self.program(cache_dir);
        if program.is_file() {
            return Ok(program);
        }
        let folder = folder(cache_dir);
        fs::create_dir_all(&folder).map_err(EngineError::io("Creating", &folder))?;
        let _lock = process::lock(&folder.join(format!(".{}.lock", self.key)), cancel, &mut || {
            progress(BuildProgress {
                step: BuildStep::Waiting,
                fraction: 0.0,
                message: "waiting for another process that builds the engine".into(),
            });
        })?;
        // The process that held the lock may have built it.
        if program.is_file() {
            return Ok(program);
        }
        Builder::new(self, &folder, cancel, progress)?.run(&program)?;
        Ok(program)
    }
}

fn folder(cache_dir: &Path) -> PathBuf {
    cache_dir.join("engines").join("llama.cpp")
}

#[cfg(test)]
#[path = "../build_tests.rs"]
mod tests;
