use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use domain::KeepAlive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{Auto, KeepAliveSchema};

/// How many models are loaded, and how long requests wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Scheduler {
    /// Models loaded at once. "auto": as many as fit into memory.
    pub max_loaded_models: Auto<u32>,
    /// Requests that may wait; more are answered with "server busy".
    pub max_queue: u32,
    /// How long a request may wait for its model: seconds or a duration such as "10m"; negative: forever.
    #[schemars(with = "KeepAliveSchema")]
    pub max_wait: KeepAlive,
    /// Memory kept free for other programs, in MB.
    pub memory_reserve_mb: u32,
    /// Load a model when a request names it.
    pub autoload: bool,
    /// Models loaded at start, by key or name.
    pub preload: Vec<String>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            max_loaded_models: Auto::Auto,
            max_queue: 512,
            max_wait: KeepAlive::For(Duration::from_mins(10)),
            memory_reserve_mb: 512,
            autoload: true,
            preload: Vec::new(),
        }
    }
}

/// When an engine counts as stuck, and how it is stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Supervisor {
    /// Seconds without progress after which a load is given up; 0: never.
    pub stall_timeout_seconds: u64,
    /// Seconds without any sign of life after which a working engine is restarted; 0: never.
    pub watchdog_seconds: u64,
    /// Seconds an engine has to end by itself before it is killed.
    pub stop_grace_seconds: u64,
    /// Seconds running answers have to finish when the program or a model is told to stop.
    pub drain_timeout_seconds: u64,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            stall_timeout_seconds: 120,
            watchdog_seconds: 180,
            stop_grace_seconds: 10,
            drain_timeout_seconds: 30,
        }
    }
}

/// Sizes the server accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Largest request body other than a file upload, in MB. Images are large.
    pub json_body_mb: u32,
    /// Connections one listener keeps open at once.
    pub max_connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json_body_mb: 64,
            max_connections: 16_384,
        }
    }
}

/// The programs that run models.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Engines {
    /// llama.cpp's server, for GGUF models.
    pub llama_server: LlamaServer,
    /// Speech to text.
    pub faster_whisper: FasterWhisper,
    /// Further engines that speak the OpenAI API, by name.
    pub custom: BTreeMap<String, CustomEngine>,
}

/// llama.cpp's server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LlamaServer {
    /// The program. Null: look in PATH, then at built or downloaded engines.
    pub path: Option<PathBuf>,
    /// Which releases to follow: `stable` or `latest`.
    pub channel: String,
    /// A fixed release, for example `b11549`. Null: the newest of the channel.
    pub version: Option<String>,
    /// Arguments for every model. Those that LlamaRunner sets itself are refused.
    pub args: Vec<String>,
    /// Environment variables for every model.
    pub env: BTreeMap<String, String>,
    /// Where releases are downloaded from. Null: the built-in address.
    pub release_base_url: Option<String>,
}

impl Default for LlamaServer {
    fn default() -> Self {
        Self {
            path: None,
            channel: "stable".into(),
            version: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            release_base_url: None,
        }
    }
}

/// Speech to text with faster-whisper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FasterWhisper {
    /// Python interpreter that has faster-whisper. Null: our own environment.
    pub python: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda`.
    pub device: String,
    /// Number type, for example `auto`, `int8`, `float16`.
    pub compute_type: String,
    /// Make our own environment when speech is asked for and there is none. Off: the request is answered with how to.
    pub auto_install: bool,
    /// Arguments for the speech program of every speech model. Those that LlamaRunner sets itself are refused.
    pub args: Vec<String>,
}

impl Default for FasterWhisper {
    fn default() -> Self {
        Self {
            python: None,
            device: "auto".into(),
            compute_type: "auto".into(),
            auto_install: true,
            args: Vec::new(),
        }
    }
}

/// A further engine that speaks the OpenAI API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CustomEngine {
    /// Program and arguments. `{model}` becomes the model's path and `{port}` the port to answer on, on 127.0.0.1.
    pub command: Vec<String>,
    /// Names of its text-to-speech models, as it knows them. Each is a model of the library, and requests of
    /// `/v1/audio/speech` for it are passed on as they are.
    pub speaks: Vec<String>,
    /// Names of its speech-to-text models, likewise for `/v1/audio/transcriptions` and `/v1/audio/translations`.
    pub hears: Vec<String>,
    /// Path that answers 200 when the engine is ready.
    pub health_path: String,
    /// Environment variables; `{model}` and `{port}` are replaced here too. `LR_API_KEY` is added: requests carry this key.
    pub env: BTreeMap<String, String>,
}

impl Default for CustomEngine {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            speaks: Vec::new(),
            hears: Vec::new(),
            health_path: "/health".into(),
            env: BTreeMap::new(),
        }
    }
}
