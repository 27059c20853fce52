use std::time::Duration;

use thiserror::Error;

/// What went wrong, in the product's words. Each dialect maps kinds to its status and body in one `match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong. 400.
    InvalidRequest,
    /// A credential is missing or wrong. 401.
    Unauthenticated,
    /// Known caller, not allowed; or a web page of another origin (promise S3). 403.
    Forbidden,
    /// No such model. 404. `details.model` holds the name as asked.
    ModelNotFound,
    /// No such route or object. 404.
    NotFound,
    /// Known path, other method. 405.
    MethodNotAllowed,
    /// The current state forbids it. 409.
    Conflict,
    /// Body too large. 413.
    TooLarge,
    /// The prompt does not fit the context. 400.
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: u64,
        /// Tokens of the context.
        context: u64,
    },
    /// The model lacks a capability that the request needs. 400.
    NotCapable,
    /// The caller exceeded a limit. 429.
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// The server is full. 503.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The model exists but is not loaded, and loading on demand is off. 400.
    NotLoaded,
    /// The engine could not start, died, or answered nonsense. 500.
    EngineFailed,
    /// The engine did not answer in time. 504.
    UpstreamTimeout,
    /// Not offered here. 501.
    Unsupported,
    /// The caller went away or the load was cancelled. 499 in logs.
    Cancelled,
    /// The server is shutting down. 503.
    ShuttingDown,
    /// A fault of ours. 500.
    Internal,
    /// The engine answered with this status; the message is the engine's own.
    Engine {
        /// The engine's HTTP status.
        status: u16,
    },
}

/// The one error of the boundary: library errors become this, dialects render it.
///
/// `message` is for the caller: no file system path, no user name, no upstream address (promise H10).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct RunnerError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Sentence for the caller: what, why, what to do next.
    pub message: String,
    /// The field or parameter at fault, when there is one.
    pub param: Option<String>,
    /// Machine-readable word of a dialect or of the engine, when it must survive translation.
    pub code: Option<String>,
    /// The model name as the caller wrote it, when the error is about a model.
    pub model: Option<String>,
}

impl RunnerError {
    /// A new error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            code: None,
            model: None,
        }
    }

    /// [`ErrorKind::InvalidRequest`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::ModelNotFound`] for a name as the caller wrote it.
    pub fn model_not_found(model: &str) -> Self {
        let mut error = Self::new(ErrorKind::ModelNotFound, format!("The model '{model}' was not found."));
        error.model = Some(model.to_owned());
        error.param = Some("model".into());
        error
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Sets the machine-readable word.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Seconds for `Retry-After`, rounded up, where the kind has one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match &self.kind {
            ErrorKind::RateLimited { retry_after } | ErrorKind::Overloaded { retry_after } => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
            }
            ErrorKind::ShuttingDown => Some(5),
            _ => None,
        }
    }
}
