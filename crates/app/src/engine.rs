//! What the command line asks about engines without a running server.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use engines::build::{BuildProgress, build_llama_server};
use engines::speech::{EnvironmentRecipe, InstallProgress, SpeechInfo};
use engines::{EngineError, Engines};
use serde::Serialize;

use crate::error::StartError;
use crate::settings;
use crate::start::StartOptions;

/// The engines that would be used: llama-server, and the one for speech.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineInfo {
    /// Is there one?
    pub available: bool,
    /// The program.
    pub path: Option<PathBuf>,
    /// As it says itself.
    pub version: Option<String>,
    /// Upstream build number.
    pub build: Option<u32>,
    /// Upstream commit.
    pub commit: Option<String>,
    /// Devices it can use besides the CPU.
    pub devices: Vec<String>,
    /// Why there is none, and what to do.
    pub error: Option<String>,
    /// The speech engine.
    pub speech: SpeechInfo,
}

/// Finds and asks the engines that these options lead to.
///
/// # Errors
/// The configuration cannot be read.
pub async fn engine_info(options: &StartOptions) -> Result<EngineInfo, StartError> {
    let (places, parsed) = options.read_config()?;
    let engines = Engines::new(settings::engines(&parsed.config, &places));
    let speech = engines.speech_info(true).await;
    Ok(match engines.llama_server().await {
        Ok(engine) => EngineInfo {
            available: true,
            path: Some(engine.path.clone()),
            version: Some(engine.version.clone()),
            build: engine.build,
            commit: engine.commit.clone(),
            devices: engine.devices.clone(),
            error: None,
            speech,
        },
        Err(error) => EngineInfo {
            available: false,
            path: None,
            version: None,
            build: None,
            commit: None,
            devices: Vec::new(),
            error: Some(error.to_string()),
            speech,
        },
    })
}

/// Builds llama-server in the cache folder of these options. Blocks for minutes.
///
/// # Errors
/// No home folder, or the build failed.
pub fn build_engine(options: &StartOptions, progress: &dyn Fn(BuildProgress)) -> Result<PathBuf, BuildError> {
    let places = options.places()?;
    Ok(build_llama_server(&places.cache, progress)?)
}

/// Installs the speech engine in the cache folder of these options, unless it is there. Blocks for a minute or longer.
///
/// # Errors
/// No home folder, or the installation failed.
pub fn install_speech(options: &StartOptions, progress: &dyn Fn(InstallProgress)) -> Result<PathBuf, BuildError> {
    let places = options.places()?;
    let installed = EnvironmentRecipe::speech().install(&places.cache, &AtomicBool::new(false), progress)?;
    Ok(installed.python)
}

/// Why no engine was built or installed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The places are not known.
    #[error("{0}")]
    Places(#[from] StartError),
    /// The build or the installation failed.
    #[error("{0}")]
    Engine(#[from] EngineError),
}
