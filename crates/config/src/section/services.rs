use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::Secret;

/// Speech to text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Audio {
    /// Folder of speech models. Null: in the data folder.
    pub models_dir: Option<PathBuf>,
    /// Speech-to-text model for requests that name none, or one of OpenAI's (`whisper-1`). Null: the largest that knows all languages.
    pub default_model: Option<String>,
    /// Text-to-speech model for requests that name none, or one of OpenAI's (`tts-1`). Null: the first one there is.
    pub default_speech_model: Option<String>,
    /// Download a known speech model when a request names it. Off: the request is answered with how to get it.
    pub auto_download: bool,
    /// Requests that may wait for one speech model; more are answered with "queue full".
    pub max_queue: u32,
    /// Largest recording, in MB.
    pub max_upload_mb: u32,
    /// Longest recording, in seconds; 0: any.
    pub max_duration_s: u32,
}

impl Default for Audio {
    fn default() -> Self {
        Self {
            models_dir: None,
            default_model: None,
            default_speech_model: None,
            auto_download: false,
            max_queue: 64,
            max_upload_mb: 100,
            max_duration_s: 0,
        }
    }
}

/// Where LM Studio's libraries look for a server (LM Studio contract 1.1).
const SDK_PORTS: [u16; 5] = [41343, 52993, 16141, 39414, 22931];

/// Behaviour of the LM Studio port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LmStudio {
    /// Load a model when a request names it (just in time). Off: only loaded models are listed and answer.
    pub jit: bool,
    /// Before loading a model just in time, unload the other models that were loaded so.
    pub auto_evict: bool,
    /// With `auto_evict` off: before loading a model just in time that would not fit into memory, unload idle models that
    /// were loaded so, least recently used first.
    pub evict_to_fit: bool,
    /// Seconds without requests after which a model loaded just in time is unloaded.
    pub default_ttl: u64,
    /// Ask for an API key on this port.
    pub require_auth: bool,
    /// Listen where LM Studio's libraries look for a server when they are given no address, on this machine only.
    pub sdk_discovery: bool,
    /// The ports where they look; the first free one is taken. Nothing is listened on when the LM Studio port is 0 and
    /// these are the default ones.
    pub sdk_discovery_ports: Vec<u16>,
    /// Status for unknown routes: 404, or 200 as LM Studio does.
    pub unknown_route_status: u16,
    /// Let web pages of every origin use this port.
    pub cors: bool,
    /// What answers a model name that is not known while exactly one model is loaded: that model, or an error.
    pub unknown_model: UnknownModel,
    /// Report wrong parameters as a plain text in `error`, as LM Studio does.
    pub legacy_error_strings: bool,
    /// Version of LM Studio that this port says it is compatible with.
    pub reported_version: String,
    /// Loading a model a second time over `/api/v1/models/load` starts a second instance, as LM Studio does. Off: an
    /// instance with the same settings is the answer.
    pub api_load_duplicates: bool,
    /// Where chat completions on this port put reasoning: in `reasoning_content`, in `reasoning`, or `inline` in the text
    /// between `<think>` and `</think>`. "auto": `reasoning` for gpt-oss, else `reasoning_content`.
    pub reasoning_field: ReasoningField,
    /// Tell LM Studio's command line where this server is, by files in LM Studio's own folder (`~/.lmstudio/.internal`).
    pub write_discovery_files: bool,
}

impl LmStudio {
    /// The ports to try for the libraries' discovery; empty: none.
    pub fn discovery_ports(&self, lmstudio: &super::Proxy) -> &[u16] {
        let by_default = self.sdk_discovery_ports == SDK_PORTS;
        // Whoever takes any free port for the LM Studio surface wants no well-known one beside it.
        if self.sdk_discovery && lmstudio.enabled && !(by_default && lmstudio.port == 0) {
            &self.sdk_discovery_ports
        } else {
            &[]
        }
    }
}

/// Where chat completions of the LM Studio port put reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ReasoningField {
    /// As LM Studio does: by the model.
    Auto,
    /// `reasoning_content`.
    ReasoningContent,
    /// `reasoning`.
    Reasoning,
    /// In the text.
    Inline,
}

impl Default for LmStudio {
    fn default() -> Self {
        Self {
            jit: true,
            auto_evict: true,
            evict_to_fit: false,
            default_ttl: 3600,
            require_auth: false,
            sdk_discovery: true,
            sdk_discovery_ports: SDK_PORTS.to_vec(),
            unknown_route_status: 404,
            cors: false,
            unknown_model: UnknownModel::UseSingleLoaded,
            legacy_error_strings: false,
            reported_version: "0.4.16".into(),
            api_load_duplicates: false,
            reasoning_field: ReasoningField::Auto,
            write_discovery_files: false,
        }
    }
}

/// What answers an unknown model name on the LM Studio port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum UnknownModel {
    /// The only loaded model.
    UseSingleLoaded,
    /// An error.
    Error,
}

/// API keys. A key may be written as text, as `{"env":"NAME"}` or as `{"file":"path"}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Auth {
    /// Ask for a key on inference routes.
    pub require_inference_auth: bool,
    /// Keys that may use models.
    pub inference_keys: Vec<Secret>,
    /// Ask for a key on management routes.
    pub require_management_auth: bool,
    /// Keys that may do everything.
    pub management_keys: Vec<Secret>,
}

/// Model downloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Downloads {
    /// Folder for downloaded models. Null: in the data folder.
    pub dir: Option<PathBuf>,
    /// Files downloaded at once.
    pub max_parallel: u32,
    /// Bytes per second for all downloads together. Null: no limit.
    pub bandwidth_limit: Option<u64>,
    /// Address of the Hugging Face hub or a mirror.
    pub huggingface_base_url: String,
    /// Address of the Ollama registry or a mirror.
    pub ollama_registry_base_url: String,
    /// Allow downloads from addresses in private networks and on this machine. The two addresses above are always allowed.
    pub allow_private_hosts: bool,
    /// Go on with interrupted downloads when the program starts. Off: they come back paused.
    pub resume_on_start: bool,
}

impl Default for Downloads {
    fn default() -> Self {
        Self {
            dir: None,
            max_parallel: 3,
            bandwidth_limit: None,
            huggingface_base_url: "https://huggingface.co".into(),
            ollama_registry_base_url: "https://registry.ollama.ai".into(),
            allow_private_hosts: false,
            resume_on_start: true,
        }
    }
}

/// The list of models offered for download.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Catalog {
    /// Where the list comes from. Null: the built-in list.
    pub url: Option<String>,
}

/// Calls to other programs when something happens.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Webhooks {
    /// Allow targets in private networks and on this machine.
    pub allow_private_targets: bool,
}

/// Another LlamaRunner server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Node {
    /// Its management address, for example `http://192.168.1.5:5800`.
    pub address: String,
    /// Its management key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
}
