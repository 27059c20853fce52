use domain::{Capability, ModelEntry, ModelState};
use serde_json::{Map, Value, json};

use crate::{ModelView, json::to_vec, ollama};

/// How lists name the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// The registry's own keys.
    #[default]
    Key,
    /// Ollama's display names, always with the tag (Ollama contract 1.2), for the `ollama` flavour.
    Ollama,
    /// LM Studio's names: instance identifiers first (LM Studio contract 2).
    LmStudio,
}

/// Options of the model list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelListOptions {
    /// Show file paths (management callers or loopback only).
    pub show_path: bool,
    /// Bare `/models`: `owned_by` is the publisher and llama.cpp's `models` list is added.
    pub bare: bool,
    /// How models are named.
    pub ids: Ids,
}

/// `{object:"list", data:[…]}` of merged model objects (management contract 6.2), sorted by id. Unlisted ones are left out.
pub fn models_list(models: &[ModelView], options: ModelListOptions) -> Vec<u8> {
    let listed = models.iter().filter(|model| !model.entry.unlisted);
    let mut data: Vec<(String, Value)> = listed
        .map(|model| {
            let id = listed_id(&model.entry, options.ids);
            let value = model_value(model, &id, options);
            (id, value)
        })
        .collect();
    data.sort_by(|a, b| a.0.cmp(&b.0));
    let data: Vec<Value> = data.into_iter().map(|(_, value)| value).collect();
    if options.bare {
        let names: Vec<Value> = data
            .iter()
            .map(|value| json!({"name": value["id"], "model": value["id"]}))
            .collect();
        return to_vec(&json!({"object": "list", "data": data, "models": names}));
    }
    to_vec(&json!({"object": "list", "data": data}))
}

/// One merged model object; `id` as the caller asked for it.
pub fn model_one(model: &ModelView, id: &str, options: ModelListOptions) -> Vec<u8> {
    to_vec(&model_value(model, id, options))
}

/// How a list names the model.
pub fn listed_id(entry: &ModelEntry, ids: Ids) -> String {
    match ids {
        Ids::Key => entry.key.to_string(),
        Ids::Ollama => ollama::display_name(entry),
        Ids::LmStudio => crate::lmstudio_rest::entry_id(entry),
    }
}

/// The merged model object of management contract 6.2.
pub fn model_value(model: &ModelView, id: &str, options: ModelListOptions) -> Value {
    let entry = &*model.entry;
    let facts = &entry.facts;
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.to_owned(), value);
    };
    put("id", id.into());
    put("object", "model".into());
    put("created", entry.modified.into());
    let owner = match options.ids {
        _ if options.bare => entry.publisher.as_str(),
        // LM Studio contract 4.1.
        Ids::LmStudio => "organization_owner",
        Ids::Key | Ids::Ollama => "llama-runner",
    };
    put("owned_by", owner.into());
    put("name", entry.display_name.as_str().into());
    if let Some(description) = &entry.description {
        put("description", description.as_str().into());
    }
    put("permission", json!([]));
    put("root", id.into());
    put("parent", Value::Null);
    put("model_family", facts.architecture.as_str().into());
    put("size", entry.size.into());
    put("modified", crate::rfc3339_seconds(entry.modified).into());
    put("publisher", entry.publisher.as_str().into());
    put("aliases", json!(entry.aliases));
    put("status", status(model));
    put("loaded", model.is_loaded().into());
    if options.show_path {
        put("path", entry.path.to_string_lossy().into_owned().into());
    }
    put("in_cache", true.into());
    put("architecture", architecture(entry));
    let trained = facts.context_length;
    let in_effect = model
        .instance
        .as_ref()
        .map(|instance| instance.launch.context)
        .filter(|context| *context > 0);
    put("context_length", json!(in_effect.or(trained)));
    put("max_context_length", json!(trained));
    put("quantization", facts.quantization.as_str().into());
    put("capabilities", json!(entry.capabilities));
    put(
        "meta",
        json!({"n_params": facts.parameters, "n_ctx_train": trained, "n_embd": facts.embedding_length, "size": entry.size}),
    );
    Value::Object(object)
}

/// llama.cpp's words for the state (management contract 7.1).
fn status(model: &ModelView) -> Value {
    match &model.state {
        ModelState::Unloaded => json!({"value": "unloaded"}),
        ModelState::Queued => json!({"value": "loading", "progress": 0.0}),
        ModelState::Loading { progress } => json!({"value": "loading", "progress": progress}),
        ModelState::Ready | ModelState::Draining => json!({"value": "loaded"}),
        ModelState::Failed(report) => json!({"value": "failed", "failed": true, "exit_code": report.exit_code}),
    }
}

fn architecture(entry: &ModelEntry) -> Value {
    let mut input = vec!["text"];
    if entry.can(Capability::Vision) {
        input.push("image");
    }
    if entry.can(Capability::Audio) {
        input.push("audio");
    }
    if entry.can(Capability::Transcription) {
        input = vec!["audio"];
    }
    let output = if entry.can(Capability::Speech) {
        "audio"
    } else if entry.can(Capability::Embedding) {
        "embeddings"
    } else if entry.can(Capability::Rerank) {
        "scores"
    } else {
        "text"
    };
    json!({"input_modalities": input, "output_modalities": [output]})
}
