use domain::RunnerError;
use domain::chat::{ChatRequest, Format, Message, Role, Sampling, Thinking, ToolChoice};
use serde_json::{Map, Value, json};

use super::tools::{self, Namespaces};
use super::{ReasoningForm, input};
use crate::openai::MAX_TOP_LOGPROBS;
use crate::openai::fields::{Fields, invalid, missing, unsupported};

/// Members that the engine's samplers know by the same name; OpenAI's API has only the first two.
const SAMPLERS: [&str; 9] = [
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "top_k",
    "min_p",
    "repeat_penalty",
    "logit_bias",
    "typical_p",
];

/// What the port adds to a request that does not say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults {
    /// Ollama's port: 1.0.
    pub temperature: Option<f64>,
    /// How reasoning is shown unless the request asks for summaries.
    pub reasoning: ReasoningForm,
}

/// A parsed request of `/v1/responses`.
#[derive(Debug, Clone)]
pub struct ResponsesCall {
    /// The model's name as the client wrote it.
    pub model: Option<String>,
    /// Events instead of one object.
    pub stream: bool,
    /// Keep the answer.
    pub store: bool,
    /// The answer this one continues.
    pub previous: Option<String>,
    /// Leave the oldest messages out rather than refuse a conversation that is too long.
    pub truncate: bool,
    /// What this turn adds to the conversation.
    pub input: Vec<Message>,
    /// The same as items.
    pub(super) items: Vec<Value>,
    /// What the answer repeats of the request.
    pub(super) echo: Map<String, Value>,
    pub(super) namespaces: Namespaces,
    pub(super) reasoning: ReasoningForm,
    /// Reasoning items carry `encrypted_content`.
    pub(super) sealed: bool,
    instructions: Option<Message>,
    request: ChatRequest,
}

impl ResponsesCall {
    /// Reads a request.
    ///
    /// # Errors
    /// `InvalidRequest` with `param` and `code`; what would change the answer and cannot be honoured is named.
    pub fn parse(body: &[u8], defaults: Defaults) -> Result<Self, RunnerError> {
        let Value::Object(members) =
            serde_json::from_slice(body).map_err(|error| RunnerError::invalid(format!("Invalid JSON: {error}")))?
        else {
            return Err(RunnerError::invalid("A JSON object is expected."));
        };
        let fields = Fields::of(&members, "");
        refuse(&fields)?;
        let previous = fields.text("previous_response_id")?.filter(|id| !id.is_empty());
        let items = match fields.get("input") {
            Some(value) => input::items(value)?,
            None if previous.is_some() => Vec::new(),
            None => return Err(missing("input")),
        };
        if items.is_empty() && previous.is_none() {
            return Err(invalid("input", "'input' must not be empty"));
        }
        let offered = tools::parse(&fields)?;
        let (thinking, summary) = reasoning(&fields)?;
        let format = format(&fields)?;
        let logprobs = logprobs(&fields)?;
        let mut sampling = sampling(&fields)?;
        if let Some(temperature) = defaults.temperature {
            let entry = sampling.fields.entry("temperature");
            entry.or_insert_with(|| temperature.into());
        }
        let truncate = match fields.text("truncation")? {
            None | Some("disabled") => false,
            Some("auto") => true,
            Some(other) => {
                return Err(invalid(
                    "truncation",
                    format!("Invalid 'truncation': '{other}'. Supported values: auto, disabled."),
                ));
            }
        };
        let parallel = fields.boolean("parallel_tool_calls")?;
        let store = fields.boolean("store")?.unwrap_or(true);
        let instructions = instructions(&fields)?;
        Ok(Self {
            model: fields.text("model")?.map(str::to_owned),
            stream: fields.boolean("stream")?.unwrap_or(false),
            store,
            previous: previous.map(str::to_owned),
            truncate,
            input: input::messages(&items)?,
            items,
            echo: echo(&members, &sampling, &offered.choice, store),
            namespaces: offered.namespaces,
            reasoning: if summary {
                ReasoningForm::Summary
            } else {
                defaults.reasoning
            },
            sealed: included(&fields, "reasoning.encrypted_content"),
            instructions,
            request: ChatRequest {
                tools: offered.tools,
                tool_choice: offered.choice,
                parallel_tool_calls: parallel,
                format,
                sampling,
                thinking,
                logprobs,
                ..ChatRequest::default()
            },
        })
    }

    /// The whole conversation: instructions (never those of earlier turns), what came before, what this turn adds.
    pub fn chat(&self, earlier: Vec<Message>) -> ChatRequest {
        let mut request = self.request.clone();
        request.messages = self.instructions.iter().cloned().collect();
        request.messages.extend(earlier);
        request.messages.extend(self.input.iter().cloned());
        request
    }
}

/// Fields that would change the answer and that we cannot honour, and fields of the sister API.
fn refuse(fields: &Fields<'_>) -> Result<(), RunnerError> {
    if fields.boolean("background")? == Some(true) {
        return Err(unsupported(
            "background",
            "'background' is not supported here; wait for the answer or stream it.",
        ));
    }
    for name in ["conversation", "prompt", "context_management", "modalities", "audio"] {
        if fields.get(name).is_some() {
            return Err(unsupported(name, format!("'{name}' is not supported here.")));
        }
    }
    for (name, instead) in [
        ("messages", "input"),
        ("max_tokens", "max_output_tokens"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("reasoning_effort", "reasoning.effort"),
        ("functions", "tools"),
    ] {
        if fields.get(name).is_some() {
            return Err(unsupported(
                name,
                format!("Unsupported parameter: '{name}'. In the Responses API it is '{instead}'."),
            ));
        }
    }
    if fields.integer("n")?.is_some_and(|n| n != 1) {
        return Err(unsupported(
            "n",
            "'n' is not supported here; a response has one answer.",
        ));
    }
    Ok(())
}

fn instructions(fields: &Fields<'_>) -> Result<Option<Message>, RunnerError> {
    let text = fields.text("instructions")?.filter(|text| !text.is_empty());
    Ok(text.map(|text| Message::text(Role::System, text)))
}

/// `reasoning`: effort, and whether summaries are asked for.
fn reasoning(fields: &Fields<'_>) -> Result<(Thinking, bool), RunnerError> {
    let Some(reasoning) = fields.object("reasoning")? else {
        return Ok((Thinking::default(), false));
    };
    let thinking = match reasoning.text("effort")? {
        None => Thinking::default(),
        Some("none") => Thinking {
            enabled: Some(false),
            effort: None,
        },
        Some(word) => Thinking {
            enabled: Some(true),
            effort: Some(
                effort(word)
                    .ok_or_else(|| bad_effort("reasoning.effort", word))?
                    .to_owned(),
            ),
        },
    };
    let summary = match reasoning.text("summary")?.or(reasoning.text("generate_summary")?) {
        None => false,
        Some("auto" | "concise" | "detailed") => true,
        Some(other) => {
            return Err(invalid(
                "reasoning.summary",
                format!("Invalid 'reasoning.summary': '{other}'. Supported values: auto, concise, detailed."),
            ));
        }
    };
    Ok((thinking, summary))
}

/// The effort that templates know for a word of OpenAI's or Ollama's (Ollama contract 7.2).
pub(in crate::openai) fn effort(word: &str) -> Option<&'static str> {
    Some(match word {
        "minimal" | "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "max" | "xhigh" | "ultra" => "max",
        _ => return None,
    })
}

pub(in crate::openai) fn bad_effort(name: &str, word: &str) -> RunnerError {
    invalid(
        name,
        format!("Invalid '{name}': '{word}'. Supported values: none, minimal, low, medium, high, xhigh, max."),
    )
}

/// `text.format`; `text` without it is free text.
fn format(fields: &Fields<'_>) -> Result<Format, RunnerError> {
    let Some(text) = fields.object("text")? else {
        return Ok(Format::Text);
    };
    if let Some(verbosity) = text.text("verbosity")?.filter(|word| *word != "medium") {
        return Err(unsupported(
            "text.verbosity",
            format!("'text.verbosity' '{verbosity}' is not supported here; say it in the instructions."),
        ));
    }
    let Some(format) = text.object("format")? else {
        return Ok(Format::Text);
    };
    let kind = format.text("type")?.ok_or_else(|| {
        RunnerError::invalid("Missing required parameter: 'text.format.type'.")
            .param("text.format")
            .code("missing_required_parameter")
    })?;
    match kind {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => {
            let schema = format.get("schema").ok_or_else(|| missing("text.format.schema"))?;
            Ok(Format::JsonSchema(schema.clone()))
        }
        other => Err(unsupported(
            "text.format",
            format!("'text.format.type' '{other}' is not supported here; use text, json_object or json_schema."),
        )),
    }
}

fn included(fields: &Fields<'_>, what: &str) -> bool {
    let list = fields.get("include").and_then(Value::as_array);
    list.is_some_and(|list| list.iter().any(|item| item == what))
}

fn logprobs(fields: &Fields<'_>) -> Result<Option<u32>, RunnerError> {
    let top = fields.integer("top_logprobs")?;
    match top {
        Some(top @ 0..=MAX_TOP_LOGPROBS) => Ok((top > 0 || included(fields, LOGPROBS)).then_some(top as u32)),
        Some(_) => Err(invalid("top_logprobs", "top_logprobs must be between 0 and 20")),
        None => Ok(included(fields, LOGPROBS).then_some(0)),
    }
}

const LOGPROBS: &str = "message.output_text.logprobs";

fn sampling(fields: &Fields<'_>) -> Result<Sampling, RunnerError> {
    let mut sampling = Sampling {
        seed: fields.integer("seed")?,
        ..Sampling::default()
    };
    sampling.max_tokens = match fields.integer("max_output_tokens")? {
        Some(0) => {
            return Err(invalid("max_output_tokens", "'max_output_tokens' must be at least 1"));
        }
        tokens => tokens,
    };
    match fields.get("stop") {
        None => {}
        Some(Value::String(stop)) => sampling.stop.push(stop.clone()),
        Some(Value::Array(stops)) => sampling
            .stop
            .extend(stops.iter().filter_map(|stop| stop.as_str().map(str::to_owned))),
        Some(_) => return Err(invalid("stop", "'stop' must be a string or an array of strings")),
    }
    for name in SAMPLERS {
        let Some(value) = fields.get(name) else { continue };
        if name != "logit_bias" {
            fields.number(name)?;
        }
        sampling.fields.insert(name.to_owned(), value.clone());
    }
    Ok(sampling)
}

/// What the answer repeats, with the values in effect.
fn echo(members: &Map<String, Value>, sampling: &Sampling, choice: &ToolChoice, store: bool) -> Map<String, Value> {
    let given = |name: &str| members.get(name).cloned().unwrap_or_default();
    let or = |name: &str, value: Value| match given(name) {
        Value::Null => value,
        given => given,
    };
    let reasoning = given("reasoning");
    let mut text = or("text", json!({}));
    if text.get("format").is_none_or(Value::is_null) && text.is_object() {
        text["format"] = json!({"type": "text"});
    }
    let choice_word = match choice {
        ToolChoice::None => "none",
        ToolChoice::Required => "required",
        ToolChoice::Auto | ToolChoice::Function(_) => "auto",
    };
    let Value::Object(echo) = json!({
        "background": false,
        "instructions": given("instructions"),
        "max_output_tokens": given("max_output_tokens"),
        "max_tool_calls": given("max_tool_calls"),
        "metadata": or("metadata", json!({})),
        "parallel_tool_calls": or("parallel_tool_calls", true.into()),
        "previous_response_id": given("previous_response_id"),
        "prompt_cache_key": given("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": given("safety_identifier"),
        "service_tier": "default",
        "store": store,
        "temperature": sampling.fields.get("temperature"),
        "text": text,
        "tool_choice": or("tool_choice", choice_word.into()),
        "tools": or("tools", json!([])),
        "top_logprobs": or("top_logprobs", 0.into()),
        "top_p": sampling.fields.get("top_p"),
        "truncation": or("truncation", "disabled".into()),
        "user": given("user"),
    }) else {
        return Map::new();
    };
    echo
}
