use serde_json::{Value, json};

use crate::openai::{self, ModelListOptions};
use crate::{ModelView, json::to_vec, rfc3339_seconds};

/// The merged model object of management contract 6.2 with Anthropic's `type`, `display_name` and `created_at`.
fn value(model: &ModelView, id: &str, options: ModelListOptions) -> Value {
    let mut value = openai::model_value(model, id, options);
    value["type"] = "model".into();
    value["display_name"] = model.entry.display_name.as_str().into();
    value["lifecycle"] = "active".into();
    value["max_input_tokens"] = value["context_length"].clone();
    value["created_at"] = rfc3339_seconds(model.entry.modified).into();
    value
}

/// `GET /v1/models` for callers that send `anthropic-version`: OpenAI's list with the members of Anthropic's.
pub fn models_list(models: &[ModelView], options: ModelListOptions) -> Vec<u8> {
    let mut data: Vec<(String, Value)> = models
        .iter()
        .filter(|model| !model.entry.unlisted)
        .map(|model| {
            let id = openai::listed_id(&model.entry, options.ids);
            let value = value(model, &id, options);
            (id, value)
        })
        .collect();
    data.sort_by(|a, b| a.0.cmp(&b.0));
    let first = data.first().map(|(id, _)| id.clone());
    let last = data.last().map(|(id, _)| id.clone());
    let data: Vec<Value> = data.into_iter().map(|(_, value)| value).collect();
    to_vec(&json!({"object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last}))
}

/// `GET /v1/models/{id}` for the same callers.
pub fn model(model: &ModelView, id: &str, options: ModelListOptions) -> Vec<u8> {
    to_vec(&value(model, id, options))
}
