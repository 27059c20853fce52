use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use domain::{LoadedLaunch, ModelEntry};
use supervisor::StopPlan;

use crate::{EngineBinary, EngineSettings};

/// Everything the supervisor needs to start one engine process.
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// How it is asked to end.
    pub stop: StopPlan,
}

impl Launch {
    /// Sets the grace time after the polite stop (`supervisor.stop_grace_seconds`).
    #[must_use]
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop.grace = grace;
        self
    }
}

/// The start recipe.
pub fn launch(
    binary: &EngineBinary,
    _entry: &ModelEntry,
    _launch: &LoadedLaunch,
    _api_key: &str,
    _settings: &EngineSettings,
) -> Launch {
    Launch {
        program: binary.path.clone(),
        args: Vec::new(),
        env: Vec::new(),
        stop: StopPlan {
            stdin_message: None,
            grace: Duration::from_secs(10),
            second_term_grace: Duration::from_secs(2),
        },
    }
}
