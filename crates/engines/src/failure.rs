use domain::FailureReport;
use supervisor::ExitReport;

/// When the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePhase {
    /// Before it was ready.
    Starting,
    /// After.
    Running,
}

/// Classifies the end of an engine process.
pub fn failure(exit: &ExitReport, _phase: FailurePhase) -> FailureReport {
    FailureReport {
        reason: String::new(),
        log: exit.last_lines.clone(),
        exit_code: exit.code,
        signal: exit.signal,
        retryable: true,
    }
}
