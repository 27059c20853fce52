//! The domain form of generation: what every dialect's chat or completion request is turned into, and the events every
//! dialect renders its answer from. `dialects::engine` maps both to llama-server's wire form.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Stands for an image in a raw prompt. An engine would make up another one at each start; ours are told this one.
pub const MEDIA_MARKER: &str = "<__media__>";

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text(String),
    /// An image as base64 with its media type.
    Image {
        /// For example `image/png`.
        mime: String,
        /// Standard base64.
        base64: String,
    },
    /// Sound as base64.
    Audio {
        /// `wav` or `mp3`.
        format: String,
        /// Standard base64.
        base64: String,
    },
}

/// A call the model made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its id, when one is known.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Arguments as JSON text (an object).
    pub arguments: String,
}

/// One message. Its serialised form is ours: it is what stored conversations keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said. Plain text is one [`Part::Text`].
    pub parts: Vec<Part>,
    /// Reasoning that came before the answer (assistant only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls (assistant only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call this answers (tool only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Tool name (tool only) or speaker name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            parts: vec![Part::Text(text.into())],
            ..Self::empty(role)
        }
    }

    /// A message that says nothing yet.
    pub fn empty(role: Role) -> Self {
        Self {
            role,
            parts: Vec::new(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }
}

/// How the answer must be formed.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Format {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
}

/// Sampling and length. `None`: the engine's (or dialect's) default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// Longest answer, in tokens; negative: until the end or the context is full.
    pub max_tokens: Option<i64>,
    /// Stop texts.
    pub stop: Vec<String>,
    /// Random seed; negative: random.
    pub seed: Option<i64>,
    /// Any further engine sampling fields by the engine's names (`temperature`, `top_k`, `min_p`, …).
    pub fields: Map<String, Value>,
}

/// Reasoning wishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thinking {
    /// Whether the template should let the model think; `None`: the template's default.
    pub enabled: Option<bool>,
    /// `low`, `medium`, `high`, `max`.
    pub effort: Option<String>,
}

/// Which tools the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call, even where tools are given.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Function(String),
}

/// A chat request in the domain form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Tool definitions, OpenAI form.
    pub tools: Vec<Value>,
    /// Which tools may or must be called.
    pub tool_choice: ToolChoice,
    /// More than one call in one answer; `None`: yes, where the template can.
    pub parallel_tool_calls: Option<bool>,
    /// Answer format.
    pub format: Format,
    /// Sampling.
    pub sampling: Sampling,
    /// Reasoning.
    pub thinking: Thinking,
    /// Alternatives per token to report; `None`: no log probabilities.
    pub logprobs: Option<u32>,
}

/// A raw completion in the domain form.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompletionRequest {
    /// The prompt, sent as is.
    pub prompt: String,
    /// Text after the gap, for fill in the middle.
    pub suffix: Option<String>,
    /// Images for a multimodal prompt, base64.
    pub images: Vec<String>,
    /// Answer format.
    pub format: Format,
    /// Sampling.
    pub sampling: Sampling,
    /// Alternatives per token to report; `None`: no log probabilities.
    pub logprobs: Option<u32>,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// End of text or a stop text.
    Stop,
    /// The length limit or the context was reached.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// Token counts and times of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Of these, taken from the cache.
    pub cached_tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// Time spent on the prompt.
    pub prompt_time: Duration,
    /// Time spent generating.
    pub completion_time: Duration,
}

/// One token with its probability.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// Its number in the vocabulary, where the engine says it.
    pub id: Option<i64>,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Its UTF-8 bytes.
    pub bytes: Vec<u8>,
    /// Alternatives, most likely first.
    pub top: Vec<TokenLogprob>,
}

/// How far the engine has read the prompt, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PromptProgress {
    /// All of the prompt.
    pub total: u64,
    /// Taken from the cache.
    pub cached: u64,
    /// Read so far, cached ones included.
    pub processed: u64,
}

/// What the engine says while it generates, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// Answer text.
    Text(String),
    /// Reasoning text.
    Reasoning(String),
    /// A piece of a tool call.
    ToolCall {
        /// Which call of this answer, from 0.
        index: u32,
        /// Present in the first piece.
        id: Option<String>,
        /// Present in the first piece.
        name: Option<String>,
        /// Next piece of the JSON arguments.
        arguments: String,
    },
    /// Probabilities of the tokens just sent.
    Logprobs(Vec<TokenLogprob>),
    /// How far the prompt was read, for requests that asked for it.
    PromptProgress(PromptProgress),
    /// Generation ended.
    Finish(FinishReason),
    /// Counts and times; may come before or after [`GenerationEvent::Finish`].
    Usage(Usage),
    /// The engine reported an error in mid-stream.
    Error(String),
    /// The engine said it is done; nothing follows.
    Done,
}
