use std::fmt;

use domain::{
    ModelEntry, RunnerError,
    chat::{ChatRequest, CompletionRequest, Format, MEDIA_MARKER, Message, Part, Role, Sampling, ToolCall, ToolChoice},
};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::guard::check_schema;

/// Most alternatives per token we ask the engine for.
const MAX_LOGPROBS: u32 = 100;

/// Facts of the running instance that bound a request (promise H8).
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Context per request in tokens; the length limit is bounded to ten times this.
    pub context: Option<u32>,
}

/// Body for `/v1/chat/completions`, always streaming.
///
/// # Errors
/// `InvalidRequest` when the format's schema or the tools are over a limit (promise H8).
pub fn chat_body(request: &ChatRequest, limits: Limits) -> Result<Vec<u8>, RunnerError> {
    check(&request.format, &request.tools)?;
    Ok(crate::json::to_vec(&ChatBody {
        request,
        limits,
        generate: true,
    }))
}

/// Body for `/apply-template`; the answer is read by [`super::parse_prompt`].
///
/// # Errors
/// As [`chat_body`].
pub fn apply_template_body(request: &ChatRequest) -> Result<Vec<u8>, RunnerError> {
    check(&request.format, &request.tools)?;
    Ok(crate::json::to_vec(&ChatBody {
        request,
        limits: Limits::default(),
        generate: false,
    }))
}

/// Body for `/completion`, always streaming.
///
/// # Errors
/// As [`chat_body`].
pub fn completion_body(request: &CompletionRequest, limits: Limits) -> Result<Vec<u8>, RunnerError> {
    check(&request.format, &[])?;
    Ok(crate::json::to_vec(&CompletionBody {
        request,
        limits,
        infill: false,
    }))
}

/// Body for `/infill`, always streaming: the prompt is the text before the gap, `suffix` the text behind it.
///
/// # Errors
/// As [`chat_body`].
pub fn infill_body(request: &CompletionRequest, limits: Limits) -> Result<Vec<u8>, RunnerError> {
    check(&request.format, &[])?;
    Ok(crate::json::to_vec(&CompletionBody {
        request,
        limits,
        infill: true,
    }))
}

/// The word a model's template knows for an effort: those of harmony know three levels.
pub(crate) fn known_effort<'a>(entry: &ModelEntry, level: &'a str) -> &'a str {
    let harmony = matches!(entry.facts.architecture.as_str(), "gptoss" | "gpt-oss");
    if harmony && level == "max" { "high" } else { level }
}

/// Drops the oldest message that is neither a system message nor the last one (Ollama contract 4.2), with the tool results
/// that belong to it. False: nothing left to drop.
pub fn drop_oldest(request: &mut ChatRequest) -> bool {
    let messages = &mut request.messages;
    let last = messages.len().saturating_sub(1);
    let Some(first) = messages[..last].iter().position(|message| message.role != Role::System) else {
        return false;
    };
    let results = messages[first + 1..last]
        .iter()
        .take_while(|message| message.role == Role::Tool)
        .count();
    let orphans = if messages[first].tool_calls.is_empty() {
        0
    } else {
        results
    };
    messages.drain(first..=first + orphans);
    true
}

fn check(format: &Format, tools: &[Value]) -> Result<(), RunnerError> {
    if let Format::JsonSchema(schema) = format {
        check_schema(schema).map_err(|error| error.param("format"))?;
    }
    tools
        .iter()
        .try_for_each(check_schema)
        .map_err(|error| error.param("tools"))
}

/// The length limit to send: never beyond ten contexts, which is what "until the end" becomes too.
fn length_limit(sampling: &Sampling, limits: Limits) -> Option<i64> {
    let most = limits
        .context
        .map_or(i64::from(i32::MAX), |context| 10 * i64::from(context.max(1)));
    match sampling.max_tokens {
        Some(tokens) if tokens >= 0 => Some(tokens.min(most)),
        _ => limits.context.map(|_| most),
    }
}

fn sampling<M: SerializeMap>(map: &mut M, sampling: &Sampling, limits: Limits, length: &str) -> Result<(), M::Error> {
    if let Some(tokens) = length_limit(sampling, limits) {
        map.serialize_entry(length, &tokens)?;
    }
    if sampling.stop.iter().any(|stop| !stop.is_empty()) {
        // An empty stop text would end every answer at once.
        let stops: Vec<&String> = sampling.stop.iter().filter(|stop| !stop.is_empty()).collect();
        map.serialize_entry("stop", &stops)?;
    }
    if let Some(seed) = sampling.seed.filter(|seed| *seed >= 0) {
        // The engine's seeds have 32 bits, and the highest stands for "random".
        map.serialize_entry("seed", &(seed.unsigned_abs() % u64::from(u32::MAX)))?;
    }
    for (name, value) in &sampling.fields {
        let bounded = match name.as_str() {
            "n_keep" => value
                .as_i64()
                .map(|n| n.clamp(-1, i64::from(limits.context.unwrap_or(u32::MAX >> 1)))),
            "n_discard" => value
                .as_i64()
                .map(|n| n.clamp(0, i64::from(limits.context.unwrap_or(u32::MAX >> 1)))),
            "repeat_last_n" => match value.as_i64() {
                // Negative: the whole context. The engine refuses negative numbers.
                Some(n) if n < 0 => match limits.context {
                    Some(context) => Some(i64::from(context)),
                    None => continue,
                },
                n => n.map(|n| n.min(i64::from(i32::MAX))),
            },
            "top_k" => value.as_i64().map(|n| n.clamp(0, i64::from(i32::MAX))),
            "id_slot" => continue,
            _ => None,
        };
        match bounded {
            Some(number) => map.serialize_entry(name, &number)?,
            None => map.serialize_entry(name, value)?,
        }
    }
    Ok(())
}

struct ChatBody<'a> {
    request: &'a ChatRequest,
    limits: Limits,
    generate: bool,
}

impl Serialize for ChatBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = self.request;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("messages", &Messages(&request.messages))?;
        // Tools that must not be called are left out: the engine would show them to the model all the same, and pass on as text
        // what looks like a call.
        if !request.tools.is_empty() && request.tool_choice != ToolChoice::None {
            // The engine knows no choice of one function: offering only that one and asking for a call is the same.
            let (offered, choice) = match &request.tool_choice {
                ToolChoice::Auto | ToolChoice::None => (Offered::All(&request.tools), None),
                ToolChoice::Required => (Offered::All(&request.tools), Some("required")),
                ToolChoice::Function(name) => (Offered::One(&request.tools, name), Some("required")),
            };
            map.serialize_entry("tools", &offered)?;
            if let Some(choice) = choice {
                map.serialize_entry("tool_choice", choice)?;
            }
            map.serialize_entry("parallel_tool_calls", &request.parallel_tool_calls.unwrap_or(true))?;
        }
        match &request.format {
            Format::Text => {}
            Format::JsonObject => map.serialize_entry("response_format", &json!({"type": "json_object"}))?,
            Format::JsonSchema(schema) => map.serialize_entry(
                "response_format",
                &json!({"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}),
            )?,
        }
        let thinking = &request.thinking;
        if thinking.enabled.is_some() || thinking.effort.is_some() {
            let mut kwargs = serde_json::Map::new();
            if let Some(enabled) = thinking.enabled {
                kwargs.insert("enable_thinking".into(), enabled.into());
            }
            if let Some(effort) = &thinking.effort {
                kwargs.insert("reasoning_effort".into(), effort.as_str().into());
            }
            map.serialize_entry("chat_template_kwargs", &kwargs)?;
        }
        if self.generate {
            if let Some(top) = request.logprobs {
                map.serialize_entry("logprobs", &true)?;
                map.serialize_entry("top_logprobs", &top.clamp(1, MAX_LOGPROBS))?;
            }
            sampling(&mut map, &request.sampling, self.limits, "max_tokens")?;
            map.serialize_entry("cache_prompt", &true)?;
            map.serialize_entry("stream", &true)?;
        }
        map.end()
    }
}

/// The tools a request offers.
enum Offered<'a> {
    All(&'a [Value]),
    One(&'a [Value], &'a str),
}

impl Serialize for Offered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(tools) => serializer.collect_seq(*tools),
            Self::One(tools, name) => {
                serializer.collect_seq(tools.iter().filter(|tool| tool["function"]["name"] == **name))
            }
        }
    }
}

struct Messages<'a>(&'a [Message]);

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(WireMessage))
    }
}

struct WireMessage<'a>(&'a Message);

impl Serialize for WireMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &message.role)?;
        match message.parts.as_slice() {
            [] => map.serialize_entry("content", "")?,
            [Part::Text(text)] => map.serialize_entry("content", text)?,
            parts => map.serialize_entry("content", &Parts(parts))?,
        }
        if let Some(reasoning) = &message.reasoning {
            map.serialize_entry("reasoning_content", reasoning)?;
        }
        if !message.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &Calls(&message.tool_calls))?;
        }
        if let Some(id) = &message.tool_call_id {
            map.serialize_entry("tool_call_id", id)?;
        }
        if let Some(name) = &message.name {
            map.serialize_entry("name", name)?;
        }
        map.end()
    }
}

struct Parts<'a>(&'a [Part]);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for part in self.0 {
            match part {
                Part::Text(text) => seq.serialize_element(&Typed("text", "text", text))?,
                Part::Image { mime, base64 } => {
                    seq.serialize_element(&Typed("image_url", "image_url", &Url(mime, base64)))?;
                }
                Part::Audio { format, base64 } => {
                    seq.serialize_element(&Typed("input_audio", "input_audio", &Sound(format, base64)))?;
                }
            }
        }
        seq.end()
    }
}

/// `{"type": t, name: value}`.
struct Typed<'a, T: ?Sized>(&'static str, &'static str, &'a T);

impl<T: Serialize + ?Sized> Serialize for Typed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", self.0)?;
        map.serialize_entry(self.1, self.2)?;
        map.end()
    }
}

/// An image as a data URL, written without joining its (large) parts first.
struct Url<'a>(&'a str, &'a str);

impl Serialize for Url<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Data<'a>(&'a str, &'a str);
        impl fmt::Display for Data<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "data:{};base64,{}", self.0, self.1)
            }
        }
        impl Serialize for Data<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("url", &Data(self.0, self.1))?;
        map.end()
    }
}

struct Sound<'a>(&'a str, &'a str);

impl Serialize for Sound<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("data", self.1)?;
        map.serialize_entry("format", self.0)?;
        map.end()
    }
}

struct Calls<'a>(&'a [ToolCall]);

impl Serialize for Calls<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for call in self.0 {
            seq.serialize_element(&json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }))?;
        }
        seq.end()
    }
}

struct CompletionBody<'a> {
    request: &'a CompletionRequest,
    limits: Limits,
    infill: bool,
}

impl Serialize for CompletionBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = self.request;
        let mut map = serializer.serialize_map(None)?;
        if self.infill {
            map.serialize_entry("input_prefix", &request.prompt)?;
            map.serialize_entry("input_suffix", request.suffix.as_deref().unwrap_or_default())?;
        } else if request.images.is_empty() {
            map.serialize_entry("prompt", &request.prompt)?;
        } else {
            let markers = MEDIA_MARKER.repeat(request.images.len());
            let prompt = format!("{markers}{}", request.prompt);
            map.serialize_entry(
                "prompt",
                &Multimodal {
                    prompt: &prompt,
                    images: &request.images,
                },
            )?;
        }
        match &request.format {
            Format::Text => {}
            Format::JsonObject => map.serialize_entry("json_schema", &json!({"type": "object"}))?,
            Format::JsonSchema(schema) => map.serialize_entry("json_schema", schema)?,
        }
        if let Some(top) = request.logprobs {
            map.serialize_entry("n_probs", &top.clamp(1, MAX_LOGPROBS))?;
        }
        sampling(&mut map, &request.sampling, self.limits, "n_predict")?;
        map.serialize_entry("cache_prompt", &true)?;
        map.serialize_entry("stream", &true)?;
        map.end()
    }
}

struct Multimodal<'a> {
    prompt: &'a str,
    images: &'a [String],
}

impl Serialize for Multimodal<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("prompt_string", self.prompt)?;
        map.serialize_entry("multimodal_data", self.images)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
