use std::fmt;

use serde::{Deserialize, Serialize};

/// A download's id: `job_` and ten hex digits (LM Studio contract 7.4), the same in every dialect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a download stands. Each dialect's words are in the management contract 7.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Asks the origin what there is to fetch.
    Resolving,
    /// Bytes are coming.
    Downloading,
    /// Hashes are compared.
    Verifying,
    /// Stopped, to be continued; what is there is kept.
    Paused,
    /// All files are in place.
    Completed,
    /// Given up; `error` says why. What is there is kept for another try.
    Failed,
    /// Stopped for good; what was there is gone.
    Cancelled,
}

impl JobState {
    /// Nothing will happen to it any more, unless it is asked for again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Where a download comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// An Ollama registry.
    Registry,
    /// The Hugging Face hub.
    Hub,
    /// A plain address.
    Url,
}

/// One file of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// File name for people.
    pub name: String,
    /// SHA-256 the origin published, 64 hex digits.
    pub sha256: Option<String>,
    /// Size in bytes, once known.
    pub size: Option<u64>,
    /// Bytes on disk.
    pub done: u64,
}

/// A download as every dialect renders it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Where it comes from.
    pub kind: JobKind,
    /// What was asked for, in the words of the first caller: a model name, `owner/repo` or an address.
    pub name: String,
    /// The quantization asked for.
    pub quantization: Option<String>,
    /// Where it stands.
    pub state: JobState,
    /// Its files, once known.
    pub files: Vec<JobFile>,
    /// Bytes on disk, all files.
    pub bytes_done: u64,
    /// Bytes in all, once known.
    pub bytes_total: Option<u64>,
    /// Present speed.
    pub bytes_per_second: u64,
    /// Why it failed or paused by itself.
    pub error: Option<String>,
    /// False: no published hash was compared, since there is none or the files lay there already; only size and structure
    /// were checked.
    pub verified: bool,
    /// The model's name in the library, once it is there.
    pub model: Option<String>,
    /// Unix milliseconds of the request.
    pub started_ms: i64,
    /// Unix milliseconds of the end, in a final state.
    pub ended_ms: Option<i64>,
}
