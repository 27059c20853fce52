use serde::{Deserialize, Serialize};

/// What an engine process is started for. llama-server answers 501 or 500 to the other kinds of work
/// (engine guide 2.1), so the mode belongs to the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EngineMode {
    /// Text generation.
    #[default]
    Completion,
    /// Embedding vectors.
    Embedding,
    /// Document scores for a query.
    Rerank,
    /// Speech to text.
    Transcription,
    /// Text to speech.
    Speech,
}

impl EngineMode {
    /// Sound goes in or comes out, in an engine that knows nothing else.
    pub fn is_speech(self) -> bool {
        matches!(self, Self::Transcription | Self::Speech)
    }
}

/// Launch-time wishes of a request, a config entry or the defaults. `None` means "whatever is loaded, else auto".
///
/// Layers are merged with [`LaunchOptions::or`]: request over entry over defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LaunchOptions {
    /// What the process is for.
    pub mode: Option<EngineMode>,
    /// Context per request, in tokens (never divided by the number of slots).
    pub context: Option<u32>,
    /// Requests served at once (slots).
    pub parallel: Option<u32>,
    /// Layers offloaded to the GPU; 0 = CPU only.
    pub gpu_layers: Option<u32>,
    /// Logical and physical batch size, in tokens.
    pub batch: Option<u32>,
    /// CPU threads.
    pub threads: Option<u32>,
    /// Index of the GPU that holds the model when it is not split.
    pub main_gpu: Option<u32>,
    /// False: read the file into memory instead of mapping it.
    pub mmap: Option<bool>,
    /// K and V cache type, for example `q8_0`.
    pub kv_cache_type: Option<String>,
    /// `on`, `off` or `auto`.
    pub flash_attention: Option<String>,
    /// Roll the context instead of stopping when it is full.
    pub context_shift: Option<bool>,
    /// False: the KV cache stays in the machine's memory while layers are on a GPU.
    pub kv_offload: Option<bool>,
    /// Experts used per token, for mixture-of-experts models.
    pub experts: Option<u32>,
    /// Extra engine arguments from the config file, already checked against the reserved list (promise S9).
    pub extra_args: Vec<String>,
    /// Extra environment from the config file, already checked (promise S10).
    pub env: Vec<(String, String)>,
}

impl LaunchOptions {
    /// Fills every absent field from `base`.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        let list = |a: &Vec<_>, b: &Vec<_>| if a.is_empty() { b.clone() } else { a.clone() };
        Self {
            mode: self.mode.or(base.mode),
            context: self.context.or(base.context),
            parallel: self.parallel.or(base.parallel),
            gpu_layers: self.gpu_layers.or(base.gpu_layers),
            batch: self.batch.or(base.batch),
            threads: self.threads.or(base.threads),
            main_gpu: self.main_gpu.or(base.main_gpu),
            mmap: self.mmap.or(base.mmap),
            kv_cache_type: self.kv_cache_type.clone().or_else(|| base.kv_cache_type.clone()),
            flash_attention: self.flash_attention.clone().or_else(|| base.flash_attention.clone()),
            context_shift: self.context_shift.or(base.context_shift),
            kv_offload: self.kv_offload.or(base.kv_offload),
            experts: self.experts.or(base.experts),
            extra_args: list(&self.extra_args, &base.extra_args),
            env: if self.env.is_empty() {
                base.env.clone()
            } else {
                self.env.clone()
            },
        }
    }
}

/// The launch values really in effect in a running instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LoadedLaunch {
    /// What the process was started for.
    pub mode: EngineMode,
    /// Context per request, in tokens.
    pub context: u32,
    /// Slots.
    pub parallel: u32,
    /// The options the instance was started with (after merging all layers, before "auto" was resolved).
    pub options: LaunchOptions,
}

impl LoadedLaunch {
    /// Can this instance serve a request with these wishes? A smaller context is served by a larger one: reloading for
    /// it is the endless-reload fault of Ollama (contract 9, \[better\]). `max_context` is the trained length: a wish
    /// beyond it is capped, not a reason to reload.
    pub fn satisfies(&self, wish: &LaunchOptions, max_context: Option<u32>) -> bool {
        let same = |wish: Option<u32>, have: Option<u32>| wish.is_none() || wish == have;
        let wanted_context = wish.context.map(|c| c.min(max_context.unwrap_or(u32::MAX)));
        wish.mode.is_none_or(|mode| mode == self.mode)
            && wanted_context.is_none_or(|context| context <= self.context)
            && wish.parallel.is_none_or(|parallel| parallel <= self.parallel)
            && same(wish.gpu_layers, self.options.gpu_layers)
            && same(wish.batch, self.options.batch)
            && same(wish.threads, self.options.threads)
            && same(wish.main_gpu, self.options.main_gpu)
            && (wish.mmap.is_none() || wish.mmap == self.options.mmap)
            && (wish.kv_cache_type.is_none() || wish.kv_cache_type == self.options.kv_cache_type)
            && (wish.flash_attention.is_none() || wish.flash_attention == self.options.flash_attention)
            && (wish.context_shift.is_none() || wish.context_shift == self.options.context_shift)
            && (wish.kv_offload.is_none() || wish.kv_offload == self.options.kv_offload)
            && same(wish.experts, self.options.experts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_context_does_not_reload() {
        let loaded = LoadedLaunch {
            context: 8192,
            parallel: 2,
            ..LoadedLaunch::default()
        };
        let wish = |context| LaunchOptions {
            context: Some(context),
            ..LaunchOptions::default()
        };
        assert!(loaded.satisfies(&LaunchOptions::default(), None));
        assert!(loaded.satisfies(&wish(2048), None));
        assert!(!loaded.satisfies(&wish(16384), None));
        assert!(loaded.satisfies(&wish(16384), Some(8192)));
        assert!(!loaded.satisfies(
            &LaunchOptions {
                mode: Some(EngineMode::Embedding),
                ..Default::default()
            },
            None
        ));
        assert!(!loaded.satisfies(
            &LaunchOptions {
                gpu_layers: Some(0),
                ..Default::default()
            },
            None
        ));
    }
}
