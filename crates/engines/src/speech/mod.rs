//! The speech engine: one Python program of ours that hears (`faster-whisper`) and speaks (voice engines). Here: where its
//! interpreter comes from and how it is installed, with which arguments and environment it is started, what its lines and
//! its end mean. What it answers over HTTP is the audio contract's (7.2).

mod environment;
mod failure;
mod info;
mod install;
mod launch;
mod program_files;
mod python;
mod start;

use std::path::PathBuf;

pub use environment::{EnvironmentRecipe, Installed};
pub use info::{PYTHON_VARIABLE, SpeechInfo, SpeechState};
pub use install::{InstallProgress, InstallStep};
pub use python::{NEWEST_PYTHON, OLDEST_PYTHON, Tools};

pub(crate) use failure::ended;
pub(crate) use info::{Named, SpeechEngine};
pub(crate) use launch::launch;
pub(crate) use start::{SpeechWatch, log_line};

/// What the settings say about speech (`engines.faster_whisper`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechSettings {
    /// `python`: an interpreter that has faster-whisper. Nothing is installed then.
    pub python: Option<PathBuf>,
    /// [`PYTHON_VARIABLE`]: the same, where the settings name none.
    pub python_by_variable: Option<PathBuf>,
    /// `device`: `auto`, `cpu` or `cuda`.
    pub device: String,
    /// `compute_type`: `auto`, `int8`, `float16`, …
    pub compute_type: String,
    /// `auto_install`: a load that finds no environment makes it.
    pub auto_install: bool,
    /// `args`: further arguments of the program, checked with [`crate::reserved_flag`].
    pub args: Vec<String>,
    /// Programs that an environment is made with.
    pub tools: Tools,
}

impl Default for SpeechSettings {
    fn default() -> Self {
        Self {
            python: None,
            python_by_variable: None,
            device: "auto".into(),
            compute_type: "auto".into(),
            auto_install: true,
            args: Vec::new(),
            tools: Tools::here(),
        }
    }
}

/// What starts a speech process: an interpreter that has what the program needs, and the program's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechProgram {
    /// The interpreter.
    pub python: PathBuf,
    /// The program's first file.
    pub script: PathBuf,
    /// Folders of GPU libraries that came with the environment.
    pub libraries: Vec<PathBuf>,
    /// It was installed just now, as part of this load.
    pub installed_now: bool,
}
