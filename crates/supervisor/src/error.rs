use std::path::PathBuf;

/// Why the supervisor could not start, or a child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Outside a tokio runtime.
    #[error("the supervisor needs a running tokio runtime")]
    NoRuntime,
    /// A folder or file of ours cannot be made.
    #[error("cannot write {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the thread that starts children: {0}")]
    Thread(std::io::Error),
    /// The program does not exist, is not executable, or an argument is not representable.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// [`crate::Supervisor::shutdown`] was called.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
}

impl SupervisorError {
    /// False when the same start would fail again (promise R5: not retried).
    pub fn is_retryable(&self) -> bool {
        match self {
            // EAGAIN and ENOMEM: the machine was full for a moment.
            Self::Spawn { source, .. } => {
                matches!(
                    source.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory
                )
            }
            Self::NoRuntime | Self::Folder { .. } | Self::Thread(_) | Self::ShuttingDown => false,
        }
    }
}
