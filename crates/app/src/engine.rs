//! What the command line asks about engines without a running server.

use std::path::PathBuf;

use engines::build::{BuildProgress, build_llama_server};
use engines::{EngineError, Engines};
use serde::Serialize;

use crate::error::StartError;
use crate::settings;
use crate::start::StartOptions;

/// The engine that would be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

/// Finds and asks the engine that these options lead to.
///
/// # Errors
/// The configuration cannot be read.
pub async fn engine_info(options: &StartOptions) -> Result<EngineInfo, StartError> {
    let (places, parsed) = options.read_config()?;
    let found = Engines::new(settings::engines(&parsed.config, &places))
        .llama_server()
        .await;
    Ok(match found {
        Ok(engine) => EngineInfo {
            available: true,
            path: Some(engine.path.clone()),
            version: Some(engine.version.clone()),
            build: engine.build,
            commit: engine.commit.clone(),
            devices: engine.devices.clone(),
            error: None,
        },
        Err(error) => EngineInfo {
            available: false,
            path: None,
            version: None,
            build: None,
            commit: None,
            devices: Vec::new(),
            error: Some(error.to_string()),
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

/// Why no engine was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The places are not known.
    #[error("{0}")]
    Places(#[from] StartError),
    /// The build failed.
    #[error("{0}")]
    Engine(#[from] EngineError),
}
