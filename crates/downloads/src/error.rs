use domain::{ErrorKind, RunnerError};
use thiserror::Error;

/// Why something was not downloaded. Messages are for people and name no local path (promise H10).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DownloadError {
    /// A name that cannot be one: wrong form, or it would choose a path (promise D4).
    #[error("{0}")]
    InvalidName(String),
    /// The origin knows no such model, file or tag.
    #[error("{0}")]
    NotFound(String),
    /// The origin wants other credentials, or the repository is gated.
    #[error("{0}")]
    Unauthorized(String),
    /// Not offered: a form of source or file that this version does not fetch.
    #[error("{0}")]
    Unsupported(String),
    /// An address that must not be asked (promise S11).
    #[error("{0}")]
    Refused(String),
    /// The origin answered with something that is no answer to the question.
    #[error("{0}")]
    Origin(String),
    /// The origin cannot be reached or broke off, also after all tries.
    #[error("{0}")]
    Network(String),
    /// The bytes are not the published ones.
    #[error("digest mismatch, file must be downloaded again: want {want}, got {got}")]
    Digest {
        /// Published, `sha256:` and 64 hex digits.
        want: String,
        /// Found.
        got: String,
    },
    /// The file is complete but not a sound model file.
    #[error("{0}")]
    Damaged(String),
    /// The disk is full.
    #[error("not enough disk space: {} more are needed", bytes_text(*missing))]
    DiskFull {
        /// Bytes that have to be freed before it can go on.
        missing: u64,
    },
    /// Reading or writing a local file failed.
    #[error("{0}")]
    Io(String),
    /// The job was paused.
    #[error("the download was paused")]
    Paused,
    /// The job was cancelled.
    #[error("the download was cancelled")]
    Cancelled,
    /// The program is ending.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl DownloadError {
    /// An I/O error while doing something; the text names no path.
    pub fn io(doing: &str, error: &std::io::Error) -> Self {
        Self::Io(format!("{doing}: {}", error.kind()))
    }
}

impl From<DownloadError> for RunnerError {
    fn from(error: DownloadError) -> Self {
        let kind = match &error {
            DownloadError::InvalidName(_) => ErrorKind::InvalidRequest,
            DownloadError::NotFound(_) => ErrorKind::NotFound,
            DownloadError::Unauthorized(_) | DownloadError::Refused(_) => ErrorKind::Forbidden,
            DownloadError::Unsupported(_) => ErrorKind::Unsupported,
            DownloadError::Paused => ErrorKind::Conflict,
            DownloadError::Cancelled => ErrorKind::Cancelled,
            DownloadError::ShuttingDown => ErrorKind::ShuttingDown,
            DownloadError::Origin(_)
            | DownloadError::Network(_)
            | DownloadError::Digest { .. }
            | DownloadError::Damaged(_)
            | DownloadError::DiskFull { .. }
            | DownloadError::Io(_) => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

/// A size for people, in the decimal units that disks are sold in.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let value = bytes as f64;
    UNITS.iter().find(|(_, unit)| value >= *unit).map_or_else(
        || format!("{bytes} bytes"),
        |(name, unit)| format!("{:.1} {name}", value / unit),
    )
}
