use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::LogLine;
use telemetry::{LineSink, LogWriter, RotatingFile, prune_logs};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::child::{Owner, Wish};
use crate::leftovers::StateFolder;
use crate::output::LineTargets;
use crate::spawner::Spawner;
use crate::{Child, ChildSpec, ExitReport, OutputLine, SupervisorError};

/// Lines the receiver of [`Supervisor::spawn`] may fall behind before lines are lost. An engine told to be verbose writes some
/// hundreds in one go while it starts, and what says that it is ready comes last.
const OUTPUT_CAPACITY: usize = 4096;
/// All logs together (promise O3).
const MAX_LOG_BYTES: u64 = 1 << 30;

/// Turns an output line into a log line; `None` keeps it out of the log (protocol lines).
pub type LineDecoder = fn(&OutputLine) -> Option<LogLine>;

/// Where the supervisor keeps its files.
#[derive(Debug, Clone)]
pub struct SupervisorSettings {
    /// State files of running children go to `children/` below it. Best a runtime folder, emptied at boot.
    pub state_dir: PathBuf,
    /// `<label>.log` per child, and `<label>.crash.log` with the last lines of its last unasked end.
    pub log_dir: PathBuf,
    /// Size at which a log file is rotated.
    pub max_file_bytes: u64,
    /// Files kept per child, the current one included.
    pub max_files: usize,
}

/// Owns every child process. Cloning gives another handle to the same supervisor; dropping handles ends nothing,
/// [`Supervisor::shutdown`] ends everything.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
    decoder: Option<LineDecoder>,
}

#[derive(Debug)]
struct Inner {
    settings: SupervisorSettings,
    spawner: Spawner,
    logs: LogWriter,
    tasks: TaskTracker,
    children: Mutex<BTreeMap<u64, Child>>,
    next: std::sync::atomic::AtomicU64,
    closing: AtomicBool,
}

impl Supervisor {
    /// Removes what an earlier life of the app left behind (promise R3) and starts the thread that starts children
    /// (promise R1). Call it inside the tokio runtime that will live as long as the app.
    ///
    /// # Errors
    /// Outside a runtime, without a thread, or when the state folder cannot be made.
    pub fn start(settings: SupervisorSettings) -> Result<Self, SupervisorError> {
        let state = StateFolder::open(&settings.state_dir)?;
        for label in state.reap() {
            tracing::warn!(label, "ended a process left behind by an earlier run");
        }
        prune_logs(&settings.log_dir, MAX_LOG_BYTES);
        let spawner = Spawner::start(state)?;
        let logs = LogWriter::start("child-logs").map_err(SupervisorError::Thread)?;
        let inner = Inner {
            settings,
            spawner,
            logs,
            tasks: TaskTracker::new(),
            children: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            closing: AtomicBool::new(false),
        };
        Ok(Self {
            inner: Arc::new(inner),
            decoder: None,
        })
    }

    /// With a function that makes log lines of output lines; without one every line is logged as it is. The exit report
    /// shows the decoded lines too.
    pub fn with_line_decoder(mut self, decoder: LineDecoder) -> Self {
        self.decoder = Some(decoder);
        self
    }

    /// Starts a child. Its lines also come through the receiver, which may be dropped; a slow one loses lines, it never
    /// makes the child wait (promise R10). The receiver ends when the child's pipes are closed.
    ///
    /// # Errors
    /// When the program cannot be executed, or after [`Supervisor::shutdown`].
    pub async fn spawn(&self, spec: ChildSpec) -> Result<(Child, mpsc::Receiver<OutputLine>), SupervisorError> {
        if self.inner.closing.load(Ordering::SeqCst) {
            return Err(SupervisorError::ShuttingDown);
        }
        let tag = random_tag();
        let spec = Arc::new(spec);
        let label: Arc<str> = spec.label.as_str().into();
        let (process, pipes) = self.inner.spawner.spawn(Arc::clone(&spec), tag.clone()).await?;
        // From here to the end of this function nothing awaits: the process cannot get lost between two owners.
        let (lines, received) = mpsc::channel(OUTPUT_CAPACITY);
        let (wish, wishes) = watch::channel(Wish::Run);
        let (exit, exited) = watch::channel(None);
        let child = Child {
            pid: process.pid,
            label,
            wish: Arc::new(wish),
            exit: exited,
        };
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let mut children = self.inner.children();
        children.insert(number, child.clone());
        if self.inner.closing.load(Ordering::SeqCst) {
            // Shutdown passed between the first look and now; it may not have seen this child.
            child.ask(Wish::Kill);
        }
        drop(children);
        let targets = LineTargets {
            ring: spec.log.clone(),
            file: self.inner.log_file(&spec.label),
            decoder: self.decoder,
            last: Arc::default(),
            lines,
        };
        let owner = Owner {
            process,
            pipes,
            stop: spec.stop.clone(),
            targets,
            wish: wishes,
        };
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            let report = owner.run(&inner.tasks).await;
            tracing::info!(label = spec.label, code = ?report.code, signal = ?report.signal, requested = report.requested,
                "child ended");
            inner.keep_crash_log(&spec.label, &report);
            inner.children().remove(&number);
            exit.send_replace(Some(report));
            // Last: nobody who waits for the end has to wait for a disk.
            inner.spawner.forget(tag).await;
        });
        Ok((child, received))
    }

    /// Label and process id of every child that runs.
    pub fn children(&self) -> Vec<(String, u32)> {
        self.inner
            .children()
            .values()
            .map(|child| (child.label().to_owned(), child.pid()))
            .collect()
    }

    /// Stops every child, each by its own plan and all at once, and waits until none is left. No child can be started
    /// afterwards. Safe to call more than once.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        for child in self.inner.children().values() {
            child.ask(Wish::Stop);
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn children(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_file(&self, label: &str) -> Option<LineSink> {
        let path = self.settings.log_path(label);
        match RotatingFile::open(&path, self.settings.max_file_bytes, self.settings.max_files) {
            Ok(file) => Some(self.logs.sink(file)),
            Err(error) => {
                // A full or read-only disk must not stop serving (promise O3); the ring still has the lines.
                tracing::warn!(path = %path.display(), %error, "cannot write the log of a child");
                None
            }
        }
    }

    /// The crash log of a child survives rotation (promise O3).
    fn keep_crash_log(&self, label: &str, report: &ExitReport) {
        if report.requested {
            return;
        }
        let path = self.settings.log_dir.join(format!("{}.crash.log", file_name(label)));
        // Two files of generous size: this crash, and the ones before.
        let Ok(file) = RotatingFile::open(&path, 64 * 1024, 2) else {
            return;
        };
        let sink = self.logs.sink(file);
        let (at, code, signal) = (telemetry::now_ms(), report.code, report.signal);
        let text = format!(
            "{at} ended: code {code:?}, signal {signal:?}\n{}\n",
            report.last_lines.join("\n")
        );
        sink.write_line(text.into_bytes().into());
    }
}

/// A label as a file name: one path component, nothing hidden, nothing surprising.
fn file_name(label: &str) -> String {
    let name: String = label
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '_'
            }
        })
        .take(120)
        .collect();
    match name.trim_start_matches('.') {
        "" => "child".to_owned(),
        visible => visible.to_owned(),
    }
}

/// 128 random bits in hex. Without a random source the time and the process id still make it unlike any other.
fn random_tag() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&telemetry::now_ms().to_le_bytes());
        bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

impl SupervisorSettings {
    /// The current log file of a child with this label.
    pub fn log_path(&self, label: &str) -> PathBuf {
        self.log_dir.join(format!("{}.log", file_name(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_harmless_file_names() {
        for (label, name) in [
            ("qwen3:8b", "qwen3_8b"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("..", "child"),
            ("", "child"),
            ("a\0b\n", "a_b_"),
            ("grün/7b-Q4_K.gguf", "gr_n_7b-Q4_K.gguf"),
        ] {
            assert_eq!(file_name(label), name, "{label:?}");
        }
        assert_eq!(file_name(&"x".repeat(500)).len(), 120);
    }

    #[test]
    fn tags_differ() {
        assert_ne!(random_tag(), random_tag());
        assert_eq!(random_tag().len(), 32);
    }
}
