//! Noticing edits. Plain `notify` with a quiet time of our own instead of a debouncer: the debouncer's thread wakes
//! twenty times a second for ever, this one sleeps until something happens, and what happened does not matter because
//! the file is read again by name and compared by contents.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// No event for this long: the editor is done.
const QUIET: Duration = Duration::from_millis(100);
/// A file that is saved without end is still read this often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Watches the folders that decide what the file holds. Ends when dropped.
pub(crate) struct FileWatch {
    watcher: RecommendedWatcher,
    watched: Vec<PathBuf>,
}

impl FileWatch {
    /// Starts a thread that calls `check` after each edit, until `check` returns false or the watch is dropped.
    pub(crate) fn start(file: &Path, check: impl Fn() -> bool + Send + 'static) -> Result<Self, String> {
        let (sender, receiver) = channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_)));
            if relevant {
                let _ = sender.send(());
            }
        })
        .map_err(|error| error.to_string())?;
        let mut watch = Self {
            watcher,
            watched: Vec::new(),
        };
        watch.follow(file)?;
        std::thread::Builder::new()
            .name("config-watch".into())
            .spawn(move || run(&receiver, check))
            .map_err(|error| error.to_string())?;
        Ok(watch)
    }

    /// Watches the folder of the file and, for a symbolic link, of every file on the way to its target.
    pub(crate) fn follow(&mut self, file: &Path) -> Result<(), String> {
        for folder in folders(file) {
            if !self.watched.contains(&folder) {
                self.watcher
                    .watch(&folder, RecursiveMode::NonRecursive)
                    .map_err(|error| error.to_string())?;
                self.watched.push(folder);
            }
        }
        Ok(())
    }
}

fn run(events: &Receiver<()>, check: impl Fn() -> bool) {
    while events.recv().is_ok() {
        let since = Instant::now();
        while since.elapsed() < AT_LEAST_EVERY {
            match events.recv_timeout(QUIET) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if !check() {
            return;
        }
    }
}

fn folders(file: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = file.to_owned();
    // Links may form a circle.
    for _ in 0..16 {
        let folder = at
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned();
        let next = std::fs::read_link(&at).ok().map(|target| folder.join(target));
        found.push(folder);
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    if let Some(real) = std::fs::canonicalize(file)
        .ok()
        .and_then(|real| real.parent().map(Path::to_owned))
    {
        found.push(real);
    }
    found
}
