use domain::{Capability, InstanceView, ModelEntry};
use serde_json::{Value, json};

use crate::ModelView;
use crate::json::to_vec;
use crate::lmstudio_rest::models::{entry_id, has_type};

/// What the engine takes when nobody says a batch size.
const DEFAULT_BATCH: u32 = 2048;

/// `GET /api/v1/models`: every model, loaded or not. `models` may hold further instances; they show under their model.
pub fn models(models: &[ModelView]) -> Vec<u8> {
    let list: Vec<Value> = models
        .iter()
        .filter(|model| model.entry.instance_of.is_none() && !model.entry.unlisted && has_type(&model.entry))
        .map(|model| value(model, models))
        .collect();
    to_vec(&json!({ "models": list }))
}

fn value(model: &ModelView, all: &[ModelView]) -> Value {
    let entry = &*model.entry;
    let embeds = is_embedding(entry);
    let further = all
        .iter()
        .filter(|other| other.entry.instance_of.as_ref() == Some(&entry.key));
    let instances: Vec<Value> = std::iter::once(model)
        .chain(further)
        .filter(|model| model.is_loaded())
        .filter_map(|model| {
            let instance = model.instance.as_ref()?;
            Some(json!({"id": entry_id(&model.entry), "config": load_config(entry, instance)}))
        })
        .collect();
    let mut value = json!({
        "type": kind(entry),
        "publisher": entry.publisher,
        "key": entry_id(entry),
        "display_name": entry.display_name,
    });
    if !embeds {
        let architecture = &entry.facts.architecture;
        value["architecture"] = (!architecture.is_empty()).then_some(architecture.as_str()).into();
    }
    value["quantization"] = quantization(entry);
    value["size_bytes"] = entry.size.into();
    value["params_string"] = params(entry.facts.parameters).into();
    value["loaded_instances"] = instances.into();
    value["max_context_length"] = entry.facts.context_length.unwrap_or(0).into();
    value["format"] = "gguf".into();
    if !embeds {
        let mut capabilities = json!({
            "vision": entry.can(Capability::Vision),
            "trained_for_tool_use": entry.can(Capability::Tools),
        });
        let reasoning = reasoning_options(entry);
        if !reasoning.is_empty() {
            let default = if is_gpt_oss(entry) { "medium" } else { "on" };
            capabilities["reasoning"] = json!({"allowed_options": reasoning, "default": default});
        }
        value["capabilities"] = capabilities;
        value["description"] = entry.description.as_deref().into();
    }
    value
}

/// `llm` or `embedding`.
pub(super) fn kind(entry: &ModelEntry) -> &'static str {
    if is_embedding(entry) { "embedding" } else { "llm" }
}

fn is_embedding(entry: &ModelEntry) -> bool {
    entry.can(Capability::Embedding)
}

/// What `reasoning` may be for this model; empty: it cannot be controlled.
pub(super) fn reasoning_options(entry: &ModelEntry) -> &'static [&'static str] {
    if !entry.can(Capability::Thinking) {
        &[]
    } else if is_gpt_oss(entry) {
        &["low", "medium", "high"]
    } else {
        &["off", "on"]
    }
}

/// Its template knows efforts, and LM Studio names its reasoning field otherwise (contract 4.2).
pub(crate) fn is_gpt_oss(entry: &ModelEntry) -> bool {
    entry.facts.architecture == "gpt-oss"
}

/// The settings in effect, by the names of the load request.
pub(super) fn load_config(entry: &ModelEntry, instance: &InstanceView) -> Value {
    let (launch, options) = (&instance.launch, &instance.launch.options);
    let mut config = json!({"context_length": launch.context});
    if is_embedding(entry) {
        return config;
    }
    config["eval_batch_size"] = options.batch.unwrap_or(DEFAULT_BATCH).into();
    config["parallel"] = launch.parallel.into();
    config["flash_attention"] = (options.flash_attention.as_deref() != Some("off")).into();
    if let (Some(_), Some(used)) = (entry.facts.expert_count, options.experts) {
        config["num_experts"] = used.into();
    }
    config["offload_kv_cache_to_gpu"] = options.kv_offload.unwrap_or(true).into();
    config
}

fn quantization(entry: &ModelEntry) -> Value {
    let name = entry.facts.quantization.as_str();
    if name.is_empty() || name == "unknown" {
        return Value::Null;
    }
    // LM Studio names the nominal width: 4 for Q4_K_M.
    let digits: String = name
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let bits = digits.parse::<u32>().ok().filter(|bits| (1..=64).contains(bits));
    json!({"name": name, "bits_per_weight": bits})
}

/// `7B`, `0.5B`, `135M`.
fn params(count: u64) -> Option<String> {
    let scaled = |unit: f64| {
        let number = count as f64 / unit;
        if number < 10.0 {
            format!("{number:.1}").trim_end_matches(".0").to_owned()
        } else {
            format!("{number:.0}")
        }
    };
    match count {
        0 => None,
        1..950_000 => Some(format!("{}K", scaled(1e3))),
        950_000..450_000_000 => Some(format!("{}M", scaled(1e6))),
        _ => Some(format!("{}B", scaled(1e9))),
    }
}

#[cfg(test)]
mod tests {
    use super::params;

    #[test]
    fn parameter_counts_read_like_model_names() {
        for (count, text) in [
            (888_960, Some("889K")),
            (134_515_008, Some("135M")),
            (494_032_768, Some("0.5B")),
            (7_615_616_512, Some("7.6B")),
            (8_030_261_248, Some("8B")),
            (70_553_706_496, Some("71B")),
            (0, None),
        ] {
            assert_eq!(params(count).as_deref(), text, "{count}");
        }
    }
}
