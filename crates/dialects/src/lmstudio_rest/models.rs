use domain::{Capability, ModelEntry};
use serde_json::{Value, json};

use crate::{
    ModelView,
    json::to_vec,
    openai::{Ids, ModelListOptions, model_value},
};

/// What embedding model keys start with (contract 2).
const EMBEDDING: &str = "text-embedding-";

/// The identifier of what runs under an entry: a further instance's own name, else the model's key as lists show it.
pub fn entry_id(entry: &ModelEntry) -> String {
    match entry.instance_of {
        Some(_) => entry.key.to_string(),
        None => model_key(entry),
    }
}

/// The model's key as LM Studio lists show it, also for further instances: with `text-embedding-` in front for embedding
/// models that lack it.
pub fn model_key(entry: &ModelEntry) -> String {
    let key = entry.instance_of.as_ref().unwrap_or(&entry.key).as_str();
    let name = key.rsplit('/').next().unwrap_or(key);
    if entry.can(Capability::Embedding) && !name.starts_with(EMBEDDING) {
        format!("{EMBEDDING}{key}")
    } else {
        key.to_owned()
    }
}

/// [`entry_id`] of a view.
pub fn model_id(model: &ModelView) -> String {
    entry_id(&model.entry)
}

/// Speech and rerank models have no place in LM Studio's own lists: an unknown `type` makes its clients refuse the whole list.
pub fn has_type(entry: &ModelEntry) -> bool {
    entry.can(Capability::Completion) || entry.can(Capability::Chat) || entry.can(Capability::Embedding)
}

fn shown(model: &ModelView, only_loaded: bool) -> bool {
    !model.entry.unlisted && (!only_loaded || model.is_loaded())
}

fn ordered(models: &[ModelView], only_loaded: bool) -> Vec<&ModelView> {
    let mut list: Vec<&ModelView> = models.iter().filter(|model| shown(model, only_loaded)).collect();
    list.sort_by(|a, b| {
        b.is_loaded()
            .cmp(&a.is_loaded())
            .then_with(|| a.entry.key.cmp(&b.entry.key))
    });
    list
}

/// `GET /api/v0/models`, loaded ones first. `only_loaded`: loading on demand is off.
pub fn models_list(models: &[ModelView], only_loaded: bool) -> Vec<u8> {
    let data: Vec<Value> = ordered(models, only_loaded)
        .into_iter()
        .filter(|model| has_type(&model.entry))
        .map(value)
        .collect();
    to_vec(&json!({"object": "list", "data": data}))
}

/// `GET /api/v0/models/{model}`: the bare object.
pub fn model_one(model: &ModelView) -> Vec<u8> {
    to_vec(&value(model))
}

/// `GET /v1/models` in LM Studio's order and names (contract 4.1): merged objects of management contract 6.2. Rerank models
/// are in it: entries have no `type` here, and the port's rerank routes take them.
pub fn openai_models(models: &[ModelView], only_loaded: bool) -> Vec<u8> {
    let options = ModelListOptions {
        ids: Ids::LmStudio,
        ..ModelListOptions::default()
    };
    let data: Vec<Value> = ordered(models, only_loaded)
        .into_iter()
        .map(|model| model_value(model, &model_id(model), options))
        .collect();
    to_vec(&json!({"object": "list", "data": data}))
}

fn value(model: &ModelView) -> Value {
    let entry = &*model.entry;
    let kind = if entry.can(Capability::Embedding) {
        "embeddings"
    } else if entry.can(Capability::Vision) {
        "vlm"
    } else {
        "llm"
    };
    let mut capabilities = Vec::new();
    if entry.can(Capability::Tools) {
        capabilities.push("tool_use");
    }
    let mut value = json!({
        "id": model_id(model),
        "object": "model",
        "type": kind,
        "publisher": entry.publisher,
        "arch": entry.facts.architecture,
        "compatibility_type": "gguf",
        "quantization": entry.facts.quantization,
        "state": if model.is_loaded() { "loaded" } else { "not-loaded" },
        "max_context_length": entry.facts.context_length.unwrap_or(0),
    });
    if let Some(instance) = model.instance.as_ref().filter(|_| model.is_loaded()) {
        value["loaded_context_length"] = instance.launch.context.into();
    }
    value["capabilities"] = json!(capabilities);
    value
}
