//! Shapes of llama-server's stream events, borrowed from the event's bytes where JSON allows it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use domain::chat::PromptProgress;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

/// A string that is borrowed unless it holds escapes. (`Option<Cow<str>>` would always copy.)
#[derive(Debug, Clone, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The first element of an array; we always ask for one choice.
#[derive(Debug)]
pub(super) struct First<T>(pub(super) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
            type Value = First<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First<T>, A::Error> {
                let first = seq.next_element()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(FirstVisitor(PhantomData))
    }
}

/// An event of `/v1/chat/completions`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ChatChunk<'a> {
    #[serde(borrow, default)]
    pub(super) choices: First<Choice<'a>>,
    #[serde(default)]
    pub(super) timings: Option<Timings>,
    #[serde(default)]
    pub(super) usage: Option<WireUsage>,
    #[serde(default)]
    pub(super) prompt_progress: Option<WireProgress>,
    #[serde(borrow, default, rename = "__verbose")]
    pub(super) verbose: Option<Verbose<'a>>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

/// What the last chunk adds for requests with `"verbose": true`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Verbose<'a> {
    #[serde(borrow, default)]
    pub(super) stopping_word: Option<Text<'a>>,
}

/// Sent for requests with `"return_progress": true`, first before any token of the prompt is read.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct WireProgress {
    total: u64,
    cache: u64,
    processed: u64,
}

impl From<WireProgress> for PromptProgress {
    fn from(wire: WireProgress) -> Self {
        Self {
            total: wire.total,
            cached: wire.cache,
            processed: wire.processed,
        }
    }
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow, default)]
    pub(super) delta: Delta<'a>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) logprobs: Option<Logprobs<'a>>,
}

#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<CallDelta<'a>>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct CallDelta<'a> {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) function: FunctionDelta<'a>,
}

#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<Text<'a>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Logprobs<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Vec<TokenProb<'a>>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct TokenProb<'a> {
    #[serde(borrow, default)]
    pub(super) token: Text<'a>,
    #[serde(default)]
    pub(super) id: Option<i64>,
    /// The engine writes null for a probability of zero.
    #[serde(default)]
    pub(super) logprob: Option<f64>,
    #[serde(default)]
    pub(super) bytes: Option<Vec<u8>>,
    #[serde(borrow, default)]
    pub(super) top_logprobs: Option<Vec<TokenProb<'a>>>,
}

/// An event of `/completion` and `/infill`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct CompletionChunk<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Text<'a>>,
    #[serde(default)]
    pub(super) stop: bool,
    #[serde(borrow, default)]
    pub(super) stop_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) stopping_word: Option<Text<'a>>,
    #[serde(default)]
    pub(super) prompt_progress: Option<WireProgress>,
    #[serde(borrow, default)]
    pub(super) completion_probabilities: Option<Vec<TokenProb<'a>>>,
    #[serde(default)]
    pub(super) timings: Option<Timings>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Timings {
    pub(super) cache_n: u64,
    pub(super) prompt_n: u64,
    pub(super) prompt_ms: f64,
    pub(super) predicted_n: u64,
    pub(super) predicted_ms: f64,
}

/// OpenAI's counts, for engines that send no `timings`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
}
