//! LlamaRunner Pro's own management answers (contract `compat/management.md` 2), all of them snapshots rendered to JSON.

use std::time::Duration;

use domain::{FailureReport, LaunchOptions, ModelState, RunnerError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ModelView, Rendered, json::to_vec, rfc3339_seconds};

/// The Pro error envelope, the same object as OpenAI's.
pub fn error(error: &RunnerError) -> Rendered {
    crate::openai::error(error)
}

/// Pro's word for a state (management contract 7.1).
pub fn status_word(state: &ModelState) -> &'static str {
    match state {
        ModelState::Unloaded | ModelState::Draining => "unloaded",
        ModelState::Queued | ModelState::Loading { .. } => "loading",
        ModelState::Ready => "loaded",
        ModelState::Failed(_) => "error",
    }
}

/// P2: `{id, status, port, uptime, memory_usage, last_used}`; `id` as asked, `now_ms` Unix milliseconds.
pub fn model_status(id: &str, model: &ModelView, now_ms: i64) -> Vec<u8> {
    let instance = model.instance.as_ref();
    let up = instance.filter(|_| matches!(model.state, ModelState::Ready));
    let uptime = up
        .and_then(|i| i.ready_at_ms)
        .map_or(0, |ready| (now_ms - ready).max(0) / 1000);
    let memory = up.map_or(0, |i| {
        i.memory_bytes.unwrap_or(0).saturating_add(i.vram_bytes.unwrap_or(0))
    });
    let mut body = json!({
        "id": id,
        "status": status_word(&model.state),
        "port": up.and_then(|i| i.port),
        "uptime": uptime,
        "memory_usage": memory,
        "last_used": instance.and_then(|i| i.last_used_ms).map(|ms| rfc3339_seconds(ms.div_euclid(1000))),
    });
    match &model.state {
        ModelState::Loading { progress } => body["progress"] = json!(progress),
        ModelState::Failed(FailureReport { reason, exit_code, .. }) => {
            body["error"] = reason.as_str().into();
            body["exit_code"] = json!(exit_code);
        }
        ModelState::Unloaded | ModelState::Queued | ModelState::Ready | ModelState::Draining => {}
    }
    to_vec(&body)
}

/// P3: `{id, path, size, parameters, format, architecture, context_length, loaded, port}`. `show_path`: management callers or
/// loopback; others see the file's name only.
pub fn model_info(id: &str, model: &ModelView, show_path: bool) -> Vec<u8> {
    let entry = &*model.entry;
    let path = if show_path {
        Some(entry.path.as_os_str())
    } else {
        entry.path.file_name()
    };
    let loaded = model.is_loaded();
    to_vec(&json!({
        "id": id,
        "path": path.map(std::ffi::OsStr::to_string_lossy),
        "size": entry.size,
        "parameters": entry.facts.parameters,
        "format": entry.format(),
        "architecture": entry.facts.architecture,
        "context_length": entry.facts.context_length,
        "loaded": loaded,
        "port": model.instance.as_ref().filter(|_| loaded).and_then(|i| i.port),
        "name": entry.display_name,
        "description": entry.description,
        "quantization": entry.facts.quantization,
        "capabilities": entry.capabilities,
        "aliases": entry.aliases,
        "status": status_word(&model.state),
    }))
}

/// Body of P4 (may be empty): launch overrides, and `wait`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StartCall {
    /// Overrides.
    pub launch: LaunchOptions,
    /// Answer only once ready.
    pub wait: bool,
}

/// Override names of llamactl's `backend_options`, with the common spellings of llama-server's own long flags.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StartBody {
    #[serde(alias = "n_ctx", alias = "context", alias = "context_length")]
    ctx_size: Option<u32>,
    #[serde(alias = "n_parallel")]
    parallel: Option<u32>,
    #[serde(alias = "n_gpu_layers")]
    gpu_layers: Option<u32>,
    #[serde(alias = "n_batch")]
    batch_size: Option<u32>,
    #[serde(alias = "n_threads")]
    threads: Option<u32>,
    main_gpu: Option<u32>,
    no_mmap: Option<bool>,
    mmap: Option<bool>,
    #[serde(alias = "kv_cache_type")]
    cache_type_k: Option<String>,
    flash_attn: Option<Value>,
    context_shift: Option<bool>,
    wait: bool,
    backend_options: Option<Box<StartBody>>,
}

impl StartCall {
    /// Parses the body; an empty one asks for nothing.
    ///
    /// # Errors
    /// `InvalidRequest` for broken JSON or a wrong type.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let body: StartBody = serde_json::from_slice(body)
            .map_err(|e| RunnerError::invalid(format!("Invalid launch overrides: {e}.")))?;
        let wait = body.wait;
        let inner = body.backend_options.as_deref().map(launch).unwrap_or_default();
        Ok(Self {
            launch: launch(&body).or(&inner),
            wait,
        })
    }
}

fn launch(body: &StartBody) -> LaunchOptions {
    let flash_attention = match &body.flash_attn {
        Some(Value::Bool(on)) => Some(if *on { "on".to_owned() } else { "off".to_owned() }),
        Some(Value::String(word)) => Some(word.clone()),
        _ => None,
    };
    LaunchOptions {
        context: body.ctx_size.filter(|n| *n > 0),
        parallel: body.parallel.filter(|n| *n > 0),
        gpu_layers: body.gpu_layers,
        batch: body.batch_size.filter(|n| *n > 0),
        threads: body.threads.filter(|n| *n > 0),
        main_gpu: body.main_gpu,
        mmap: body.mmap.or(body.no_mmap.map(|off| !off)),
        kv_cache_type: body.cache_type_k.clone(),
        flash_attention,
        context_shift: body.context_shift,
        ..LaunchOptions::default()
    }
}

/// P4 reply from the state now: `{success, port, status:"starting"}`, or `"loaded"` when it is already up.
pub fn start_reply(model: &ModelView) -> Vec<u8> {
    let status = if matches!(model.state, ModelState::Ready) {
        "loaded"
    } else {
        "starting"
    };
    to_vec(&json!({"success": true, "port": model.instance.as_ref().and_then(|i| i.port), "status": status}))
}

/// `force` of P5 (the body may be empty).
///
/// # Errors
/// `InvalidRequest` for broken JSON or a wrong type.
pub fn parse_stop(body: &[u8]) -> Result<bool, RunnerError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        force: bool,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let body: Body = serde_json::from_slice(body).map_err(|e| RunnerError::invalid(format!("Invalid body: {e}.")))?;
    Ok(body.force)
}

/// P5 reply.
pub fn stop_reply() -> Vec<u8> {
    to_vec(&json!({"success": true, "status": "stopped"}))
}

/// P6. While the server drains it is 503 with status `draining` (promise H9).
pub fn health(version: &str, uptime: Duration, now_ms: i64, draining: bool) -> Rendered {
    let (code, status) = if draining { (503, "draining") } else { (200, "healthy") };
    let body = json!({
        "status": status,
        "timestamp": rfc3339_seconds(now_ms.div_euclid(1000)),
        "version": version,
        "uptime": uptime.as_secs(),
    });
    Rendered::json(code, to_vec(&body))
}

/// A listener in P7.
#[derive(Debug, Clone)]
pub struct ProxyView {
    /// `running`, `stopped` or `error`.
    pub status: String,
    /// Port, when bound.
    pub port: Option<u16>,
}

/// Facts of P7.
#[derive(Debug, Clone)]
pub struct SystemView {
    /// Listed models.
    pub models_total: usize,
    /// Loaded ones.
    pub models_loaded: usize,
    /// Bytes resident of all engines.
    pub models_memory: u64,
    /// Port 11434.
    pub ollama: ProxyView,
    /// Port 1234.
    pub lmstudio: ProxyView,
    /// Percent.
    pub cpu_percent: f32,
    /// Bytes in use.
    pub memory_used: u64,
    /// Bytes available.
    pub memory_available: u64,
    /// How the speech engine stands: `missing`, `installing`, `ready`, `broken`.
    pub speech: &'static str,
}

/// P7. Memory of `system` is in MiB, of `models` in bytes; CPU in percent with one decimal.
pub fn system_status(view: &SystemView) -> Vec<u8> {
    let proxy = |proxy: &ProxyView| json!({"status": proxy.status, "port": proxy.port});
    let cpu = (f64::from(view.cpu_percent) * 10.0).round() / 10.0;
    to_vec(&json!({
        "status": "running",
        "models": {"total": view.models_total, "loaded": view.models_loaded, "memory_usage": view.models_memory},
        "proxies": {"ollama": proxy(&view.ollama), "lmstudio": proxy(&view.lmstudio)},
        "system": {
            "cpu_usage": cpu,
            "memory_usage": view.memory_used >> 20,
            "available_memory": view.memory_available >> 20,
        },
        "engines": {"speech": {"state": view.speech}},
    }))
}

/// Facts of P8.
#[derive(Debug, Clone, Default)]
pub struct ServerView {
    /// Product version.
    pub version: String,
    /// For example `Linux-6.1-x86_64`.
    pub platform: String,
    /// Compiler version.
    pub rust_version: String,
    /// llama-server version, when one is found.
    pub llama_server: Option<String>,
    /// Version of the Python that speech runs on, when there is one.
    pub python_version: Option<String>,
    /// faster-whisper version, when one is found.
    pub faster_whisper: Option<String>,
}

/// P8.
pub fn server_info(view: &ServerView) -> Vec<u8> {
    to_vec(&json!({
        "id": "llama-runner",
        "version": view.version,
        "description": "LlamaRunner: local models for Ollama, LM Studio and OpenAI applications",
        "features": ["chat", "completions", "embeddings", "audio", "streaming"],
        "models_supported": ["gguf"],
        "runtime_info": {
            "rust_version": view.rust_version,
            "platform": view.platform,
            "llama_server": view.llama_server,
            "python_version": view.python_version,
            "faster_whisper": view.faster_whisper,
        },
    }))
}
