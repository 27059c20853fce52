use domain::{Capabilities, Capability, KeepAlive, ModelEntry, ModelState};
use serde_json::{Map, Value, json};

use crate::{ModelView, json::to_vec, rfc3339_seconds};
use domain::RegistryName;

/// What "for ever" looks like in `expires_at`: 292 years ahead, as Go's longest duration gives (contract 3.2).
const FOREVER_MS: i64 = i64::MAX / 1_000_000;

/// The display form with its tag, as lists show it. Ollama's word for one of several quantizations (`base@quant`) is a
/// tag: `base:quant`, in lower case.
pub fn display_name(entry: &ModelEntry) -> String {
    shown(entry.key.as_str())
}

fn shown(key: &str) -> String {
    let tagged = key
        .split_once('@')
        .filter(|(base, quant)| !base.contains(':') && !quant.contains([':', '/', '@']))
        .map(|(base, quant)| format!("{base}:{}", quant.to_lowercase()));
    let key = tagged.as_deref().unwrap_or(key);
    match RegistryName::parse(key) {
        Some(name) => name.to_string(),
        None if key
            .rfind(':')
            .is_some_and(|colon| key.rfind('/').is_none_or(|slash| colon > slash)) =>
        {
            key.to_owned()
        }
        None => format!("{key}:latest"),
    }
}

/// Capability words as `/api/tags` and `/api/show` use them.
pub fn capability_words(capabilities: Capabilities) -> Vec<&'static str> {
    let word = |capability| match capability {
        Capability::Completion
        | Capability::Tools
        | Capability::Insert
        | Capability::Vision
        | Capability::Audio
        | Capability::Embedding
        | Capability::Rerank
        | Capability::Thinking
        // Not Ollama's words; without any, clients take a model for one that completes.
        | Capability::Transcription
        | Capability::Translation
        | Capability::Speech => Some(capability.as_str()),
        // Ollama has no word for it.
        Capability::Chat => None,
    };
    capabilities.iter().filter_map(word).collect()
}

/// A parameter count for people (contract 3.1): `8.0B`, `136.73M`, `12K`, `999`.
pub fn parameter_size(count: u64) -> String {
    let number = count as f64;
    if count >= 1_000_000_000 {
        if count.is_multiple_of(1_000_000_000) {
            format!("{}B", count / 1_000_000_000)
        } else {
            format!("{:.1}B", number / 1e9)
        }
    } else if count >= 1_000_000 {
        if count.is_multiple_of(1_000_000) {
            format!("{}M", count / 1_000_000)
        } else {
            format!("{:.2}M", number / 1e6)
        }
    } else if count >= 1000 {
        format!("{:.0}K", number / 1e3)
    } else {
        count.to_string()
    }
}

/// `details`; lists also show both lengths.
pub(super) fn details(entry: &ModelEntry, lengths: bool) -> Value {
    let facts = &entry.facts;
    let mut details = json!({
        "parent_model": entry.profile.parent.as_deref().unwrap_or_default(),
        "format": entry.format().to_lowercase(),
        "family": facts.architecture,
        "families": [facts.architecture],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": facts.quantization,
    });
    if lengths {
        for (name, length) in [
            ("context_length", facts.context_length),
            ("embedding_length", facts.embedding_length),
        ] {
            if let Some(length) = length.filter(|n| *n > 0) {
                details[name] = length.into();
            }
        }
    }
    details
}

/// `/api/tags`: newest first; unlisted models are left out, and so are those that only hear or speak: whoever reads this
/// list offers its models for chats.
pub fn tags(models: &[ModelView]) -> Vec<u8> {
    let mut listed: Vec<&ModelEntry> = models
        .iter()
        .map(|m| &*m.entry)
        .filter(|entry| !entry.unlisted && !entry.is_speech())
        .collect();
    listed.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.key.cmp(&b.key)));
    let item = |entry: &ModelEntry| {
        let name = display_name(entry);
        let mut item = Map::new();
        item.insert("name".into(), name.as_str().into());
        item.insert("model".into(), name.into());
        item.insert("modified_at".into(), rfc3339_seconds(entry.modified).into());
        item.insert("size".into(), entry.size.into());
        item.insert("digest".into(), entry.digest.as_str().into());
        item.insert("details".into(), details(entry, true));
        let words = capability_words(entry.capabilities);
        if !words.is_empty() {
            item.insert("capabilities".into(), json!(words));
        }
        Value::Object(item)
    };
    to_vec(&json!({"models": listed.into_iter().map(item).collect::<Vec<_>>()}))
}

/// `/api/ps`: what of the models of `/api/tags` is in memory, latest expiry first; `now_ms` is Unix milliseconds.
pub fn ps(models: &[ModelView], now_ms: i64) -> Vec<u8> {
    let mut loaded: Vec<(i64, Value)> = Vec::new();
    let shown = |model: &&ModelView| model.is_loaded() && !model.entry.is_speech();
    for model in models.iter().filter(shown) {
        let Some(instance) = &model.instance else { continue };
        let expires_ms = match (&model.state, instance.keep_alive, instance.expires_at_ms) {
            // Marked for unload.
            (ModelState::Draining, _, _) => now_ms,
            (_, KeepAlive::Forever, _) => now_ms.saturating_add(FOREVER_MS),
            (_, _, Some(at)) => at,
            (_, KeepAlive::For(duration), None) => now_ms.saturating_add(
                i64::try_from(duration.as_millis())
                    .unwrap_or(FOREVER_MS)
                    .min(FOREVER_MS),
            ),
        };
        let entry = &*model.entry;
        let name = display_name(entry);
        let vram = instance.vram_bytes.unwrap_or(0);
        // Before the first measurement the file's size is the best estimate.
        let size = instance
            .memory_bytes
            .map_or(entry.size, |ram| ram.saturating_add(vram))
            .max(vram);
        loaded.push((
            expires_ms,
            json!({
                "name": name,
                "model": name,
                "size": size,
                "digest": entry.digest,
                "details": details(entry, false),
                "expires_at": rfc3339_milliseconds(expires_ms),
                "size_vram": vram,
                "context_length": instance.launch.context,
            }),
        ));
    }
    loaded.sort_by_key(|(expires_ms, _)| std::cmp::Reverse(*expires_ms));
    to_vec(&json!({"models": loaded.into_iter().map(|(_, item)| item).collect::<Vec<_>>()}))
}

/// From milliseconds, because the nanoseconds of "for ever" overflow.
fn rfc3339_milliseconds(unix_ms: i64) -> String {
    let seconds = rfc3339_seconds(unix_ms.div_euclid(1000));
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), unix_ms.rem_euclid(1000))
}

/// `/api/version`. `llamarunner`: our own version, added beside (management contract 6.1).
pub fn version(version: &str, llamarunner: &str) -> Vec<u8> {
    to_vec(&json!({"version": version, "llamarunner_version": llamarunner}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_names() {
        for (key, name) in [
            ("tiny-chat", "tiny-chat:latest"),
            ("llama@Q4_K_M", "llama:q4_k_m"),
            ("bob/llama@q8_0", "bob/llama:q8_0"),
            ("a:b@c", "a:b@c"),
            ("me:mine", "me:mine"),
            ("ümlaut@Q4", "ümlaut:q4"),
        ] {
            assert_eq!(shown(key), name, "{key}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (count, text) in [
            (8_030_261_248, "8.0B"),
            (8_000_000_000, "8B"),
            (136_727_040, "136.73M"),
            (22_000_000, "22M"),
            (888_960, "889K"),
            (999, "999"),
        ] {
            assert_eq!(parameter_size(count), text);
        }
    }
}
