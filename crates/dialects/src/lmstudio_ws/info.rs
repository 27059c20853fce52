//! Model and instance infos (contract 11.1, 11.2). Exact: one missing field makes the JavaScript library wait for ever.

use domain::{Capability, InstanceView, KeepAlive, ModelEntry};
use serde_json::{Value, json};

use crate::lmstudio_rest::{entry_id, model_key};

/// The two kinds of model that the libraries know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Generates text.
    Llm,
    /// Makes vectors.
    Embedding,
}

impl Domain {
    /// The kind of a model. `None`: it has no place in the libraries' lists, where an unknown kind spoils the whole list
    /// (speech, rerank).
    pub fn of(entry: &ModelEntry) -> Option<Self> {
        if entry.can(Capability::Embedding) {
            Some(Self::Embedding)
        } else if entry.can(Capability::Completion) || entry.can(Capability::Chat) {
            Some(Self::Llm)
        } else {
            None
        }
    }

    /// The word on the wire, also the beginning of config keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Embedding => "embedding",
        }
    }
}

/// Info of a downloaded model.
pub fn model_info(entry: &ModelEntry, domain: Domain) -> Value {
    let facts = &entry.facts;
    let key = model_key(entry);
    let bare = key.split('@').next().unwrap_or(&key);
    let path = if entry.indexed_path.is_empty() {
        &key
    } else {
        &entry.indexed_path
    };
    let mut info = json!({
        "type": domain.as_str(),
        "modelKey": key,
        "format": "gguf",
        "displayName": entry.display_name,
        "publisher": entry.publisher,
        "path": path,
        "sizeBytes": entry.size,
        "indexedModelIdentifier": path,
        "deviceIdentifier": null,
    });
    if let Some(size) = params_string(facts.parameters) {
        info["paramsString"] = size.into();
    }
    if !facts.architecture.is_empty() {
        info["architecture"] = facts.architecture.as_str().into();
    }
    if let Some(bits) = bits(&facts.quantization, facts.bits_per_weight) {
        info["quantization"] = json!({"name": facts.quantization, "bits": bits});
        let variant = format!("{bare}@{}", facts.quantization.to_lowercase());
        info["variants"] = json!([variant]);
        info["selectedVariant"] = variant.into();
    }
    if domain == Domain::Llm {
        info["vision"] = entry.can(Capability::Vision).into();
        info["trainedForToolUse"] = entry.can(Capability::Tools).into();
    }
    info["maxContextLength"] = facts.context_length.unwrap_or(0).into();
    info
}

/// What the info of a loaded instance needs besides its entry.
#[derive(Debug, Clone, Copy)]
pub struct InstanceFacts<'a> {
    /// The instance.
    pub view: &'a InstanceView,
    /// A name for this load that no other load ever has.
    pub reference: &'a str,
}

/// Info of a loaded instance.
pub fn instance_info(entry: &ModelEntry, domain: Domain, instance: InstanceFacts<'_>) -> Value {
    let mut info = model_info(entry, domain);
    let view = instance.view;
    let ttl = match view.keep_alive {
        KeepAlive::For(time) => Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        KeepAlive::Forever => None,
    };
    info["identifier"] = entry_id(entry).into();
    info["instanceReference"] = instance.reference.into();
    info["ttlMs"] = ttl.into();
    info["lastUsedTime"] = view.last_used_ms.into();
    info["contextLength"] = view.launch.context.into();
    info
}

/// Number of parameters for people: `494M`, `7.6B`.
fn params_string(parameters: u64) -> Option<String> {
    let short = |value: f64, unit: &str| {
        let text = if value < 10.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        };
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match parameters {
        0 => None,
        1..1_000_000 => Some(short(parameters as f64 / 1e3, "K")),
        1_000_000..1_000_000_000 => Some(short(parameters as f64 / 1e6, "M")),
        _ => Some(short(parameters as f64 / 1e9, "B")),
    }
}

/// Whole bits of a quantization: the number in its name, else the average.
fn bits(name: &str, average: f64) -> Option<u64> {
    let digits: String = name
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let average = Some(average.round()).filter(|bits| *bits >= 1.0 && *bits <= 64.0);
    digits
        .parse()
        .ok()
        .filter(|bits| (1..=64).contains(bits))
        .or_else(|| average.map(|bits| bits as u64))
        .filter(|_| !name.is_empty() && name != "unknown")
}

/// Memory that a load would take (`estimateModelUsage`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelUse {
    /// Bytes of the weights.
    pub model: u64,
    /// Bytes of the context; `None`: the header does not say.
    pub context: Option<u64>,
    /// Share of the weights in GPU memory, in thousandths.
    pub on_gpu: u64,
    /// It fits into what is free.
    pub fits: bool,
}

/// The result of `estimateModelUsage`.
pub fn usage_estimate(usage: ModelUse) -> Value {
    let context = usage.context.unwrap_or(0);
    let gpu = |bytes: u64| bytes / 1000 * usage.on_gpu.min(1000);
    json!({
        "memory": {
            "confidence": if usage.context.is_some() { "high" } else { "low" },
            "modelVramBytes": gpu(usage.model),
            "contextVramBytes": gpu(context),
            "totalVramBytes": gpu(usage.model) + gpu(context),
            "modelBytes": usage.model,
            "contextBytes": context,
            "totalBytes": usage.model.saturating_add(context),
        },
        "passesGuardrails": usage.fits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_bits() {
        for (name, average, expected) in [
            ("Q4_K_M", 4.58, Some(4)),
            ("F16", 16.0, Some(16)),
            ("BF16", 16.0, Some(16)),
            ("IQ3_XXS", 3.06, Some(3)),
            ("MXFP4", 4.25, Some(4)),
            ("unknown", 4.5, None),
            ("", 0.0, None),
            ("weird", 4.4, Some(4)),
            ("weird", f64::NAN, None),
        ] {
            assert_eq!(bits(name, average), expected, "{name}");
        }
    }

    #[test]
    fn parameters_for_people() {
        for (count, expected) in [
            (0, None),
            (888_960, Some("889K")),
            (494_032_768, Some("494M")),
            (7_615_616_512, Some("7.6B")),
            (8_030_000_000, Some("8B")),
        ] {
            assert_eq!(params_string(count).as_deref(), expected);
        }
    }
}
