use thiserror::Error;

/// Why a file could not be read as GGUF. The texts are for people and hold no path.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The file system said no.
    #[error("could not read the file: {0}")]
    Io(#[from] std::io::Error),
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file")]
    NotGguf,
    /// A version this reader does not know.
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    Version(u32),
    /// Written for big-endian machines.
    #[error("this GGUF file is big-endian; the engine here needs a little-endian one")]
    BigEndian,
    /// The header goes on after the end of the file.
    #[error("the file ends inside its {0}")]
    Truncated(&'static str),
    /// A number is larger than any real model has, or than the file could hold.
    #[error("the header names {value} {what}, at most {limit} are possible")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number in the file.
        value: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// The header contradicts the format.
    #[error("the header is damaged: {0}")]
    Invalid(String),
    /// The header is sound, but tensor data is missing at the end: an unfinished download or copy.
    #[error("the file is incomplete: {have} of {needed} bytes are there")]
    Incomplete {
        /// Bytes the header asks for.
        needed: u64,
        /// Bytes in the file.
        have: u64,
    },
}
