//! One engine process under the real supervisor.

use std::path::Path;
use std::time::Duration;

use domain::ModelEntry;
use engines::{Launch, StartSignal, StartWatch, log_line};
use supervisor::{Child, ChildSpec, OutputLine, Supervisor, SupervisorSettings};
use telemetry::LogRing;
use testkit::models_dir;
use tokio::sync::mpsc;

/// Generous: the machine may be busy compiling.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A fixture model with these capabilities.
pub(crate) fn entry(file: &str, capabilities: &[&str]) -> ModelEntry {
    serde_json::from_value(serde_json::json!({
        "key": file.trim_end_matches(".gguf"), "slug": "m", "engine": "llama-server", "source": "folder",
        "path": models_dir().join(file), "parts": [], "mmproj": null, "size": 1, "modified": 0, "publisher": "",
        "indexed_path": "", "display_name": "m", "description": null, "digest": "", "aliases": [],
        "capabilities": capabilities, "facts": {"context_length": 4096, "kv_bytes_per_token": 1024}, "launch": {},
        "keep_alive": null, "pinned": false, "unlisted": false
    }))
    .unwrap()
}

/// Children end with the test: the stdin pipe closes and the parent-death signal fires with the spawner thread.
pub(crate) fn supervisor(dir: &Path) -> Supervisor {
    let settings = SupervisorSettings {
        state_dir: dir.join("state"),
        log_dir: dir.join("log"),
        max_file_bytes: 1 << 20,
        max_files: 2,
    };
    Supervisor::start(settings).unwrap().with_line_decoder(log_line)
}

pub(crate) struct Running {
    pub(crate) child: Child,
    lines: mpsc::Receiver<OutputLine>,
    pub(crate) log: LogRing,
}

impl Running {
    pub(crate) async fn start(supervisor: &Supervisor, launch: Launch) -> Self {
        let log = LogRing::new(200, 1 << 20);
        let spec = ChildSpec {
            label: "engine".into(),
            program: launch.program,
            args: launch.args,
            env: launch.env,
            cwd: None,
            stop: launch.stop,
            log: log.clone(),
        };
        let (child, lines) = supervisor.spawn(spec).await.unwrap();
        Self { child, lines, log }
    }

    /// Signals up to Ready, or to the end of the output.
    pub(crate) async fn start_signals(&mut self) -> Vec<StartSignal> {
        let mut watch = StartWatch::new();
        let mut signals = Vec::new();
        while let Some(line) = tokio::time::timeout(LIMIT, self.lines.recv())
            .await
            .expect("the engine went silent")
        {
            let Some(signal) = watch.on_line(&line) else { continue };
            signals.push(signal);
            if matches!(signal, StartSignal::Ready(_)) {
                break;
            }
        }
        signals
    }
}
