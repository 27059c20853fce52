//! The record file: what a test looks at afterwards.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use testkit::monotonic_ns;

#[derive(Debug)]
pub(crate) struct Recorder {
    file: Option<Mutex<File>>,
    requests: AtomicU64,
}

impl Recorder {
    pub(crate) fn open(path: Option<&std::path::Path>) -> Self {
        let file = path.and_then(|path| File::options().create(true).append(true).open(path).ok());
        Self {
            file: file.map(Mutex::new),
            requests: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.file.is_some()
    }

    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Appends one line with a single write, so that several processes can share the file.
    pub(crate) fn write(&self, line: &Value) {
        if let Some(file) = &self.file
            && let Ok(mut file) = file.lock()
        {
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }

    pub(crate) fn start(&self) {
        if !self.is_on() {
            return;
        }
        let env: serde_json::Map<String, Value> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into()))
            .collect();
        let argv: Vec<String> = std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        self.write(
            &json!({"event": "start", "pid": std::process::id(), "argv": argv, "env": env,
            "fds": open_descriptors(), "at_ns": monotonic_ns()}),
        );
    }

    pub(crate) fn asked(&self, what: &str) {
        self.write(&json!({"event": "asked", "what": what, "pid": std::process::id()}));
    }
}

/// Number and target of every descriptor but the record's and the listing's own.
fn open_descriptors() -> Vec<(u32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((
                number,
                std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned(),
            ))
        })
        .collect()
}
