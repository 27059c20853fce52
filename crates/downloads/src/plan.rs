use std::fmt;
use std::path::PathBuf;

use http::HeaderMap;
use ollama_store::Digest;
use reqwest::Url;

use crate::DownloadError;

/// What a source turned out to be.
#[derive(Debug)]
pub struct Plan {
    /// The model's name in the library once it is there.
    pub name: String,
    /// Its quantization, when the source says.
    pub quantization: Option<String>,
    /// The folder that every file must lie in (checked again before anything is written).
    pub root: PathBuf,
    /// The files.
    pub files: Vec<PlannedFile>,
    /// What to do when all files are there.
    pub finish: Finish,
    /// The folder that the files' own folder becomes by `finish`.
    pub becomes: Option<PathBuf>,
    /// Everything is there already: nothing will be fetched and `finish` has nothing to do.
    pub already_present: bool,
}

/// One file to fetch.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Where from.
    pub url: Url,
    /// Sent to the host of `url` and to no other.
    pub headers: HeaderMap,
    /// The published hash.
    pub sha256: Option<Digest>,
    /// The published name of the contents in git, 40 hex digits: what the hub tells of small files instead.
    pub git_sha1: Option<String>,
    /// The published size, in bytes.
    pub size: Option<u64>,
    /// Where it goes, under its plan's root.
    pub path: PathBuf,
    /// Its name for people: a file name, or the digest of a layer.
    pub label: String,
}

impl PlannedFile {
    /// A hash of it is published.
    pub fn has_hash(&self) -> bool {
        self.sha256.is_some() || self.git_sha1.is_some()
    }
}

type FinishWork = Box<dyn FnOnce() -> Result<(), DownloadError> + Send>;

/// Work after the last file: for a registry's model, writing the small layers and the manifest. It runs on a thread that
/// may block.
pub struct Finish(Option<FinishWork>);

impl Finish {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// This work.
    pub fn with(work: impl FnOnce() -> Result<(), DownloadError> + Send + 'static) -> Self {
        Self(Some(Box::new(work)))
    }

    /// Does it. Blocking.
    pub(crate) fn run(self) -> Result<(), DownloadError> {
        self.0.map_or(Ok(()), |work| work())
    }
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Finish").field(&self.0.is_some()).finish()
    }
}
