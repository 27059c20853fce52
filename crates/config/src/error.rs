use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where in the file, or in the environment or command line, a problem is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// File name, or the variable or flag that set the value.
    pub file: String,
    /// Line and column from 1, when the problem is in the file.
    pub position: Option<(usize, usize)>,
    /// Dotted path of the setting, for example `proxies.ollama.port`; empty for the whole file.
    pub field: String,
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, as a sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.file)?;
        if let Some((line, column)) = self.place.position {
            write!(f, " line {line}, column {column}")?;
        }
        if !self.place.field.is_empty() {
            write!(f, ": {}", self.place.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a configuration was not read, accepted or written.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The contents are not acceptable. Never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// The file holds nothing readable and there is no good copy to restore.
    #[error("{}: {reason}. Delete it to start with the default settings, or restore a backup beside it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        reason: &'static str,
    },
    /// The file could not be written; the old contents are in place.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no longer the one the caller edited (promise C3; HTTP 412).
    #[error(
        "the settings were changed by someone else in the meantime (now revision {0}); read them again and repeat the change"
    )]
    Stale(String),
    /// The place to change does not exist.
    #[error("{0:?} is not a place in the settings")]
    Pointer(String),
    /// The file cannot be watched for edits; everything else works.
    #[error("cannot watch {}: {reason}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ConfigError {
    /// The problems of [`ConfigError::Invalid`]; empty for the other kinds.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid(problems) => problems,
            _ => &[],
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
