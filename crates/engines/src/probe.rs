use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A llama-server program and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct EngineBinary {
    /// The program.
    pub path: PathBuf,
    /// As printed, for example `0.6.0-dev`.
    pub version: String,
    /// Upstream build number, for example 11549.
    pub build: Option<u32>,
    /// Commit as printed.
    pub commit: Option<String>,
    /// Devices it can use besides the CPU, as printed, for example `CUDA0: NVIDIA H200 (…)`.
    pub devices: Vec<String>,
    /// Every flag of `--help`, with its dashes.
    pub flags: BTreeSet<String>,
}
