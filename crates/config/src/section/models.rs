use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use domain::{EngineKind, EngineMode, KeepAlive, LaunchOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{Auto, KeepAliveSchema};

/// Where models are found, and settings of single models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Models {
    /// Folders with GGUF files; sub-folders are searched too. `~/` stands for the home folder.
    pub dirs: Vec<PathBuf>,
    /// Also list models that other programs (Ollama, LM Studio, the Hugging Face cache) keep on this machine.
    pub scan_other_stores: bool,
    /// Folder of Ollama's own store; its models are served in place, and nothing is ever written there. Null: the usual
    /// places, if `scan_other_stores` is on.
    pub ollama_store: Option<PathBuf>,
    /// Notice new and removed files while running.
    pub watch: bool,
    /// Offer the small built-in demonstration model.
    pub demo: bool,
    /// Settings of single models, by model key.
    pub entries: BTreeMap<String, ModelConfig>,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            scan_other_stores: false,
            ollama_store: None,
            watch: true,
            demo: true,
            entries: BTreeMap::new(),
        }
    }
}

/// Settings of one model. Anything left out or "auto" is taken from `defaults`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelConfig {
    /// The GGUF file. Needed only for a model outside the folders of `models.dirs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Projector file for image or audio input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mmproj: Option<PathBuf>,
    /// Which engine runs it: `llama-server` (default) or `faster-whisper`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<EngineKindSchema>")]
    pub engine: Option<EngineKind>,
    /// What the engine is started for: `completion`, `embedding` or `rerank`. Left out: what the file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<EngineModeSchema>")]
    pub mode: Option<EngineMode>,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// One line of description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Context per request, in tokens.
    pub context: Auto<u32>,
    /// Requests served at once.
    pub parallel: Auto<u32>,
    /// Layers offloaded to the GPU; 0: CPU only.
    pub gpu_layers: Auto<u32>,
    /// Batch size, in tokens.
    pub batch: Auto<u32>,
    /// CPU threads.
    pub threads: Auto<u32>,
    /// Index of the GPU that holds the model when it is not split.
    pub main_gpu: Auto<u32>,
    /// Map the file into memory instead of reading it.
    pub mmap: Auto<bool>,
    /// Type of the KV cache, for example `f16`, `q8_0`, `q4_0`.
    pub kv_cache_type: Auto<String>,
    /// Flash attention: `on`, `off`.
    pub flash_attention: Auto<String>,
    /// Roll the context instead of stopping when it is full.
    pub context_shift: Auto<bool>,
    /// How long the model stays loaded without requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<KeepAliveSchema>")]
    pub keep_alive: Option<KeepAlive>,
    /// Never unload it to make room or because it is idle.
    pub pinned: bool,
    /// Leave it out of lists; it still answers to its name.
    pub unlisted: bool,
    /// The group it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Further engine arguments. Those that LlamaRunner sets itself are refused.
    pub extra_args: Vec<String>,
    /// Further environment variables for the engine.
    pub env: BTreeMap<String, String>,
    /// Further names of this model.
    pub aliases: Vec<String>,
}

impl ModelConfig {
    /// The launch options this entry asks for.
    pub fn launch(&self) -> LaunchOptions {
        LaunchOptions {
            mode: self.mode,
            context: self.context.value(),
            parallel: self.parallel.value(),
            gpu_layers: self.gpu_layers.value(),
            batch: self.batch.value(),
            threads: self.threads.value(),
            main_gpu: self.main_gpu.value(),
            mmap: self.mmap.value(),
            kv_cache_type: self.kv_cache_type.clone().value(),
            flash_attention: self.flash_attention.clone().value(),
            context_shift: self.context_shift.value(),
            extra_args: self.extra_args.clone(),
            env: self.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..LaunchOptions::default()
        }
    }
}

/// A group of models with common rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Group {
    /// Only one member is loaded at a time.
    pub swap: bool,
    /// Loading a member unloads the models of all other groups.
    pub exclusive: bool,
    /// Members are not unloaded by other groups.
    pub persistent: bool,
    /// Model keys.
    pub members: Vec<String>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            swap: true,
            exclusive: false,
            persistent: false,
            members: Vec::new(),
        }
    }
}

/// What a model is started with unless its own entry or the request says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Defaults {
    /// Context per request, in tokens. "auto": what fits, up to what the model was trained for.
    pub context: Auto<u32>,
    /// Requests one model serves at once.
    pub parallel: Auto<u32>,
    /// Layers offloaded to the GPU; 0: CPU only. "auto": as many as fit.
    pub gpu_layers: Auto<u32>,
    /// Batch size, in tokens.
    pub batch: Auto<u32>,
    /// CPU threads per engine.
    pub threads: Auto<u32>,
    /// Map model files into memory instead of reading them.
    pub mmap: Auto<bool>,
    /// Type of the KV cache, for example `f16`, `q8_0`, `q4_0`.
    pub kv_cache_type: Auto<String>,
    /// Flash attention: `on`, `off`.
    pub flash_attention: Auto<String>,
    /// How long a model stays loaded without requests: seconds or a duration such as "5m"; negative: forever.
    #[schemars(with = "KeepAliveSchema")]
    pub keep_alive: KeepAlive,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            context: Auto::Auto,
            parallel: Auto::Auto,
            gpu_layers: Auto::Auto,
            batch: Auto::Auto,
            threads: Auto::Auto,
            mmap: Auto::Auto,
            kv_cache_type: Auto::Auto,
            flash_attention: Auto::Auto,
            keep_alive: KeepAlive::For(Duration::from_mins(5)),
        }
    }
}

impl Defaults {
    /// The launch options every model starts from.
    pub fn launch(&self) -> LaunchOptions {
        LaunchOptions {
            context: self.context.value(),
            parallel: self.parallel.value(),
            gpu_layers: self.gpu_layers.value(),
            batch: self.batch.value(),
            threads: self.threads.value(),
            mmap: self.mmap.value(),
            kv_cache_type: self.kv_cache_type.clone().value(),
            flash_attention: self.flash_attention.clone().value(),
            ..LaunchOptions::default()
        }
    }
}

/// Schema of [`EngineKind`], which lives in a crate without schemas.
#[derive(JsonSchema)]
#[schemars(rename = "EngineKind", rename_all = "kebab-case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum EngineKindSchema {
    LlamaServer,
    FasterWhisper,
    Speech,
    Custom,
}

/// Schema of [`EngineMode`].
#[derive(JsonSchema)]
#[schemars(rename = "EngineMode", rename_all = "snake_case", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum EngineModeSchema {
    Completion,
    Embedding,
    Rerank,
    Transcription,
    Speech,
}
