//! Key-value configurations (contract 11.3) and what their load keys mean (contract 12).

use domain::{InstanceView, LaunchOptions, ModelEntry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Domain;

/// One setting.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
struct Field {
    key: String,
    #[serde(default)]
    value: Value,
}

/// Settings by key, in order.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
pub struct KvConfig {
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    layer_name: String,
    #[serde(default)]
    config: KvConfig,
}

/// Layers of settings; a later one wins.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct KvStack {
    #[serde(default)]
    layers: Vec<Layer>,
}

impl KvStack {
    /// All layers in one.
    pub fn collapse(&self) -> KvConfig {
        let mut all = KvConfig::default();
        for field in self.layers.iter().flat_map(|layer| &layer.config.fields) {
            all.set(&field.key, field.value.clone());
        }
        all
    }

    /// Is there a layer of this name?
    pub fn has_layer(&self, name: &str) -> bool {
        self.layers.iter().any(|layer| layer.layer_name == name)
    }
}

impl KvConfig {
    /// Sets one.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.fields.iter_mut().find(|field| field.key == key) {
            Some(field) => field.value = value,
            None => self.fields.push(Field {
                key: key.to_owned(),
                value,
            }),
        }
    }

    /// Sets one that is not set yet.
    pub fn default_to(&mut self, key: &str, value: Value) {
        if self.get(key).is_none() {
            self.set(key, value);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|field| field.key != key);
    }

    /// A value; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields
            .iter()
            .find(|field| field.key == key)
            .map(|field| &field.value)
            .filter(|value| !value.is_null())
    }

    /// A value with a check box, or one without: `Some(None)` when the box is not ticked. Python ticks the box of a value
    /// that the caller set to false.
    pub fn checkbox(&self, key: &str) -> Option<Option<&Value>> {
        let value = self.get(key)?;
        match value.get("checked") {
            Some(Value::Bool(true)) => {
                let inner = value.get("value");
                Some(inner.filter(|inner| !inner.is_null() && **inner != Value::Bool(false)))
            }
            Some(_) => Some(None),
            None if *value == Value::Bool(false) => Some(None),
            None => Some(Some(value)),
        }
    }

    /// The ticked value.
    pub(super) fn checked(&self, key: &str) -> Option<&Value> {
        self.checkbox(key).flatten()
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.key.as_str())
    }
}

/// What a load configuration asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadWish {
    /// Options of the engine.
    pub launch: LaunchOptions,
    /// Keys that have no effect here, for the log.
    pub ignored: Vec<String>,
}

fn whole(value: &Value) -> Option<u32> {
    value
        .as_f64()
        .filter(|number| *number >= 0.0 && *number <= f64::from(u32::MAX))
        .map(|number| number as u32)
}

/// Reads a load configuration. What the engine cannot honour is ignored, never an error (contract 12).
pub fn load_wish(config: &KvConfig, domain: Domain, entry: &ModelEntry) -> LoadWish {
    let mut launch = LaunchOptions::default();
    let mut ignored = Vec::new();
    let own = format!("{}.load.", domain.as_str());
    let mut cache_types = Vec::new();
    for key in config.keys() {
        let Some(value) = config.get(key) else { continue };
        let checked = config.checked(key);
        let name = key
            .strip_prefix(&own)
            .or_else(|| key.strip_prefix("load."))
            .unwrap_or_default();
        match name {
            "contextLength" => launch.context = whole(value).filter(|length| *length > 0),
            "llama.acceleration.offloadRatio" => launch.gpu_layers = layers(value, entry),
            "llama.evalBatchSize" => launch.batch = whole(value).filter(|size| *size > 0),
            "llama.flashAttention" => {
                launch.flash_attention = value.as_bool().map(|on| if on { "on" } else { "off" }.to_owned());
            }
            "llama.tryMmap" => launch.mmap = value.as_bool(),
            "offloadKVCacheToGpu" => launch.kv_offload = value.as_bool(),
            "numExperts" => launch.experts = whole(value).filter(|experts| *experts > 0),
            "llama.kCacheQuantizationType" | "llama.vCacheQuantizationType" => {
                cache_types.extend(checked.and_then(Value::as_str).map(str::to_owned));
            }
            "numParallelSessions" => launch.parallel = whole(value).filter(|sessions| *sessions > 0),
            "llama.cpuThreadPoolSize" => launch.threads = whole(value).filter(|threads| *threads > 0),
            "gpuSplitConfig" => {
                let first = value.get("priority").and_then(|list| list.get(0)).and_then(whole);
                launch.main_gpu = first.filter(|_| value["strategy"] == "priorityOrder");
            }
            // A request's seed counts; the engine has none of its own that would matter.
            "seed" => {}
            _ => ignored.push(key.to_owned()),
        }
    }
    // The engine has one type for both halves of the cache.
    cache_types.dedup();
    match cache_types.as_slice() {
        [] => {}
        [one] => launch.kv_cache_type = Some(one.clone()),
        _ => ignored.push(format!("{own}llama.vCacheQuantizationType")),
    }
    LoadWish { launch, ignored }
}

/// `"max"` leaves it to the engine, which takes as many layers as fit.
fn layers(ratio: &Value, entry: &ModelEntry) -> Option<u32> {
    if ratio == "off" {
        return Some(0);
    }
    let blocks = entry.facts.block_count.unwrap_or(0) + 1;
    let ratio = ratio.as_f64().filter(|ratio| (0.0..1.0).contains(ratio))?;
    Some((ratio * f64::from(blocks)).round() as u32)
}

/// The load configuration in effect (`getLoadConfig`); always with the context length (contract 10.4).
pub fn load_config(entry: &ModelEntry, domain: Domain, view: &InstanceView) -> KvConfig {
    let mut config = KvConfig::default();
    let launch = &view.launch;
    let options = &launch.options;
    let mut set = |name: &str, value: Value| config.set(&format!("{}.load.{name}", domain.as_str()), value);
    set("contextLength", launch.context.into());
    if let Some(layers) = options.gpu_layers {
        let blocks = entry.facts.block_count.unwrap_or(0) + 1;
        let ratio = match layers {
            0 => json!("off"),
            n if n >= blocks => json!("max"),
            n => json!(f64::from(n) / f64::from(blocks)),
        };
        set("llama.acceleration.offloadRatio", ratio);
    }
    if let Some(batch) = options.batch {
        set("llama.evalBatchSize", batch.into());
    }
    if let Some(mmap) = options.mmap {
        set("llama.tryMmap", mmap.into());
    }
    if domain == Domain::Llm {
        set("numParallelSessions", launch.parallel.into());
        if let Some(on) = options.kv_offload {
            set("offloadKVCacheToGpu", on.into());
        }
        if let Some(experts) = options.experts {
            set("numExperts", experts.into());
        }
        if let Some(on) = options.flash_attention.as_deref().filter(|word| *word != "auto") {
            set("llama.flashAttention", (on == "on").into());
        }
        if let Some(kind) = &options.kv_cache_type {
            for half in ["k", "v"] {
                set(
                    &format!("llama.{half}CacheQuantizationType"),
                    json!({"checked": true, "value": kind}),
                );
            }
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(layers: &Value) -> KvStack {
        serde_json::from_value(json!({ "layers": layers })).unwrap()
    }

    #[test]
    fn later_layers_win() {
        let stack = stack(&json!([
            {"layerName": "instance", "config": {"fields": [{"key": "a", "value": 1}, {"key": "b", "value": null}]}},
            {"layerName": "apiOverride", "config": {"fields": [{"key": "a", "value": 2}, {"key": "c"}]}},
        ]));
        let config = stack.collapse();
        assert_eq!(config.get("a"), Some(&json!(2)));
        assert_eq!((config.get("b"), config.get("c")), (None, None));
        assert!(stack.has_layer("instance") && !stack.has_layer("preset"));
    }

    #[test]
    fn check_boxes() {
        let mut config = KvConfig::default();
        for (value, expected) in [
            (json!({"checked": true, "value": 5}), Some(Some(json!(5)))),
            (json!({"checked": false, "value": 5}), Some(None)),
            (json!({"checked": true}), Some(None)),
            (json!({"checked": true, "value": false}), Some(None)),
            (json!(false), Some(None)),
            (json!(7), Some(Some(json!(7)))),
        ] {
            config.set("k", value);
            assert_eq!(config.checkbox("k").map(Option::<&Value>::cloned), expected);
        }
        assert_eq!(config.checkbox("other"), None);
    }
}
