use std::path::PathBuf;

use thiserror::Error;

use crate::{Digest, Name};

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system refused.
    #[error("could not {what}: {source}")]
    Io {
        /// What was tried, with a path's last part only.
        what: String,
        /// The file or folder, for logs; not for clients.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store belongs to another program.
    #[error("this model store belongs to another program and is only read")]
    ReadOnly,
    /// No model has this name.
    #[error("model '{0}' not found")]
    NotFound(Name),
    /// The name cannot be a path on every system: a reserved device name or a trailing dot.
    #[error("the name '{0}' cannot be stored")]
    Unstorable(Name),
    /// Not `sha256:` and 64 hex digits.
    #[error("invalid digest format")]
    InvalidDigest,
    /// The contents have another digest than promised; nothing was stored.
    #[error("digest mismatch, expected \"{expected}\", got \"{got}\"")]
    DigestMismatch {
        /// As promised.
        expected: Digest,
        /// As found.
        got: Digest,
    },
    /// A manifest names a blob that is not there.
    #[error("blob {0} is missing")]
    MissingBlob(Digest),
    /// A manifest that is not one.
    #[error("the manifest is not valid: {0}")]
    InvalidManifest(String),
    /// A text layer longer than any real one.
    #[error("the layer {digest} is {size} bytes long, more than the {limit} a text layer may have")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The longest, in bytes.
        limit: u64,
    },
}

impl StoreError {
    pub(crate) fn io(what: &str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("{what} '{name}'");
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
