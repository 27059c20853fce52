use serde::{Deserialize, Serialize};

use crate::{EngineKind, InstanceId, KeepAlive, LoadedLaunch, ModelKey, RequestId};

/// Where a model stands. The words of each dialect for these states are in the management contract 7.1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelState {
    /// Not loaded.
    #[default]
    Unloaded,
    /// A request waits for room or for its turn.
    Queued,
    /// The engine is starting.
    Loading {
        /// 0 to 1, from the engine.
        progress: f32,
    },
    /// Answering.
    Ready,
    /// No new requests; running ones finish, then it stops.
    Draining,
    /// The last start or run failed; the next request may try again.
    Failed(FailureReport),
}

/// Why a model is in the failed state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// One sentence: what happened and why.
    pub reason: String,
    /// What the caller's error carries as its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    /// Last lines of the engine log.
    pub log: Vec<String>,
    /// Exit code, if the process exited by itself.
    pub exit_code: Option<i32>,
    /// Signal, if the process was killed.
    pub signal: Option<i32>,
    /// False when the same start would fail again (missing file, bad flag): not retried by itself (promise R5).
    pub retryable: bool,
}

/// A failure that callers are told by a word of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The engine has to be installed first (audio contract 6).
    EngineNotInstalled,
}

impl FailureCode {
    /// The wire word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EngineNotInstalled => "engine_not_installed",
        }
    }
}

/// A running (or starting) instance, as every list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// The model it runs.
    pub model: ModelKey,
    /// Engine kind.
    pub engine: EngineKind,
    /// State of this instance.
    #[serde(flatten)]
    pub state: ModelState,
    /// Loopback port, once known.
    pub port: Option<u16>,
    /// Process id.
    pub pid: Option<u32>,
    /// Unix milliseconds when it became ready.
    pub ready_at_ms: Option<i64>,
    /// Unix milliseconds of the last request's end (or start, while one runs).
    pub last_used_ms: Option<i64>,
    /// Unix milliseconds when it will be unloaded if nothing comes; `None`: busy, forever, or not ready.
    pub expires_at_ms: Option<i64>,
    /// Current keep-alive.
    pub keep_alive: KeepAlive,
    /// Loaded by a request (LM Studio "JIT"), not by an explicit load.
    pub jit: bool,
    /// Requests running now.
    pub active: u32,
    /// Requests waiting for this model now.
    pub queued: u32,
    /// Launch values in effect.
    pub launch: LoadedLaunch,
    /// Resident memory of the process in bytes, when known.
    pub memory_bytes: Option<u64>,
    /// GPU memory in bytes, when known.
    pub vram_bytes: Option<u64>,
    /// Milliseconds from spawn to ready.
    pub load_ms: Option<u64>,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestPhase {
    /// Waiting for a slot or for room in memory.
    Queued,
    /// Waiting for the model to load.
    Loading,
    /// Sent to the engine.
    Running,
}

/// A request in flight, for the window and `/v1/state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRequest {
    /// Its id, also in the `x-request-id` header.
    pub id: RequestId,
    /// The model asked for.
    pub model: ModelKey,
    /// Dialect and operation, for example `ollama chat`.
    pub operation: String,
    /// User agent or address of the caller.
    pub client: String,
    /// Where it stands.
    pub phase: RequestPhase,
    /// Unix milliseconds of arrival.
    pub started_ms: i64,
}
