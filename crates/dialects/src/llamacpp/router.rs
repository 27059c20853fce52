use std::collections::{HashMap, HashSet};

use domain::{EventKind, InstanceView, JobState, JobView, ModelState, RunnerError};
use serde_json::{Map, Value, json};

use crate::{json::to_vec, sse};

/// The names in a body of `POST /v1/streams/lookup`.
///
/// # Errors
/// The body is no JSON object with a list of them.
pub fn conversation_ids(body: &[u8]) -> Result<Vec<String>, RunnerError> {
    #[derive(serde::Deserialize)]
    struct Asked {
        conversation_ids: Vec<String>,
    }
    let asked: Result<Asked, _> = serde_json::from_slice(body);
    asked.map(|asked| asked.conversation_ids).map_err(|_| {
        RunnerError::invalid("The body must be {\"conversation_ids\": [\"…\"]}.").param("conversation_ids")
    })
}

/// The model of a `POST /models/load` or `/models/unload` body: llama.cpp's `{"model"}` or Kronk's `{"id"}` (management
/// contract 6.1).
///
/// # Errors
/// `InvalidRequest` when neither is a name.
pub fn model_of_call(body: &[u8]) -> Result<String, RunnerError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| RunnerError::invalid(format!("The request body is not valid JSON: {error}")))?;
    let name = value.get("model").or_else(|| value.get("id")).and_then(Value::as_str);
    match name.map(str::trim) {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(RunnerError::invalid("model must be a non-empty string").param("model")),
    }
}

/// `owner/repo[:quantization]`, the name a download has in the router.
///
/// # Errors
/// `InvalidRequest` when it names no repository.
pub fn repository(name: &str) -> Result<(String, Option<String>), RunnerError> {
    let (repo, quant) = match name.split_once(':') {
        Some((repo, quant)) => (repo, Some(quant.to_owned()).filter(|quant| !quant.is_empty())),
        None => (name, None),
    };
    if repo.split('/').filter(|part| !part.is_empty()).count() != 2 {
        return Err(RunnerError::invalid(
            "model must be the name of a repository: owner/name or owner/name:quantization",
        )
        .param("model"));
    }
    Ok((repo.to_owned(), quant))
}

/// What the router calls a download.
pub fn download_name(job: &JobView) -> String {
    match &job.quantization {
        Some(quant) if !job.name.contains(':') => format!("{}:{quant}", job.name),
        _ => job.name.clone(),
    }
}

/// `{"success": true}`.
pub fn success() -> Vec<u8> {
    to_vec(&json!({"success": true}))
}

/// Answer of `/models/load`.
pub fn load_reply(id: &str) -> Vec<u8> {
    to_vec(&json!({"success": true, "status": "loading", "id": id}))
}

/// Answer of `/models/unload`, in both forms.
pub fn unload_reply(id: &str) -> Vec<u8> {
    to_vec(&json!({"success": true, "status": "unloaded", "id": id}))
}

/// `GET /props` of an engine; a caller who may not see paths gets the names of the files (promise H10).
pub fn engine_props(body: &[u8], sees_paths: bool) -> Vec<u8> {
    let Ok(Value::Object(mut props)) = serde_json::from_slice(body) else {
        return b"{}".to_vec();
    };
    if !sees_paths {
        for (_, value) in props.iter_mut().filter(|(name, _)| name.ends_with("_path")) {
            let name = value.as_str().and_then(|path| path.rsplit(['/', '\\']).next());
            *value = name.map_or(Value::Null, Value::from);
        }
    }
    to_vec(&props)
}

/// What `/props` without a model says of this server.
#[derive(Debug, Clone, Default)]
pub struct RouterFacts {
    /// Most models loaded at once.
    pub max_instances: usize,
    /// Models are loaded on demand.
    pub autoload: bool,
    /// Build of the engine, `b11549`.
    pub build: String,
}

/// `GET /props` without a model: the router's form, laid over what the engine of the only loaded model says (`engine`), so
/// that tools for a single llama-server find what they look for.
pub fn router_props(facts: &RouterFacts, engine: Option<&[u8]>) -> Vec<u8> {
    let mut props: Map<String, Value> = engine
        .and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default();
    if props.is_empty() {
        props.insert("model_alias".into(), "llama-runner".into());
        props.insert("model_path".into(), "none".into());
        props.insert(
            "default_generation_settings".into(),
            json!({"params": null, "n_ctx": 0}),
        );
    }
    props.insert("role".into(), "router".into());
    props.insert("max_instances".into(), facts.max_instances.into());
    props.insert("models_autoload".into(), facts.autoload.into());
    props.entry("ui_settings").or_insert_with(|| json!({}));
    props.entry("build_info").or_insert_with(|| facts.build.as_str().into());
    props.insert("cors_proxy_enabled".into(), false.into());
    to_vec(&props)
}

/// Our events as the frames of `GET /models/sse`. Of one reader: remembers what it was told, because an instance is
/// announced more often than its state changes.
#[derive(Debug, Default)]
pub struct ModelChanges {
    told: HashMap<String, Value>,
    finished: HashMap<String, JobState>,
}

impl ModelChanges {
    /// Appends the frames of one event. `name` gives the listed name of a model.
    pub fn write(&mut self, event: &EventKind, name: impl Fn(&domain::ModelKey) -> String, out: &mut Vec<u8>) {
        match event {
            EventKind::Instance { instance } => {
                if let Some(status) = status(instance) {
                    self.tell(&name(&instance.model), status, out);
                }
            }
            EventKind::InstanceGone { model } => self.tell(&name(model), json!({"status": "unloaded"}), out),
            EventKind::ModelFailed { model, reason } => {
                let status = json!({"status": "unloaded", "failed": true, "exit_code": 1, "reason": reason});
                self.tell(&name(model), status, out);
            }
            EventKind::CatalogChanged { .. } => frame(&json!({"model": "*", "event": "models_reload"}), out),
            EventKind::Download { job } => {
                let name = download_name(job);
                let event = match job.state {
                    JobState::Completed => "download_finished",
                    JobState::Failed | JobState::Cancelled => "download_failed",
                    _ => "download_progress",
                };
                if job.state.is_final() && self.finished.insert(job.id.0.clone(), job.state) == Some(job.state) {
                    return;
                }
                let files = job
                    .files
                    .iter()
                    .map(|file| (file.name.clone(), json!({"done": file.done, "total": file.size})));
                let data: Map<String, Value> = files.collect();
                frame(&json!({"model": name, "event": event, "data": data}), out);
            }
            EventKind::Transcription { .. }
            | EventKind::Config { .. }
            | EventKind::Requests { .. }
            | EventKind::Log { .. }
            | EventKind::ShuttingDown => {}
        }
    }

    /// Appends what was missed of models that are not loaded (nor loading) any more: `live` holds the listed names of those
    /// that are.
    pub fn catch_up(&mut self, live: &HashSet<String>, out: &mut Vec<u8>) {
        let gone = |(name, status): (&String, &Value)| {
            (status["status"] != "unloaded" && !live.contains(name)).then(|| name.clone())
        };
        let mut gone: Vec<String> = self.told.iter().filter_map(gone).collect();
        gone.sort();
        for name in gone {
            self.tell(&name, json!({"status": "unloaded"}), out);
        }
    }

    /// One change under both names it has: the documented `model_status`, and `status_change`, which is what routers send.
    fn tell(&mut self, model: &str, status: Value, out: &mut Vec<u8>) {
        if self.told.get(model) == Some(&status) {
            return;
        }
        for event in ["model_status", "status_change"] {
            frame(&json!({"model": model, "event": event, "data": status}), out);
        }
        self.told.insert(model.to_owned(), status);
    }
}

fn frame(event: &Value, out: &mut Vec<u8>) {
    sse::write_data(&to_vec(event), out);
}

/// llama.cpp's words for a state (management contract 7.1). `None`: the end of the process says it.
fn status(instance: &InstanceView) -> Option<Value> {
    Some(match &instance.state {
        ModelState::Queued => json!({"status": "loading"}),
        ModelState::Loading { progress } => json!({
            "status": "loading",
            "progress": {"stages": ["text_model"], "current": "text_model", "value": progress},
        }),
        ModelState::Ready | ModelState::Draining => json!({
            "status": "loaded",
            "info": {"n_ctx": instance.launch.context, "n_slots": instance.launch.parallel},
        }),
        ModelState::Unloaded => json!({"status": "unloaded"}),
        ModelState::Failed(_) => return None,
    })
}
