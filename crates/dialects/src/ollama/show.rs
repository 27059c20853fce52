use std::fmt::Write;

use domain::chat::{Message, Part, Role};
use domain::{ModelEntry, RunnerError};
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::lists::{capability_words, details, display_name};
use crate::{json::to_vec, rfc3339_seconds};

/// Metadata keys that are shown elsewhere or not at all (contract 3.3).
const HIDDEN: [&str; 2] = ["general.name", "tokenizer.chat_template"];

/// A parsed `/api/show` body.
#[derive(Debug, Clone)]
pub struct ShowCall {
    /// `model` (or `name`).
    pub model: String,
    /// `verbose`.
    pub verbose: bool,
    /// `system`, for the rendered `modelfile`.
    pub system: Option<String>,
    /// `template`, for the rendered `modelfile`.
    pub template: Option<String>,
    /// `options`, for the rendered `modelfile`.
    pub options: Map<String, Value>,
}

/// What `/api/show` needs from the GGUF header beyond the entry's facts.
#[derive(Debug, Clone, Default)]
pub struct ModelHeader {
    /// All metadata in file order; arrays may be null unless `verbose` was asked.
    pub metadata: Map<String, Value>,
    /// The projector's metadata.
    pub projector: Option<Map<String, Value>>,
    /// `tokenizer.chat_template`.
    pub template: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// Tensors as (name, type, shape).
    pub tensors: Vec<(String, String, Vec<u64>)>,
}

impl ShowCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "ShowRequest")?;
        Ok(Self {
            model: fields.model()?,
            verbose: fields.bool("verbose")?.unwrap_or(false),
            system: fields.text("system")?,
            template: fields.text("template")?,
            options: fields.object("options")?,
        })
    }

    /// The reply. `copilot`: the user agent starts with `GitHubCopilotChat/`, whose picker shows `general.basename`.
    pub fn reply(&self, entry: &ModelEntry, header: &ModelHeader, copilot: bool) -> Vec<u8> {
        let stored = &entry.profile;
        let template = stored
            .template
            .as_deref()
            .or(header.template.as_deref())
            .unwrap_or_default();
        let system = stored.system.as_deref().unwrap_or_default();
        let license = if stored.license.is_empty() {
            header.license.clone().unwrap_or_default()
        } else {
            stored.license.join("\n")
        };
        let mut reply = Map::new();
        let mut put = |name: &str, value: Value| reply.insert(name.to_owned(), value);
        // What the request names shows here and nowhere else.
        let modelfile = modelfile(
            entry,
            self.template.as_deref().unwrap_or(template),
            self.system.as_deref().unwrap_or(system),
            &parameters(entry, &self.options),
        );
        put("modelfile", modelfile.into());
        let columns: Vec<String> = parameters(entry, &Map::new())
            .iter()
            .map(|(name, value)| format!("{name:<30} {value}"))
            .collect();
        for (name, text) in [
            ("parameters", columns.join("\n").as_str()),
            ("template", template),
            ("system", system),
            ("license", license.as_str()),
        ] {
            if !text.is_empty() {
                put(name, text.into());
            }
        }
        if !stored.messages.is_empty() {
            put("messages", stored_messages(&stored.messages));
        }
        put("details", details(entry, false));
        put("model_info", Value::Object(self.model_info(entry, header, copilot)));
        if let Some(projector) = &header.projector {
            put("projector_info", Value::Object(self.metadata(projector)));
        }
        let tensor =
            |(name, kind, shape): &(String, String, Vec<u64>)| json!({"name": name, "type": kind, "shape": shape});
        put("tensors", header.tensors.iter().map(tensor).collect());
        let words = capability_words(entry.capabilities);
        if !words.is_empty() {
            put("capabilities", json!(words));
        }
        put("modified_at", rfc3339_seconds(entry.modified).into());
        to_vec(&Value::Object(reply))
    }

    /// Always an object: the Python client requires it.
    fn model_info(&self, entry: &ModelEntry, header: &ModelHeader, copilot: bool) -> Map<String, Value> {
        let mut info = self.metadata(&header.metadata);
        if !info.contains_key("general.architecture") {
            info.insert("general.architecture".into(), entry.facts.architecture.as_str().into());
        }
        info.insert("general.parameter_count".into(), entry.facts.parameters.into());
        if let Some(length) = entry.facts.context_length {
            let key = format!("{}.context_length", entry.facts.architecture);
            info.entry(key).or_insert_with(|| length.into());
        }
        if copilot {
            info.insert("general.basename".into(), self.model.as_str().into());
        }
        info
    }

    fn metadata(&self, metadata: &Map<String, Value>) -> Map<String, Value> {
        let shown = metadata.iter().filter(|(key, _)| !HIDDEN.contains(&key.as_str()));
        shown
            .map(|(key, value)| {
                let value = if value.is_array() && !self.verbose {
                    Value::Null
                } else {
                    value.clone()
                };
                (key.clone(), value)
            })
            .collect()
    }
}

/// Name and value of each parameter, list values one by one; `given` goes before the model's own.
fn parameters(entry: &ModelEntry, given: &Map<String, Value>) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut all = entry.profile.parameters.clone();
    if let Some(context) = entry.launch.context {
        // From the model's own parameters, or from the configuration, which goes before them.
        all.insert("num_ctx".into(), context.into());
    }
    all.extend(given.clone());
    for (name, value) in &all {
        match value {
            Value::Null => {}
            Value::Array(items) => parameters.extend(items.iter().map(|item| (name.clone(), item.to_string()))),
            other => parameters.push((name.clone(), other.to_string())),
        }
    }
    parameters
}

/// Messages in the form in which Ollama shows and stores them.
pub fn stored_messages(messages: &[Message]) -> Value {
    let object = |message: &Message| json!({"role": role(message), "content": text(message)});
    messages.iter().map(object).collect()
}

fn role(message: &Message) -> &'static str {
    match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

fn text(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Image { .. } | Part::Audio { .. } => None,
    });
    texts.collect()
}

fn modelfile(entry: &ModelEntry, template: &str, system: &str, parameters: &[(String, String)]) -> String {
    let mut file = String::from("# Modelfile generated by \"ollama show\"\n");
    file.push_str("# To build a new Modelfile based on this, replace FROM with:\n");
    // Writing to a String cannot fail.
    let _ = writeln!(file, "# FROM {}\n\nFROM {}", display_name(entry), entry.path.display());
    for adapter in &entry.profile.adapters {
        let _ = writeln!(file, "ADAPTER {}", adapter.display());
    }
    if !template.is_empty() {
        let _ = writeln!(file, "TEMPLATE \"\"\"{template}\"\"\"");
    }
    if !system.is_empty() {
        let _ = writeln!(file, "SYSTEM \"\"\"{system}\"\"\"");
    }
    for (name, value) in parameters {
        let _ = writeln!(file, "PARAMETER {name} {value}");
    }
    for license in &entry.profile.license {
        let _ = writeln!(file, "LICENSE \"\"\"{license}\"\"\"");
    }
    for message in &entry.profile.messages {
        let _ = writeln!(file, "MESSAGE {} \"\"\"{}\"\"\"", role(message), text(message));
    }
    file
}
