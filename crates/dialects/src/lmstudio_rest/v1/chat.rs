use std::time::Duration;

use domain::chat::{ChatRequest, Message, Part, Role, Sampling, Thinking, Usage};
use domain::{EngineMode, ErrorKind, LaunchOptions, ModelEntry, RunnerError};
use serde_json::{Value, json};

use super::models::{is_gpt_oss, reasoning_options};
use super::seconds;
use crate::json::to_vec;
use crate::lmstudio_rest::fields::Fields;

/// `POST /api/v1/chat` (contract 7.5).
#[derive(Debug, Clone, PartialEq)]
pub struct ChatCall {
    /// The model's name.
    pub model: String,
    /// Answer as a stream of events.
    pub stream: bool,
    /// Keep the answer, so that it can be continued.
    pub store: bool,
    /// The answer this continues.
    pub previous: Option<String>,
    /// Context, in tokens, should this request load the model.
    pub context: Option<u32>,
    input: Vec<Part>,
    system: Option<String>,
    reasoning: Option<String>,
    sampling: Sampling,
}

/// Response ids of this route and of `/v1/responses` begin so.
pub fn is_response_id(id: &str) -> bool {
    id.starts_with("resp_")
}

impl ChatCall {
    /// Reads the body.
    ///
    /// # Errors
    /// `InvalidRequest` with LM Studio's codes; unknown keys are refused. `Unsupported` for `integrations`.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.required_string("model")?;
        let input = input(&mut fields)?;
        integrations(&mut fields)?;
        let mut sampling = Sampling::default();
        let ranges = [
            ("temperature", 0.0, 1.0),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repeat_penalty", 0.0, f64::INFINITY),
        ];
        for (name, least, most) in ranges {
            if let Some(value) = fields.number(name, least, most)? {
                sampling.fields.insert(name.into(), value);
            }
        }
        if let Some(top_k) = fields.integer("top_k", 0)? {
            sampling.fields.insert("top_k".into(), top_k.into());
        }
        sampling.max_tokens = fields.integer("max_output_tokens", 1)?.map(i64::from);
        let reasoning = fields.string("reasoning")?;
        if let Some(option) = &reasoning
            && !matches!(option.as_str(), "off" | "low" | "medium" | "high" | "on")
        {
            return Err(fields.invalid("reasoning", "must be one of 'off', 'low', 'medium', 'high', 'on'"));
        }
        let previous = fields.string("previous_response_id")?;
        if previous.as_deref().is_some_and(|id| !is_response_id(id)) {
            return Err(fields.invalid("previous_response_id", "must start with 'resp_'"));
        }
        let call = Self {
            model,
            stream: fields.bool("stream")?.unwrap_or(false),
            store: fields.bool("store")?.unwrap_or(true),
            previous,
            context: fields.integer("context_length", 1)?,
            input,
            system: fields.string("system_prompt")?,
            reasoning,
            sampling,
        };
        fields.finish()?;
        Ok(call)
    }

    /// Launch wishes. The context counts only for a model that is not loaded.
    pub fn launch(&self, is_loaded: bool) -> LaunchOptions {
        LaunchOptions {
            mode: Some(EngineMode::Completion),
            context: self.context.filter(|_| !is_loaded),
            ..LaunchOptions::default()
        }
    }

    /// The chat for this model, after the turns before it. The engine is asked to tell how far it has read the prompt.
    ///
    /// # Errors
    /// `InvalidRequest` when the model does not offer the `reasoning` that was asked for.
    pub fn request(&self, entry: &ModelEntry, before: Vec<Message>) -> Result<ChatRequest, RunnerError> {
        let mut messages: Vec<Message> = before;
        messages.extend(self.turn());
        // The latest system prompt of the conversation holds for all of it.
        let system = messages.iter().rposition(|message| message.role == Role::System);
        let system = system.map(|at| messages.remove(at));
        messages.retain(|message| message.role != Role::System);
        if let Some(system) = system {
            messages.insert(0, system);
        }
        let mut sampling = self.sampling.clone();
        sampling.fields.insert("return_progress".into(), true.into());
        Ok(ChatRequest {
            messages,
            sampling,
            thinking: self.thinking(entry)?,
            ..ChatRequest::default()
        })
    }

    fn thinking(&self, entry: &ModelEntry) -> Result<Thinking, RunnerError> {
        let Some(wanted) = &self.reasoning else {
            return Ok(Thinking::default());
        };
        let offered = reasoning_options(entry);
        if !offered.contains(&wanted.as_str()) {
            let text = if offered.is_empty() {
                format!("The model '{}' does not offer a choice of 'reasoning'.", entry.key)
            } else {
                format!(
                    "The model '{}' offers these for 'reasoning': {}.",
                    entry.key,
                    offered.join(", ")
                )
            };
            return Err(RunnerError::invalid(text).param("reasoning").code("invalid_value"));
        }
        Ok(if is_gpt_oss(entry) {
            Thinking {
                enabled: None,
                effort: Some(wanted.clone()),
            }
        } else {
            Thinking {
                enabled: Some(wanted != "off"),
                effort: None,
            }
        })
    }

    /// What this request adds to the conversation, without the answer.
    fn turn(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::text(Role::System, text));
        let mut user = Message::empty(Role::User);
        user.parts.clone_from(&self.input);
        system.chain([user]).collect()
    }

    /// What this request and its answer add to the conversation.
    pub fn stored_turn(&self, output: &[OutputItem]) -> Vec<Message> {
        let join = |reasoning: bool| -> String {
            let texts = output.iter().filter_map(|item| match item {
                OutputItem::Reasoning(text) if reasoning => Some(text.as_str()),
                OutputItem::Message(text) if !reasoning => Some(text.as_str()),
                OutputItem::Reasoning(_) | OutputItem::Message(_) => None,
            });
            texts.collect()
        };
        let mut answer = Message::text(Role::Assistant, join(false));
        answer.reasoning = Some(join(true)).filter(|text| !text.is_empty());
        let mut turn = self.turn();
        turn.push(answer);
        turn
    }
}

fn input(fields: &mut Fields) -> Result<Vec<Part>, RunnerError> {
    let items = match fields.take("input") {
        None => return Err(fields.missing("input")),
        Some(Value::String(text)) => return Ok(vec![Part::Text(text)]),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(fields.mismatch("input", "a string or a list of items")),
    };
    if items.is_empty() {
        return Err(fields.invalid("input", "must not be empty"));
    }
    let parts = items.into_iter().enumerate().map(|(at, item)| {
        let path = format!("input.{at}.");
        let Value::Object(members) = item else {
            return Err(fields.mismatch(&format!("input.{at}"), "an object"));
        };
        let mut item = Fields::of(members, path.clone());
        let part = match item.required_string("type")?.as_str() {
            // The documentation's table says `message`, its examples say `text`.
            "text" | "message" => Part::Text(item.string("content")?.ok_or_else(|| item.missing("content"))?),
            "image" => {
                let url = item.required_string("data_url")?;
                crate::openai::data_image(&url, &format!("{path}data_url"))?
            }
            _ => return Err(item.invalid("type", "must be 'text', 'message' or 'image'")),
        };
        item.finish()?;
        Ok(part)
    });
    parts.collect()
}

/// Tools of MCP servers and plugins are not run here.
fn integrations(fields: &mut Fields) -> Result<(), RunnerError> {
    match fields.take("integrations") {
        None => Ok(()),
        Some(Value::Array(list)) if list.is_empty() => Ok(()),
        Some(Value::Array(_)) => Err(RunnerError::new(
            ErrorKind::Unsupported,
            "'integrations' is not implemented: LlamaRunner runs no MCP servers and no plugins. Leave it out.",
        )
        .param("integrations")
        .code("not_implemented")),
        Some(_) => Err(fields.mismatch("integrations", "a list")),
    }
}

/// A piece of the answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputItem {
    /// Reasoning.
    Reasoning(String),
    /// Text.
    Message(String),
}

impl OutputItem {
    pub(super) fn text_mut(&mut self) -> &mut String {
        match self {
            Self::Reasoning(text) | Self::Message(text) => text,
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Reasoning(text) => json!({"type": "reasoning", "content": text}),
            Self::Message(text) => json!({"type": "message", "content": text}),
        }
    }
}

/// The result of a chat: the body of an answer that is not streamed, and what `chat.end` holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatResult {
    /// The instance that answered.
    pub instance_id: String,
    /// The answer.
    pub output: Vec<OutputItem>,
    /// Counts and times.
    pub usage: Usage,
    /// Tokens of the answer that were reasoning.
    pub reasoning_tokens: u64,
    /// From the request to the engine until its first text.
    pub first_token: Duration,
    /// Set when this request loaded the model.
    pub load_time: Option<Duration>,
    /// Set when the answer is kept.
    pub response_id: Option<String>,
}

impl ChatResult {
    pub(super) fn value(&self) -> Value {
        let usage = &self.usage;
        let time = usage.completion_time.as_secs_f64();
        let rate = if time > 0.0 {
            usage.completion_tokens as f64 / time
        } else {
            0.0
        };
        let mut stats = json!({
            "input_tokens": usage.prompt_tokens,
            "total_output_tokens": usage.completion_tokens,
            "reasoning_output_tokens": self.reasoning_tokens.min(usage.completion_tokens),
            "tokens_per_second": rate,
            "time_to_first_token_seconds": seconds(self.first_token),
        });
        if let Some(load) = self.load_time {
            stats["model_load_time_seconds"] = seconds(load).into();
        }
        let output: Vec<Value> = self.output.iter().map(OutputItem::value).collect();
        let mut value = json!({"model_instance_id": self.instance_id, "output": output, "stats": stats});
        if let Some(id) = &self.response_id {
            value["response_id"] = id.as_str().into();
        }
        value
    }

    /// The body.
    pub fn render(&self) -> Vec<u8> {
        to_vec(&self.value())
    }
}
