use domain::{
    Capability, ErrorKind, KeepAlive, LaunchOptions, ModelEntry, RunnerError,
    chat::{ChatRequest, CompletionRequest, Format, Message, Part, Role, Sampling, Thinking},
};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::{message, name, options, profile};
use crate::engine::{Wire, known_effort};
use crate::openai::MAX_TOP_LOGPROBS;

/// What a generate or chat request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan<T> {
    /// Empty prompt or messages: load with these wishes, then answer [`super::load_reply`].
    Load(LaunchOptions),
    /// The same with `keep_alive` 0: unload, then answer [`super::load_reply`]; 200 even if it was not loaded.
    Unload,
    /// Generate.
    Run(T),
}

/// `think` (contract 4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Think {
    Switch(bool),
    Level(String),
}

/// The fields both routes share.
#[derive(Debug, Clone)]
struct Common {
    format: Option<Value>,
    options: Map<String, Value>,
    think: Option<Think>,
    truncate: bool,
    shift: Option<bool>,
    logprobs: bool,
    top_logprobs: u32,
    render_only: bool,
}

impl Common {
    fn parse(fields: &mut Fields) -> Result<Self, RunnerError> {
        let top = fields.integer("top_logprobs")?.unwrap_or(0);
        if !(0..=MAX_TOP_LOGPROBS).contains(&top) {
            return Err(RunnerError::invalid("top_logprobs must be between 0 and 20").param("top_logprobs"));
        }
        Ok(Self {
            think: think(fields.take("think"))?,
            format: fields.take("format"),
            options: fields.object("options")?,
            truncate: fields.bool("truncate")?.unwrap_or(true),
            shift: fields.bool("shift")?,
            logprobs: fields.bool("logprobs")?.unwrap_or(false),
            top_logprobs: top.unsigned_abs() as u32,
            render_only: fields.bool("_debug_render_only")?.unwrap_or(false),
        })
    }

    fn logprobs(&self) -> Option<u32> {
        self.logprobs.then_some(self.top_logprobs)
    }

    fn options(&self, entry: &ModelEntry) -> Result<(Sampling, LaunchOptions), RunnerError> {
        let (sampling, mut launch) = options::parse(
            &profile::merged(&entry.profile, &self.options),
            entry.can(Capability::Vision),
        )?;
        launch.context_shift = self.shift;
        Ok((sampling, launch))
    }

    fn format(&self) -> Result<Format, RunnerError> {
        match &self.format {
            None => Ok(Format::Text),
            Some(Value::String(text)) if text.is_empty() => Ok(Format::Text),
            Some(Value::String(text)) if text == "json" => Ok(Format::JsonObject),
            Some(schema @ Value::Object(_)) => Ok(Format::JsonSchema(schema.clone())),
            Some(other) => Err(RunnerError::invalid(format!(
                "invalid format: {:?}; expected \"json\" or a valid JSON Schema object",
                other.to_string()
            ))
            .param("format")),
        }
    }

    fn thinking(&self, entry: &ModelEntry, model: &str) -> Result<Thinking, RunnerError> {
        if !entry.can(Capability::Thinking) {
            return match self.think {
                None | Some(Think::Switch(false)) => Ok(Thinking::default()),
                Some(Think::Switch(true) | Think::Level(_)) => Err(not_capable(&format!("{model:?}"), "thinking")),
            };
        }
        Ok(match &self.think {
            None => Thinking {
                enabled: Some(true),
                effort: None,
            },
            Some(Think::Switch(on)) => Thinking {
                enabled: Some(*on),
                effort: None,
            },
            Some(Think::Level(level)) => Thinking {
                enabled: Some(true),
                effort: Some(known_effort(entry, level).to_owned()),
            },
        })
    }
}

fn think(value: Option<Value>) -> Result<Option<Think>, RunnerError> {
    let bad = |shown: &str| {
        RunnerError::invalid(format!(
            "invalid think value: {shown} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
        ))
        .param("think")
    };
    match value {
        None => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(Think::Switch(on))),
        Some(Value::String(level)) => match level.as_str() {
            "" => Ok(None),
            "low" | "medium" | "high" | "max" => Ok(Some(Think::Level(level))),
            _ => Err(bad(&format!("{level:?}"))),
        },
        Some(other) => Err(bad(&other.to_string())),
    }
}

fn not_capable(subject: &str, what: &str) -> RunnerError {
    RunnerError::new(ErrorKind::NotCapable, format!("{subject} does not support {what}")).param("model")
}

/// Refuses what the model cannot do; `verb` is the route's word for plain generation.
fn check_capable(entry: &ModelEntry, model: &str, verb: &str) -> Result<(), RunnerError> {
    if entry.can(Capability::Completion) || entry.can(Capability::Chat) {
        return Ok(());
    }
    Err(not_capable(&format!("{model:?}"), verb))
}

fn check_media<'a>(
    entry: &ModelEntry,
    model: &str,
    mut parts: impl Iterator<Item = &'a Part>,
) -> Result<(), RunnerError> {
    let missing = parts.find_map(|part| match part {
        Part::Text(_) => None,
        Part::Image { .. } => (!entry.can(Capability::Vision)).then_some("image input"),
        Part::Audio { .. } => (!entry.can(Capability::Audio)).then_some("audio input"),
    });
    missing.map_or(Ok(()), |what| {
        Err(not_capable(&format!("{model:?}"), what).param("images"))
    })
}

/// A parsed `/api/chat` body. Errors of types, `think`, `keep_alive` and `top_logprobs` are found here, before the model is
/// looked up; the others by [`ChatCall::plan`] (contract 1, "reverse-order trap").
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// `model` as written; replies repeat it verbatim.
    pub model: String,
    /// `stream`, true when absent.
    pub stream: bool,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    messages: Vec<Message>,
    tools: Vec<Value>,
    common: Common,
}

impl ChatCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "ChatRequest")?;
        Ok(Self {
            model: fields.model()?,
            stream: fields.bool("stream")?.unwrap_or(true),
            keep_alive: fields.keep_alive()?,
            messages: message::parse_all(fields.list("messages", "[]api.Message")?)?,
            tools: tools(&mut fields)?,
            common: Common::parse(&mut fields)?,
        })
    }

    /// The rest of the checks, now that the model is known.
    ///
    /// # Errors
    /// `NotCapable` or `InvalidRequest` in Ollama's words.
    pub fn plan(self, entry: &ModelEntry) -> Result<Plan<ChatJob>, RunnerError> {
        let Self { model, common, .. } = &self;
        if self.messages.is_empty() && self.keep_alive.is_some_and(KeepAlive::is_zero) {
            return Ok(Plan::Unload);
        }
        check_capable(entry, model, "chat")?;
        let (sampling, launch) = common.options(entry)?;
        if self.messages.is_empty() {
            return Ok(Plan::Load(launch));
        }
        if !self.tools.is_empty() && !entry.can(Capability::Tools) {
            return Err(not_capable(&name::full_name(model), "tools").param("tools"));
        }
        let thinking = common.thinking(entry, model)?;
        check_media(entry, model, self.messages.iter().flat_map(|message| &message.parts))?;
        let request = ChatRequest {
            thinking,
            sampling,
            format: common.format()?,
            logprobs: common.logprobs(),
            messages: profile::with_messages(&entry.profile, self.messages),
            tools: self.tools,
            ..ChatRequest::default()
        };
        Ok(Plan::Run(ChatJob {
            request,
            launch,
            truncate: self.common.truncate,
            render_only: self.common.render_only,
            top_logprobs: self.common.top_logprobs,
        }))
    }
}

fn tools(fields: &mut Fields) -> Result<Vec<Value>, RunnerError> {
    let tools = fields.list("tools", "api.Tools")?;
    match tools.iter().find(|tool| !tool.is_object()) {
        Some(other) => Err(fields.mismatch("tools", other, "api.Tool")),
        None => Ok(tools),
    }
}

/// A chat to run.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatJob {
    /// What to send with [`crate::engine::chat_body`].
    pub request: ChatRequest,
    /// Launch wishes from `options` and `shift`.
    pub launch: LaunchOptions,
    /// Drop old messages ([`crate::engine::drop_oldest`]) when the prompt does not fit; false: answer 400.
    pub truncate: bool,
    /// `_debug_render_only`: answer [`super::render_only_reply`] with the rendered template, no inference.
    pub render_only: bool,
    /// Alternatives per token to show (0: only the token itself).
    pub top_logprobs: u32,
}

/// A parsed `/api/generate` body; see [`ChatCall`] for which errors are found when.
#[derive(Debug, Clone)]
pub struct GenerateCall {
    /// `model` as written.
    pub model: String,
    /// `stream`, true when absent.
    pub stream: bool,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    prompt: String,
    suffix: Option<String>,
    system: Option<String>,
    template: Option<String>,
    raw: bool,
    context: Vec<i64>,
    images: Vec<Part>,
    common: Common,
}

impl GenerateCall {
    /// Parses the body.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "GenerateRequest")?;
        let context = fields.list("context", "[]int")?;
        let token = |value: &Value| value.as_i64().ok_or_else(|| fields.mismatch("context", value, "int"));
        let context = context.iter().map(token).collect::<Result<_, _>>()?;
        Ok(Self {
            model: fields.model()?,
            stream: fields.bool("stream")?.unwrap_or(true),
            keep_alive: fields.keep_alive()?,
            prompt: fields.string("prompt")?.unwrap_or_default(),
            suffix: fields.text("suffix")?,
            system: fields.text("system")?,
            template: fields.text("template")?,
            raw: fields.bool("raw")?.unwrap_or(false),
            context,
            images: message::parse_images(fields.list("images", "[]api.ImageData")?)?,
            common: Common::parse(&mut fields)?,
        })
    }

    /// The rest of the checks, now that the model is known.
    ///
    /// # Errors
    /// `NotCapable` or `InvalidRequest` in Ollama's words.
    pub fn plan(self, entry: &ModelEntry) -> Result<Plan<GenerateJob>, RunnerError> {
        let Self { model, common, .. } = &self;
        if self.prompt.is_empty() && self.keep_alive.is_some_and(KeepAlive::is_zero) {
            return Ok(Plan::Unload);
        }
        check_capable(entry, model, "generate")?;
        if self.raw && (self.template.is_some() || self.system.is_some() || !self.context.is_empty()) {
            return Err(RunnerError::invalid(
                "raw mode does not support template, system, or context",
            ));
        }
        let (sampling, launch) = common.options(entry)?;
        if self.prompt.is_empty() && self.suffix.is_none() {
            return Ok(Plan::Load(launch));
        }
        if self.template.is_some() {
            return Err(RunnerError::invalid(
                "template: Go templates are not supported; leave it out to use the model's own, or set raw to true",
            )
            .param("template"));
        }
        if self.suffix.is_some() && !entry.can(Capability::Insert) {
            return Err(not_capable(&name::full_name(model), "insert").param("suffix"));
        }
        let thinking = common.thinking(entry, model)?;
        check_media(entry, model, self.images.iter())?;
        let (format, logprobs) = (common.format()?, common.logprobs());
        let asked_to_think = common.think.is_some();
        let (truncate, render_only, top_logprobs) = (common.truncate, common.render_only, common.top_logprobs);

        let plain = |prompt: String, suffix: Option<String>, images: Vec<Part>| {
            let image = |part| match part {
                Part::Image { base64, .. } | Part::Audio { base64, .. } => Some(base64),
                Part::Text(_) => None,
            };
            let images = images.into_iter().filter_map(image).collect();
            CompletionRequest {
                prompt,
                suffix,
                images,
                format: format.clone(),
                sampling: sampling.clone(),
                logprobs,
            }
        };
        let mode = if self.suffix.is_some() && !self.raw {
            GenerateMode::Infill(plain(self.prompt, self.suffix, Vec::new()))
        } else if self.raw || !entry.facts.has_chat_template {
            let stored = entry.profile.system.clone().filter(|_| !self.raw);
            let system = self.system.or(stored).map(|system| system + "\n\n").unwrap_or_default();
            GenerateMode::Raw(plain(system + &self.prompt, None, self.images))
        } else {
            let mut user = Message::text(Role::User, self.prompt);
            user.parts.extend(self.images);
            let own = self.system.map(|system| Message::text(Role::System, system));
            let asked = own.into_iter().chain([user]).collect();
            let messages = if self.context.is_empty() {
                profile::with_messages(&entry.profile, asked)
            } else {
                // The earlier reply began with them.
                asked
            };
            let chat = ChatRequest {
                messages,
                format,
                sampling,
                thinking,
                logprobs,
                ..ChatRequest::default()
            };
            if self.context.is_empty() {
                GenerateMode::Chat(chat)
            } else {
                // This goes to the engine as plain text, which does not split off the reasoning: it must not appear unasked
                // in `response` (contract 4.5).
                let thinking = if !asked_to_think && chat.thinking.enabled.is_some() {
                    Thinking {
                        enabled: Some(false),
                        effort: None,
                    }
                } else {
                    chat.thinking.clone()
                };
                GenerateMode::Continue {
                    chat: ChatRequest { thinking, ..chat },
                    context: self.context,
                }
            }
        };
        Ok(Plan::Run(GenerateJob {
            mode,
            launch,
            truncate,
            render_only,
            top_logprobs,
        }))
    }
}

/// A generation to run.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateJob {
    /// How to run it.
    pub mode: GenerateMode,
    /// Launch wishes.
    pub launch: LaunchOptions,
    /// As in [`ChatJob::truncate`].
    pub truncate: bool,
    /// As in [`ChatJob::render_only`].
    pub render_only: bool,
    /// As in [`ChatJob::top_logprobs`].
    pub top_logprobs: u32,
}

/// The engine routes behind `/api/generate`.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerateMode {
    /// Templated: `engine::chat_body` to `engine::CHAT` ([`Wire::Chat`]), which also splits off the reasoning. For `context`
    /// in the final line: render the same request with `engine::apply_template_body`, tokenize prompt + reply,
    /// [`super::ReplyStream::set_context`].
    Chat(ChatRequest),
    /// `raw`, or a model without a chat template: `engine::completion_body` to `engine::COMPLETION` ([`Wire::Completion`]).
    /// No `context` in the final line when `raw`.
    Raw(CompletionRequest),
    /// `suffix`: `engine::infill_body` to `engine::INFILL` ([`Wire::Completion`]).
    Infill(CompletionRequest),
    /// `context` given: detokenize it, render `chat` with the template, join (see [`continue_prompt`]), then as `Raw`.
    Continue {
        /// The new turn.
        chat: ChatRequest,
        /// Tokens of the earlier reply.
        context: Vec<i64>,
    },
}

impl GenerateMode {
    /// The engine stream form of this mode.
    pub fn wire(&self) -> Wire {
        match self {
            Self::Chat(_) => Wire::Chat,
            Self::Raw(_) | Self::Infill(_) | Self::Continue { .. } => Wire::Completion,
        }
    }

    /// Images in the request, for [`super::render_only_reply`].
    pub fn images(&self) -> usize {
        match self {
            Self::Chat(chat) | Self::Continue { chat, .. } => count_images(chat),
            Self::Raw(request) | Self::Infill(request) => request.images.len(),
        }
    }
}

/// Images in a chat.
fn count_images(chat: &ChatRequest) -> usize {
    let parts = chat.messages.iter().flat_map(|message| &message.parts);
    parts.filter(|part| matches!(part, Part::Image { .. })).count()
}

impl ChatJob {
    /// Images in the request, for [`super::render_only_reply`].
    pub fn images(&self) -> usize {
        count_images(&self.request)
    }
}

/// The engine could not read the tokens of `context`: they are not of this model, whatever status it chose to say so.
pub fn unreadable_context(error: RunnerError) -> RunnerError {
    match error.kind {
        ErrorKind::Engine { .. } => {
            RunnerError::invalid("context holds tokens that this model does not have").param("context")
        }
        _ => error,
    }
}

/// The completion request for [`GenerateMode::Continue`]: the earlier text, then the rendered new turn.
pub fn continue_prompt(chat: &ChatRequest, earlier: &str, rendered: &str) -> CompletionRequest {
    CompletionRequest {
        prompt: format!("{earlier}{rendered}"),
        suffix: None,
        images: Vec::new(),
        format: chat.format.clone(),
        sampling: chat.sampling.clone(),
        logprobs: chat.logprobs,
    }
}
