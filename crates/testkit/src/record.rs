use std::io;
use std::path::Path;

use serde::Deserialize;

/// One line of the stub engine's record file (`STUB_RECORD`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Recorded {
    /// The process started.
    Start {
        /// Process id.
        pid: u32,
        /// Argument vector, the program included.
        argv: Vec<String>,
        /// The whole environment.
        env: std::collections::BTreeMap<String, String>,
        /// Open descriptors at start, as `/proc/self/fd` shows them: number and target.
        fds: Vec<(u32, String)>,
        /// `CLOCK_MONOTONIC` nanoseconds.
        at_ns: u64,
    },
    /// The grandchild asked for by `STUB_GRANDCHILD` runs.
    Grandchild {
        /// Its process id.
        pid: u32,
    },
    /// The socket is bound.
    Bound {
        /// The port.
        port: u16,
    },
    /// A request arrived and its body was read (or could not be).
    Request {
        /// Number of the request in this process, from 1.
        n: u64,
        /// Process id.
        pid: u32,
        /// Method.
        method: String,
        /// Path with query.
        path: String,
        /// Headers in order; names in lower case.
        headers: Vec<(String, String)>,
        /// The body as text.
        body: String,
        /// `CLOCK_MONOTONIC` nanoseconds.
        at_ns: u64,
    },
    /// The answer to a request is complete.
    Done {
        /// Number of the request.
        n: u64,
        /// Tokens produced.
        tokens: u64,
        /// `CLOCK_MONOTONIC` nanoseconds.
        at_ns: u64,
    },
    /// The peer went away before the answer was complete.
    Gone {
        /// Number of the request.
        n: u64,
        /// Tokens produced until then.
        tokens: u64,
        /// `CLOCK_MONOTONIC` nanoseconds.
        at_ns: u64,
    },
    /// A signal, a stdin message or the end of stdin was seen.
    Asked {
        /// `term`, `message` or `stdin_eof`.
        what: String,
        /// Process id.
        pid: u32,
    },
}

/// Reads a record file; a file that does not exist yet is empty, an incomplete last line is left out.
///
/// # Errors
/// When it cannot be read or holds a line that is not a record.
pub fn read_record(path: &Path) -> io::Result<Vec<Recorded>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let complete = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    bytes[..complete]
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}
