use std::time::Duration;

use domain::{KeepAlive, LaunchOptions, ModelKey};

/// The router's part of the configuration (`scheduler.*`, `supervisor.*`, `defaults.*`,
/// `lmstudio.auto_evict`), already merged from flags,
/// environment and file. Applied at start and again on every reload with [`crate::Router::apply`].
#[derive(Debug, Clone, PartialEq)]
pub struct RouterSettings {
    /// Engines loaded, starting or stopping at once; `None`: 3 (Ollama contract 9).
    pub max_loaded_models: Option<usize>,
    /// Requests waiting for any model before new ones are refused with 503.
    pub max_queue: usize,
    /// Longest time a request waits for a slot or a load that makes no headway on its turn.
    pub max_wait: Duration,
    /// False: a request for a model that is not loaded is refused instead of loading it.
    pub autoload: bool,
    /// How long an idle model stays when no request said otherwise.
    pub keep_alive: KeepAlive,
    /// Launch options below those of the request and of the model's entry.
    pub launch: LaunchOptions,
    /// A just-in-time load of the LM Studio port makes every other just-in-time model leave first (`lmstudio.auto_evict`).
    pub jit_auto_evict: bool,
    /// Without `jit_auto_evict`: a just-in-time load that would not fit into memory makes idle just-in-time models leave
    /// (`lmstudio.evict_to_fit`).
    pub jit_evict_to_fit: bool,
    /// A load without output and without memory growth for this long is given up (promise R8).
    pub stall_timeout: Duration,
    /// Running requests without a byte for this long lead to a probe, and a silent engine is replaced (promise R9).
    pub watchdog: Duration,
    /// Time between a polite stop and SIGKILL (promise R2).
    pub stop_grace: Duration,
    /// Memory to leave to other programs, in bytes, when "auto" values are resolved.
    pub memory_reserve: u64,
    /// Models to load at start.
    pub preload: Vec<ModelKey>,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            max_loaded_models: None,
            max_queue: 512,
            max_wait: Duration::from_mins(5),
            autoload: true,
            keep_alive: KeepAlive::For(Duration::from_mins(5)),
            launch: LaunchOptions::default(),
            jit_auto_evict: true,
            jit_evict_to_fit: false,
            stall_timeout: Duration::from_mins(2),
            watchdog: Duration::from_mins(3),
            stop_grace: Duration::from_secs(10),
            memory_reserve: 0,
            preload: Vec::new(),
        }
    }
}
