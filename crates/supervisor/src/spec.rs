use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use telemetry::LogRing;

/// Environment variable that carries a child's random tag; the next life of the app recognises leftovers by it (R3).
pub const INSTANCE_TAG_VARIABLE: &str = "LLAMARUNNER_INSTANCE_TAG";

/// What to run. An argument vector, never a shell line (promise S9).
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// Name in logs, in the log file's name and in the state file.
    pub label: String,
    /// The program. With a separator it is used as it is; without, it is looked up in the *app's* PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its complete environment: nothing is inherited (promise S10). Only [`INSTANCE_TAG_VARIABLE`] is added.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory; the app's own when absent.
    pub cwd: Option<PathBuf>,
    /// How it is stopped.
    pub stop: StopPlan,
    /// Where its output lines are kept.
    pub log: LogRing,
}

/// The steps of [`crate::Child::stop`]: message → SIGTERM → `grace` → SIGTERM → `second_term_grace` → SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPlan {
    /// Written to stdin first. SIGTERM follows 1 s later if the process is still there: llama-server handles the
    /// message outside signal context, which never hangs, and does not read it while loading.
    pub stdin_message: Option<Vec<u8>>,
    /// From the first request to stop until the second SIGTERM.
    pub grace: Duration,
    /// From the second SIGTERM until SIGKILL.
    pub second_term_grace: Duration,
}

impl Default for StopPlan {
    fn default() -> Self {
        Self {
            stdin_message: None,
            grace: Duration::from_secs(10),
            second_term_grace: Duration::from_secs(2),
        }
    }
}

/// Which pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line a child wrote, cleaned and cut to 16 KiB (promise O3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// From which pipe.
    pub stream: OutputStream,
    /// The text without line end.
    pub text: String,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExitReport {
    /// Exit code, when it exited by itself.
    pub code: Option<i32>,
    /// Signal, when it was killed.
    pub signal: Option<i32>,
    /// We asked for it (stop or kill). SIGKILL without this was probably the kernel's out-of-memory killer.
    pub requested: bool,
    /// The last lines it wrote, at most 50, as the log shows them.
    pub last_lines: Vec<String>,
}
