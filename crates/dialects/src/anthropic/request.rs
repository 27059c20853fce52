use domain::{
    Capability, ErrorKind, ModelEntry, RunnerError,
    chat::{ChatRequest, Format, Part, Sampling, Thinking, ToolChoice},
};
use serde_json::{Map, Value, json};

use super::content;
use crate::engine::known_effort;

/// A parsed `/v1/messages` or `/v1/messages/count_tokens` body.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// `model` as written; replies repeat it. Empty only when tokens are counted.
    pub model: String,
    /// `stream`, false when absent.
    pub stream: bool,
    /// The request speaks of caching, so its usage tells cached tokens apart.
    pub caches: bool,
    /// What the model thinks is not to be shown (`thinking.display`).
    pub hides_thinking: bool,
    request: ChatRequest,
    thinks: Thinks,
}

/// `thinking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinks {
    /// The template's default.
    Unsaid,
    Off,
    On {
        budget: Option<i64>,
    },
}

/// A chat to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What to send with [`crate::engine::chat_body`].
    pub request: ChatRequest,
    /// A guess at the tokens of the prompt, for an engine that does not tell them before the answer.
    pub estimated_tokens: u64,
}

impl Call {
    /// Parses a `/v1/messages` body.
    ///
    /// # Errors
    /// `InvalidRequest` naming the field.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = fields(body)?;
        let model = model(&mut fields)?;
        if model.is_empty() {
            return Err(RunnerError::invalid("model is required").param("model"));
        }
        let max_tokens = fields.remove("max_tokens").filter(|value| !value.is_null());
        let Some(max_tokens) = max_tokens.as_ref().and_then(whole).filter(|tokens| *tokens > 0) else {
            return Err(RunnerError::invalid("max_tokens is required and must be positive").param("max_tokens"));
        };
        let mut call = Self::rest(fields, model)?;
        call.caches = memchr::memmem::find(body, b"\"cache_control\"").is_some();
        call.request.sampling.max_tokens = Some(max_tokens);
        Ok(call)
    }

    /// Parses a `/v1/messages/count_tokens` body: neither `max_tokens` nor `model` must be there.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_count(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = fields(body)?;
        let model = model(&mut fields)?;
        Self::rest(fields, model)
    }

    fn rest(mut fields: Map<String, Value>, model: String) -> Result<Self, RunnerError> {
        let Some(messages) = fields.remove("messages").filter(|value| !value.is_null()) else {
            return Err(RunnerError::invalid("messages is required").param("messages"));
        };
        let Value::Array(messages) = messages else {
            return Err(wrong("messages", "a list"));
        };
        let stream = match fields.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return Err(wrong("stream", "a boolean")),
        };
        let messages = content::conversation(fields.remove("system"), messages)?;
        let (tools, server_tools) = tools(fields.remove("tools"))?;
        let (tool_choice, parallel_tool_calls) = tool_choice(fields.get("tool_choice"), &tools, &server_tools)?;
        let (format, effort) = output(&mut fields)?;
        Ok(Self {
            model,
            stream,
            caches: false,
            hides_thinking: fields
                .get("thinking")
                .is_some_and(|thinking| thinking["display"] == "omitted"),
            thinks: thinks(fields.get("thinking"))?,
            request: ChatRequest {
                messages,
                // A tool that must not be called is not shown: templates ignore the choice and models call what they see.
                tools: if tool_choice == ToolChoice::None {
                    Vec::new()
                } else {
                    tools
                },
                tool_choice,
                parallel_tool_calls,
                format,
                sampling: sampling(&mut fields)?,
                thinking: Thinking { enabled: None, effort },
                ..ChatRequest::default()
            },
        })
    }

    /// The rest of the checks, now that the model is known.
    ///
    /// # Errors
    /// `NotCapable` for images or tools that the model cannot take.
    pub fn plan(self, entry: &ModelEntry) -> Result<Job, RunnerError> {
        let mut request = self.request;
        let lacks = |what: &str, param: &str| {
            let message = format!("{:?} does not support {what}", entry.key.as_str());
            Err(RunnerError::new(ErrorKind::NotCapable, message).param(param))
        };
        if !entry.can(Capability::Chat) && !entry.can(Capability::Completion) {
            return lacks("chat", "model");
        }
        let images = request.messages.iter().flat_map(|message| &message.parts);
        if !entry.can(Capability::Vision) && images.clone().any(|part| matches!(part, Part::Image { .. })) {
            return lacks("image input", "messages");
        }
        if entry.can(Capability::Thinking) {
            match self.thinks {
                Thinks::Unsaid => {}
                Thinks::Off => request.thinking.enabled = Some(false),
                Thinks::On { budget } => {
                    request.thinking.enabled = Some(true);
                    if let Some(budget) = budget {
                        let fields = &mut request.sampling.fields;
                        fields.insert("thinking_budget_tokens".into(), budget.into());
                    }
                }
            }
            request.thinking.effort = request
                .thinking
                .effort
                .map(|level| known_effort(entry, &level).to_owned());
        } else {
            // Coding agents ask every model to think; one that cannot just answers.
            request.thinking = Thinking::default();
        }
        let estimated_tokens = estimate(&request);
        let fields = &mut request.sampling.fields;
        // The first event names the tokens of the prompt before the engine reads them.
        fields.insert("return_progress".into(), true.into());
        if !request.sampling.stop.is_empty() {
            // Only then does the engine say which stop text it met.
            fields.insert("verbose".into(), true.into());
        }
        Ok(Job {
            request,
            estimated_tokens,
        })
    }
}

/// Four bytes of text to a token, 768 tokens to an image.
fn estimate(request: &ChatRequest) -> u64 {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let (mut bytes, mut images) = (0usize, 0u64);
    for part in parts {
        match part {
            Part::Text(text) => bytes += text.len(),
            Part::Image { .. } | Part::Audio { .. } => images += 1,
        }
    }
    for call in request.messages.iter().flat_map(|message| &message.tool_calls) {
        bytes += call.name.len() + call.arguments.len();
    }
    bytes += request.tools.iter().map(|tool| tool.to_string().len()).sum::<usize>();
    let frames = 4 * request.messages.len() as u64;
    (bytes as u64).div_ceil(4) + frames + images * 768 + 1
}

fn fields(body: &[u8]) -> Result<Map<String, Value>, RunnerError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(RunnerError::invalid("The request body must be a JSON object.")),
        Err(error) if error.is_eof() && body.trim_ascii().is_empty() => Err(RunnerError::invalid(
            "The request body is empty; a JSON object is expected.",
        )),
        Err(error) => Err(RunnerError::invalid(format!(
            "The request body is not valid JSON: {error}"
        ))),
    }
}

pub(super) fn wrong(field: &str, wanted: &str) -> RunnerError {
    let param = field.split('.').next().unwrap_or(field);
    RunnerError::invalid(format!("{field}: must be {wanted}")).param(param)
}

fn model(fields: &mut Map<String, Value>) -> Result<String, RunnerError> {
    match fields.remove("model") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(model)) => Ok(model),
        Some(_) => Err(wrong("model", "a string")),
    }
}

/// A number without a fraction, however it is written.
fn whole(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64))
}

fn sampling(fields: &mut Map<String, Value>) -> Result<Sampling, RunnerError> {
    let mut sampling = Sampling::default();
    match fields.remove("stop_sequences") {
        None | Some(Value::Null) => {}
        Some(Value::Array(stops)) => {
            for stop in stops {
                match stop {
                    Value::String(stop) if stop.is_empty() => {}
                    Value::String(stop) => sampling.stop.push(stop),
                    _ => return Err(wrong("stop_sequences", "a list of strings")),
                }
            }
        }
        Some(_) => return Err(wrong("stop_sequences", "a list of strings")),
    }
    for name in ["temperature", "top_p"] {
        match fields.remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::Number(number)) => _ = sampling.fields.insert(name.into(), Value::Number(number)),
            Some(_) => return Err(wrong(name, "a number")),
        }
    }
    match fields.remove("top_k") {
        None | Some(Value::Null) => {}
        Some(value) => {
            let number = whole(&value).ok_or_else(|| wrong("top_k", "an integer"))?;
            sampling.fields.insert("top_k".into(), number.into());
        }
    }
    Ok(sampling)
}

fn thinks(value: Option<&Value>) -> Result<Thinks, RunnerError> {
    let thinking = match value {
        None | Some(Value::Null) => return Ok(Thinks::Unsaid),
        Some(Value::Object(thinking)) => thinking,
        Some(_) => return Err(wrong("thinking", "an object")),
    };
    match thinking.get("type").and_then(Value::as_str) {
        Some("enabled") => Ok(Thinks::On {
            budget: thinking
                .get("budget_tokens")
                .and_then(whole)
                .filter(|tokens| *tokens > 0),
        }),
        Some("adaptive" | "between_tools") => Ok(Thinks::On { budget: None }),
        Some("disabled") => Ok(Thinks::Off),
        _ => Err(wrong(
            "thinking.type",
            "'enabled', 'disabled', 'adaptive' or 'between_tools'",
        )),
    }
}

/// `output_config`: answer format and effort.
fn output(fields: &mut Map<String, Value>) -> Result<(Format, Option<String>), RunnerError> {
    let mut config = match fields.remove("output_config") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(wrong("output_config", "an object")),
    };
    let effort = match config.get("effort").filter(|effort| !effort.is_null()) {
        None => None,
        Some(effort) => match effort.as_str() {
            Some(level @ ("low" | "medium" | "high" | "max")) => Some(level.to_owned()),
            Some("xhigh") => Some("max".to_owned()),
            _ => {
                return Err(wrong(
                    "output_config.effort",
                    "'low', 'medium', 'high', 'xhigh' or 'max'",
                ));
            }
        },
    };
    let format = config.remove("format").or_else(|| fields.remove("output_format"));
    let format = match format {
        None | Some(Value::Null) => Format::Text,
        Some(Value::Object(mut format)) => {
            let schema = format.remove("schema");
            match (format.get("type").and_then(Value::as_str), schema) {
                (Some("json_schema"), Some(schema @ Value::Object(_))) => Format::JsonSchema(schema),
                _ => {
                    return Err(wrong(
                        "output_config.format",
                        "{\"type\": \"json_schema\", \"schema\": {…}}",
                    ));
                }
            }
        }
        Some(_) => return Err(wrong("output_config.format", "an object")),
    };
    Ok((format, effort))
}

/// Tools that Anthropic's own servers run. There are none here, so they are not offered to the model.
const SERVER_TOOLS: [&str; 4] = ["web_search_", "web_fetch_", "code_execution_", "tool_search_"];

/// Tools in OpenAI's form, and the names of those that only Anthropic's servers could run.
fn tools(value: Option<Value>) -> Result<(Vec<Value>, Vec<String>), RunnerError> {
    let list = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong("tools", "a list")),
    };
    let (mut tools, mut server_tools) = (Vec::with_capacity(list.len()), Vec::new());
    for (at, tool) in list.into_iter().enumerate() {
        let Value::Object(mut tool) = tool else {
            return Err(wrong(&format!("tools.{at}"), "an object"));
        };
        let name = match tool.remove("name") {
            Some(Value::String(name)) if !name.is_empty() => name,
            _ => return Err(wrong(&format!("tools.{at}.name"), "a string")),
        };
        let schema = tool.remove("input_schema");
        let description = tool.remove("description").filter(Value::is_string);
        let kind = tool.get("type").and_then(Value::as_str).unwrap_or("custom");
        if SERVER_TOOLS.iter().any(|server| kind.starts_with(server)) {
            server_tools.push(name);
            continue;
        }
        let schema = match schema {
            Some(schema @ Value::Object(_)) => schema,
            None if kind != "custom" => {
                return Err(RunnerError::invalid(format!(
                    "tools.{at}: only Anthropic's models know the tool type '{kind}'; give the tool an input_schema of its own"
                ))
                .param("tools"));
            }
            _ => return Err(wrong(&format!("tools.{at}.input_schema"), "an object")),
        };
        let mut function = json!({"name": name, "parameters": schema});
        if let Some(description) = description {
            function["description"] = description;
        }
        tools.push(json!({"type": "function", "function": function}));
    }
    Ok((tools, server_tools))
}

fn tool_choice(
    value: Option<&Value>,
    tools: &[Value],
    server_tools: &[String],
) -> Result<(ToolChoice, Option<bool>), RunnerError> {
    let choice = match value {
        None | Some(Value::Null) => return Ok((ToolChoice::Auto, None)),
        Some(Value::Object(choice)) => choice,
        Some(_) => return Err(wrong("tool_choice", "an object")),
    };
    let parallel = choice
        .get("disable_parallel_tool_use")
        .and_then(Value::as_bool)
        .map(|disabled| !disabled);
    let choice = match choice.get("type").and_then(Value::as_str) {
        Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("any") if tools.is_empty() => {
            return Err(
                RunnerError::invalid("tool_choice: 'any' needs at least one tool that can be called here")
                    .param("tool_choice"),
            );
        }
        Some("any") => ToolChoice::Required,
        Some("tool") => {
            let name = choice.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| wrong("tool_choice.name", "a string"))?;
            if !tools.iter().any(|tool| tool["function"]["name"] == *name) {
                let why = if server_tools.iter().any(|tool| tool == name) {
                    "runs on Anthropic's servers and is not available here"
                } else {
                    "is not in tools"
                };
                return Err(RunnerError::invalid(format!("tool_choice: '{name}' {why}")).param("tool_choice"));
            }
            ToolChoice::Function(name.to_owned())
        }
        _ => return Err(wrong("tool_choice.type", "'auto', 'any', 'tool' or 'none'")),
    };
    Ok((choice, parallel))
}
