use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{EngineBinary, EngineError};

/// What the product settings say about llama-server (`engines.llama_server.*`) and where files lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineSettings {
    /// `engines.llama_server.path`: use this program and no other.
    pub path: Option<PathBuf>,
    /// `engines.llama_server.args`: arguments for every model, checked with [`crate::reserved_flag`].
    pub args: Vec<String>,
    /// `engines.llama_server.env`: environment for every model, checked with [`crate::reserved_setting_env`].
    pub env: BTreeMap<String, String>,
    /// `$XDG_CACHE_HOME/llama-runner`.
    pub cache_dir: PathBuf,
    /// `--data-dir`.
    pub data_dir: PathBuf,
}

/// Where an engine program came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `engines.llama_server.path`.
    Config,
    /// `LLAMARUNNER_LLAMA_SERVER`.
    Environment,
    /// A release in `<data>/engines/llama.cpp/<name>/`. Nothing puts one there yet: downloads come with a later issue.
    Downloaded,
    /// Built by [`crate::build`] in `<cache>/engines/llama.cpp/<name>/`.
    Built,
    /// The user's `PATH`.
    Path,
}

/// The engines of this machine.
#[derive(Debug, Clone)]
pub struct Engines {
    settings: Arc<EngineSettings>,
}

impl Engines {
    /// Nothing is looked up yet.
    pub fn new(settings: EngineSettings) -> Self {
        Self { settings: Arc::new(settings) }
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<EngineSettings> {
        Arc::clone(&self.settings)
    }

    /// New settings; the next [`Engines::llama_server`] looks again.
    pub fn apply(&self, _settings: EngineSettings) {}

    /// The llama-server to use, probed once per file state and shared by concurrent callers.
    ///
    /// # Errors
    /// [`EngineError::Missing`], [`EngineError::BadPath`] or [`EngineError::Probe`].
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn llama_server(&self) -> Result<Arc<EngineBinary>, EngineError> {
        Err(EngineError::Missing)
    }
}
