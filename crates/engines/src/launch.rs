//! The start recipe: plan and binary in, command out (engine guide 6).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::chat::MEDIA_MARKER;
use domain::{Capability, EngineMode, LoadedLaunch, ModelEntry};
use supervisor::StopPlan;

use crate::plan::kv_bytes_per_token;
use crate::{EngineBinary, EngineSettings};

/// Everything the supervisor needs to start one engine process.
#[derive(Clone)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. No secret among them (promise S4: the process list is public).
    pub args: Vec<OsString>,
    /// Its complete environment, sorted by name.
    pub env: Vec<(OsString, OsString)>,
    /// How it is asked to end.
    pub stop: StopPlan,
}

impl Launch {
    /// Sets the grace time of the polite stop (`supervisor.stop_grace_seconds`).
    #[must_use]
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop.grace = grace;
        self
    }
}

/// The environment holds the engine's key: only names are shown.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Launch")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &names)
            .field("stop", &self.stop)
            .finish()
    }
}

/// Longest template handed to the engine, in bytes.
const MAX_TEMPLATE: usize = 120 << 10;

/// What a polite stop writes to the engine's stdin in child mode (engine guide 2.2).
const EXIT_MESSAGE: &[u8] = b"cmd_router_to_child:exit\n";

/// The name the engine is told, and answers with in `/v1/models`: the model's key. Commas would make it several names.
fn engine_alias(entry: &ModelEntry) -> String {
    entry.key.as_str().replace(',', "_")
}

/// The command that starts `entry` as `launch` says.
///
/// `api_key` is a fresh random key of this start; it goes by environment. Flags that this binary lacks are left out or
/// replaced by what older releases called them. `settings.args`, `settings.env`, `launch.options.extra_args` and
/// `launch.options.env` have been checked with the `reserved_…` functions when the config was read.
pub fn launch(
    binary: &EngineBinary,
    entry: &ModelEntry,
    launch: &LoadedLaunch,
    api_key: &str,
    settings: &EngineSettings,
) -> Launch {
    let mut args = Arguments {
        binary,
        args: Vec::new(),
    };
    args.base(entry);
    args.sizes(entry, launch);
    args.devices(launch);
    args.experts(entry, launch);
    args.mode(entry, launch);
    let extra = settings.args.iter().chain(&launch.options.extra_args);
    args.args.extend(extra.map(OsString::from));

    let mut env: BTreeMap<OsString, OsString> = inherited_environment(&binary.path).into_iter().collect();
    env.extend(settings.env.iter().map(|(name, value)| (name.into(), value.into())));
    env.extend(
        launch
            .options
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    // Last, so that nothing above can take their place.
    env.insert("LLAMA_API_KEY".into(), api_key.into());
    // Child mode: progress on stdout, exit message and end of file on stdin. The value has no meaning.
    env.insert("LLAMA_SERVER_ROUTER_PORT".into(), "1".into());
    // Raw prompts with images name their places by it.
    env.insert("LLAMA_MEDIA_MARKER".into(), MEDIA_MARKER.into());
    Launch {
        program: binary.path.clone(),
        args: args.args,
        env: env.into_iter().collect(),
        stop: StopPlan {
            stdin_message: Some(EXIT_MESSAGE.to_vec()),
            ..StopPlan::default()
        },
    }
}

struct Arguments<'a> {
    binary: &'a EngineBinary,
    args: Vec<OsString>,
}

impl Arguments<'_> {
    fn push(&mut self, flag: &str) {
        self.args.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.push(flag);
        self.args.push(value.into());
    }

    /// The first of these flags that the binary has; nothing when it has none.
    fn known<'f>(&self, flags: &[&'f str]) -> Option<&'f str> {
        flags.iter().copied().find(|flag| self.binary.has(flag))
    }

    fn push_known(&mut self, flags: &[&str]) {
        if let Some(flag) = self.known(flags) {
            self.push(flag);
        }
    }

    fn pair_known(&mut self, flags: &[&str], value: impl Into<OsString>) {
        if let Some(flag) = self.known(flags) {
            self.pair(flag, value);
        }
    }

    fn base(&mut self, entry: &ModelEntry) {
        self.pair("-m", entry.path.clone());
        if let Some(projector) = &entry.mmproj {
            self.pair("--mmproj", projector.clone());
        }
        // Longer than any real one; the system's limit for one argument is 128 KiB.
        let template = entry.profile.jinja().filter(|template| template.len() < MAX_TEMPLATE);
        if let Some(template) = template {
            self.pair("--chat-template", template);
        }
        for adapter in &entry.profile.adapters {
            self.pair("--lora", adapter.clone());
        }
        self.pair("--alias", engine_alias(entry));
        self.pair("--host", "127.0.0.1");
        // The system picks the port (promise R7); the engine tells it in its log.
        self.pair("--port", "0");
        self.push_known(&["--offline"]);
        self.push_known(&["--log-jsonl"]);
        self.push_known(&["--no-ui", "--no-webui"]);
        self.pair_known(&["--cors-origins"], "localhost");
        self.push_known(&["--metrics"]);
        self.push_known(&["--slots"]);
        self.push_known(&["--props"]);
        self.push_known(&["--jinja"]);
    }

    /// With an explicit slot count the engine divides `-c` evenly, so each slot has the whole context of a request
    /// guaranteed. Unified caches do not guarantee it: when they fill up, every running request is aborted.
    fn sizes(&mut self, entry: &ModelEntry, launch: &LoadedLaunch) {
        let total = u64::from(launch.context) * u64::from(launch.parallel);
        self.pair("-np", launch.parallel.to_string());
        self.pair("-c", total.to_string());
        let batch = match launch.mode {
            // One input must fit the physical batch or the engine answers 500 (engine guide 2.1).
            EngineMode::Embedding | EngineMode::Rerank => Some(launch.options.batch.unwrap_or(0).max(launch.context)),
            EngineMode::Completion | EngineMode::Transcription | EngineMode::Speech => launch.options.batch,
        };
        if let Some(batch) = batch {
            self.pair("-b", batch.to_string());
            self.pair("-ub", batch.to_string());
        }
        if launch.mode == EngineMode::Completion {
            self.pair_known(&["--cache-ram", "-cram"], prompt_cache_mib(entry, launch).to_string());
        }
        if let Some(kind) = &launch.options.kv_cache_type {
            self.pair("-ctk", kind);
            self.pair("-ctv", kind);
        }
        match launch.options.context_shift {
            Some(true) => self.push_known(&["--context-shift"]),
            Some(false) => self.push_known(&["--no-context-shift"]),
            None => {}
        }
    }

    fn devices(&mut self, launch: &LoadedLaunch) {
        let options = &launch.options;
        if let Some(threads) = options.threads.filter(|threads| *threads > 0) {
            self.pair("-t", threads.to_string());
        }
        if let Some(layers) = options.gpu_layers {
            self.pair("-ngl", layers.to_string());
        }
        if let Some(gpu) = options.main_gpu {
            self.pair("--split-mode", "none");
            self.pair("--main-gpu", gpu.to_string());
        }
        if let Some(attention) = &options.flash_attention {
            self.pair("--flash-attn", attention);
        }
        if options.kv_offload == Some(false) {
            self.push_known(&["--no-kv-offload"]);
        }
        match options.mmap {
            Some(map) if self.binary.has("--load-mode") => self.pair("--load-mode", if map { "mmap" } else { "none" }),
            Some(false) => self.push_known(&["--no-mmap"]),
            Some(true) | None => {}
        }
        // Fitting probes the devices at every start. It has something to decide only where there is a device and the
        // layers on it are not fixed.
        if self.binary.devices.is_empty() || options.gpu_layers.is_some() {
            self.pair_known(&["--fit", "-fit"], "off");
        }
        if options.gpu_layers == Some(0) {
            self.push_known(&["--no-mmproj-offload"]);
        }
    }

    /// How many experts work on a token stands in the file; it can be replaced at the start.
    fn experts(&mut self, entry: &ModelEntry, launch: &LoadedLaunch) {
        if let (Some(used), Some(all)) = (launch.options.experts, entry.facts.expert_count) {
            let key = format!("{}.expert_used_count", entry.facts.architecture);
            self.pair_known(&["--override-kv"], format!("{key}=int:{}", used.clamp(1, all.max(1))));
        }
    }

    fn mode(&mut self, entry: &ModelEntry, launch: &LoadedLaunch) {
        match launch.mode {
            EngineMode::Completion | EngineMode::Transcription | EngineMode::Speech => {}
            EngineMode::Embedding => {
                self.push_known(&["--embeddings", "--embedding"]);
                // A model not made for embeddings names no pooling, and the engine would refuse the OpenAI route. The
                // last token has seen the whole text, which is also what Ollama takes.
                if !entry.can(Capability::Embedding) {
                    self.pair_known(&["--pooling"], "last");
                }
            }
            EngineMode::Rerank => self.push_known(&["--reranking", "--rerank"]),
        }
    }
}

/// Main memory for saved prompts, in MiB: as much as the KV cache itself, which was planned to fit, within bounds. The
/// engine's own default of 8 GiB per process is too much beside other models.
fn prompt_cache_mib(entry: &ModelEntry, launch: &LoadedLaunch) -> u64 {
    let tokens = u64::from(launch.context) * u64::from(launch.parallel);
    kv_bytes_per_token(entry, &launch.options)
        .map_or(512, |bytes| bytes.saturating_mul(tokens) >> 20)
        .clamp(128, 2048)
}

/// Variables an engine may see of ours (promise S10): home and temporary folders, language, and which devices to use.
const INHERITED: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "CUDA_CACHE_PATH",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "ONEAPI_DEVICE_SELECTOR",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    // Windows does not start programs without these.
    "LOCALAPPDATA",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERPROFILE",
];

#[cfg(unix)]
const MINIMAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The clean environment of every engine process.
pub(crate) fn inherited_environment(program: &Path) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = INHERITED
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect();
    #[cfg(unix)]
    env.push(("PATH".into(), MINIMAL_PATH.into()));
    if let Some(folder) = library_folder(program) {
        env.push(("LD_LIBRARY_PATH".into(), folder.into_os_string()));
    }
    env
}

/// The program's own folder when its libraries lie there. Releases find them by run path; copies that lost it do not.
fn library_folder(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    folder.join("libllama.so").exists().then(|| folder.to_owned())
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
