use std::path::PathBuf;

use domain::LogLine;
use tokio::sync::mpsc;

use crate::{Child, ChildSpec, OutputLine, SupervisorError};

/// Turns an output line into a log line; `None` keeps it out of the log (protocol lines).
pub type LineDecoder = fn(&OutputLine) -> Option<LogLine>;

/// Where the supervisor keeps its files.
#[derive(Debug, Clone)]
pub struct SupervisorSettings {
    /// State files of running children.
    pub state_dir: PathBuf,
    /// `<label>.log` per child.
    pub log_dir: PathBuf,
    /// Size at which a log file is rotated.
    pub max_file_bytes: u64,
    /// Files kept per child, the current one included.
    pub max_files: usize,
}

/// Owns every child process. Cloning gives another handle.
#[derive(Debug, Clone)]
pub struct Supervisor {}

impl Supervisor {
    /// Starts.
    pub fn start(_settings: SupervisorSettings) -> Result<Self, SupervisorError> {
        Ok(Self {})
    }
    /// Decoder.
    pub fn with_line_decoder(self, _decoder: LineDecoder) -> Self {
        self
    }
    /// Spawns.
    pub async fn spawn(&self, _spec: ChildSpec) -> Result<(Child, mpsc::Receiver<OutputLine>), SupervisorError> {
        std::future::ready(Err(SupervisorError::ShuttingDown)).await
    }
    /// Children.
    pub fn children(&self) -> Vec<(String, u32)> {
        Vec::new()
    }
    /// Shuts down.
    pub async fn shutdown(&self) {
        std::future::ready(()).await;
    }
}
