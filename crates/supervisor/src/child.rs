use crate::ExitReport;

/// A remote control for one child process; cloning gives another one.
#[derive(Debug, Clone)]
pub struct Child {}

impl Child {
    /// Process id.
    pub fn pid(&self) -> u32 {
        0
    }
    /// The report.
    pub fn exit(&self) -> Option<ExitReport> {
        None
    }
    /// Waits.
    pub async fn wait(&self) -> ExitReport {
        std::future::pending().await
    }
    /// Stops.
    pub async fn stop(&self) -> ExitReport {
        std::future::pending().await
    }
    /// Kills.
    pub async fn kill(&self) -> ExitReport {
        std::future::pending().await
    }
    /// Memory.
    pub fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
