use std::sync::Arc;
use std::time::Duration;

use domain::{FailureReport, InstanceId, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry, ModelKey, RunnerError};

/// One waiting caller; chosen by the router, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TicketId(pub u64);

/// The right to one slot of one instance; chosen by the scheduler, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A request for a slot.
#[derive(Debug, Clone)]
pub struct Acquire {
    /// Who asks.
    pub ticket: TicketId,
    /// The model; its own launch options, keep-alive and pin are read from here.
    pub model: Arc<ModelEntry>,
    /// Launch wishes of the request alone.
    pub wish: LaunchOptions,
    /// Keep-alive of the request. With `jit` it counts only when this request triggers the load.
    pub keep_alive: Option<KeepAlive>,
    /// An LM Studio just-in-time request.
    pub jit: bool,
}

/// A load without a request: takes no slot, is not cancelled when the caller leaves, and forgets earlier failures.
#[derive(Debug, Clone)]
pub struct Load {
    /// Who asks.
    pub ticket: TicketId,
    /// The model.
    pub model: Arc<ModelEntry>,
    /// Launch wishes.
    pub wish: LaunchOptions,
    /// Keep-alive. With `jit` it counts only when this load starts the engine.
    pub keep_alive: Option<KeepAlive>,
    /// An LM Studio just-in-time load: makes other just-in-time models leave, may be made to leave by them, and is not
    /// repeated after a crash. Else the load is explicit: it stays.
    pub jit: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody wants a slot.
    Acquire(Acquire),
    /// Somebody wants a model loaded.
    Load(Load),
    /// A waiting caller left.
    CancelTicket(TicketId),
    /// A granted slot is free again.
    Release(LeaseId),
    /// The engine reports load progress, 0 to 1.
    Progress {
        /// Which.
        instance: InstanceId,
        /// How far.
        progress: f32,
    },
    /// The engine answers.
    Ready {
        /// Which.
        instance: InstanceId,
        /// Launch values in effect.
        launch: LoadedLaunch,
    },
    /// The start failed; the process, if there was one, has been reaped.
    StartFailed {
        /// Which.
        instance: InstanceId,
        /// Why.
        report: FailureReport,
    },
    /// The process ended, asked or not, and has been reaped.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How.
        report: FailureReport,
    },
    /// Somebody wants a model unloaded.
    Unload {
        /// Which model.
        key: ModelKey,
        /// Do not wait for running requests.
        force: bool,
    },
    /// Time passed.
    Tick,
    /// New limits; running models are left alone.
    SetLimits(Limits),
    /// Refuse new work; busy engines may finish unless `now`.
    Shutdown {
        /// Do not wait for running requests.
        now: bool,
    },
}

/// What the router must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a process.
    Start {
        /// Its new id.
        instance: InstanceId,
        /// The model.
        model: Arc<ModelEntry>,
        /// All layers merged; absent fields are "auto".
        options: LaunchOptions,
    },
    /// Stop a process; `Exited` must follow, also when it was still loading.
    Stop {
        /// Which.
        instance: InstanceId,
        /// Kill it instead of asking.
        force: bool,
    },
    /// A caller got a slot.
    Grant {
        /// Who.
        ticket: TicketId,
        /// What to give back.
        lease: LeaseId,
        /// Where.
        instance: InstanceId,
    },
    /// An explicit load is done.
    Loaded {
        /// Who.
        ticket: TicketId,
        /// Where.
        instance: InstanceId,
    },
    /// A caller gets an error.
    Reject {
        /// Who.
        ticket: TicketId,
        /// Why.
        error: RunnerError,
    },
    /// Send [`Event::Tick`] at this time, or earlier.
    WakeAt(Duration),
    /// The model's visible state changed.
    Publish(ModelKey),
    /// A start failed or an engine died unasked.
    Failed {
        /// The model.
        key: ModelKey,
        /// Why.
        report: FailureReport,
    },
}

/// The numbers and defaults the rules work with.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Processes that may exist at once; `None`: 3.
    pub max_loaded: Option<usize>,
    /// Callers waiting in total.
    pub max_queue: usize,
    /// Callers waiting for one model.
    pub max_queue_per_model: usize,
    /// Longest wait of a caller, the time its model spends loading not counted (promise R8).
    pub max_wait: Duration,
    /// Age of a waiting caller at which a busy model is closed for it; also the time a model may serve undisturbed
    /// after it became ready.
    pub patience: Duration,
    /// False: only explicit loads start a model.
    pub autoload: bool,
    /// Keep-alive when neither request nor model says one.
    pub keep_alive: KeepAlive,
    /// Launch options below those of request and model.
    pub launch: LaunchOptions,
    /// A just-in-time load unloads every other just-in-time model first (LM Studio contract 3).
    pub jit_auto_evict: bool,
}

impl Limits {
    /// Processes that may exist at once.
    pub fn places(&self) -> usize {
        self.max_loaded.unwrap_or(3).max(1)
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience.min(self.max_wait)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_loaded: None,
            max_queue: 512,
            max_queue_per_model: 512,
            max_wait: Duration::from_mins(5),
            patience: Duration::from_secs(3),
            autoload: true,
            keep_alive: KeepAlive::For(Duration::from_mins(5)),
            launch: LaunchOptions::default(),
            jit_auto_evict: false,
        }
    }
}
