use std::path::PathBuf;

use config::ConfigError;
use thiserror::Error;

use crate::instance_lock::Owner;
use crate::ready::ReadyReport;

/// Why the application did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Another LlamaRunner uses this data folder (promise C6).
    #[error("LlamaRunner is already running with the data folder {}{}. Use that one, stop it, or choose another folder with --data-dir", data.display(), describe(owner.as_ref()))]
    AlreadyRunning {
        /// The folder.
        data: PathBuf,
        /// Who, when it could be read.
        owner: Option<Owner>,
    },
    /// A folder cannot be made or used.
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no home folder to put files in.
    #[error("there is no home folder; name the places with --config and --data-dir")]
    NoHome,
    /// No listener could be bound; the report says why for each.
    #[error("{}", nothing_bound(.0))]
    NothingBound(Box<ReadyReport>),
    /// Child processes cannot be supervised.
    #[error("{0}")]
    Supervisor(#[from] supervisor::SupervisorError),
    /// A part failed in an unforeseen way.
    #[error("a part of the program failed to start: {0}")]
    Task(String),
    /// The model library cannot be opened.
    #[error("{0}")]
    Models(#[from] models::ModelsError),
    /// The database cannot be served.
    #[error("{0}")]
    Store(#[from] store::StoreError),
    /// Our own model store cannot be opened.
    #[error("{0}")]
    OllamaStore(#[from] ollama_store::StoreError),
}

impl StartError {
    /// The process exit code (contract "Command line and config"): 1 failure, 2 invalid configuration, 3 nothing bound.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(ConfigError::Invalid(_) | ConfigError::Damaged { .. }) => 2,
            Self::NothingBound(_) => 3,
            Self::Config(_)
            | Self::AlreadyRunning { .. }
            | Self::Folder { .. }
            | Self::NoHome
            | Self::Supervisor(_)
            | Self::Task(_)
            | Self::Models(_)
            | Self::Store(_)
            | Self::OllamaStore(_) => 1,
        }
    }
}

fn describe(owner: Option<&Owner>) -> String {
    owner.map_or_else(String::new, |owner| {
        let at = owner
            .management
            .as_ref()
            .map_or_else(String::new, |address| format!(", http://{address}/ui/"));
        format!(" (process {}{at})", owner.pid)
    })
}

fn nothing_bound(report: &ReadyReport) -> String {
    if report.problems.is_empty() {
        return "all listeners are disabled in the settings, so there is nothing to serve".into();
    }
    let reasons: Vec<String> = report
        .problems
        .iter()
        .map(|p| format!("{}: {}", p.listener, p.error))
        .collect();
    format!("no port could be opened. {}", reasons.join(" "))
}
