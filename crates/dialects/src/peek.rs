//! Finds a few top-level fields of a JSON request body without building a tree (goals P17 and P8).
//!
//! The scanner checks the JSON grammar on the way, so that a body is refused here with a position rather than by the engine
//! with its parser's words. Of two fields of one name the last wins, as in llama-server's parser.

use std::borrow::Cow;
use std::time::Duration;

use domain::{KeepAlive, RunnerError};

mod scan;

/// Lists the fields once: the enum, all of them, their names.
macro_rules! keys {
    ($($key:ident = $name:literal,)+) => {
        /// Top-level fields the scanner looks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[expect(missing_docs, reason = "each is the field of the same name in snake case")]
        pub enum Key {
            $($key,)+
        }

        impl Key {
            const ALL: [Self; [$($name),+].len()] = [$(Self::$key),+];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$key => $name,)+
                }
            }
        }
    };
}

keys! {
    Model = "model",
    Stream = "stream",
    Messages = "messages",
    Prompt = "prompt",
    Input = "input",
    Content = "content",
    Ttl = "ttl",
    KeepAlive = "keep_alive",
    ToolChoice = "tool_choice",
    Tools = "tools",
    ResponseFormat = "response_format",
    MaxTokens = "max_tokens",
    MaxCompletionTokens = "max_completion_tokens",
    NPredict = "n_predict",
    NKeep = "n_keep",
    NDiscard = "n_discard",
    IdSlot = "id_slot",
    NProbs = "n_probs",
    N = "n",
    Grammar = "grammar",
    JsonSchema = "json_schema",
    Query = "query",
    Documents = "documents",
    Texts = "texts",
    BestOf = "best_of",
    Echo = "echo",
    Suffix = "suffix",
    Logprobs = "logprobs",
    TopLogprobs = "top_logprobs",
    Dimensions = "dimensions",
    EncodingFormat = "encoding_format",
    Temperature = "temperature",
    TopP = "top_p",
    TopK = "top_k",
    MinP = "min_p",
    PresencePenalty = "presence_penalty",
    FrequencyPenalty = "frequency_penalty",
    RepeatPenalty = "repeat_penalty",
    LogitBias = "logit_bias",
    Seed = "seed",
    Stop = "stop",
    Reasoning = "reasoning",
    ReasoningEffort = "reasoning_effort",
    ChatTemplateKwargs = "chat_template_kwargs",
    Think = "think",
    Options = "options",
    Modalities = "modalities",
    Audio = "audio",
    Functions = "functions",
    FunctionCall = "function_call",
    WebSearchOptions = "web_search_options",
    Verbosity = "verbosity",
    Preset = "preset",
    StreamOptions = "stream_options",
}

impl Key {
    fn from_wire(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str().as_bytes() == name)
    }
}

/// One value found at the top level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Byte offset of the value in the body.
    pub start: usize,
    /// The value's bytes, without surrounding white space.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// The text of a string value.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        let inner = self.raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if memchr::memchr(b'\\', inner).is_none() {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice(self.raw).ok().map(Cow::Owned)
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.raw {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// The value of a number with no fraction, cut to the range of `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        let number = self.as_f64()?;
        let text = std::str::from_utf8(self.raw).ok()?;
        text.parse()
            .ok()
            .or_else(|| (number.fract() == 0.0).then_some(number as i64))
    }

    /// The value of a number.
    pub fn as_f64(&self) -> Option<f64> {
        if !matches!(self.raw.first(), Some(b'-' | b'0'..=b'9')) {
            return None;
        }
        std::str::from_utf8(self.raw).ok()?.parse().ok()
    }

    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        self.raw == b"null"
    }

    /// `[]`, `{}` or `""`, white space inside allowed.
    pub fn is_empty(&self) -> bool {
        match self.raw {
            [b'"', b'"'] => true,
            [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => inner.iter().all(u8::is_ascii_whitespace),
            _ => false,
        }
    }

    /// Does it start like an array?
    pub fn is_array(&self) -> bool {
        self.raw.first() == Some(&b'[')
    }

    /// Does it start like an object?
    pub fn is_object(&self) -> bool {
        self.raw.first() == Some(&b'{')
    }

    /// Does it start like a string?
    pub fn is_string(&self) -> bool {
        self.raw.first() == Some(&b'"')
    }
}

/// What [`peek`] found.
#[derive(Debug, Clone)]
pub struct Peeked<'a> {
    fields: [Option<Field<'a>>; Key::ALL.len()],
    /// Just behind the opening brace.
    open: usize,
    /// The object has no members.
    empty: bool,
}

impl<'a> Peeked<'a> {
    /// The last field of this name; `None` when absent or null.
    pub fn get(&self, key: Key) -> Option<Field<'a>> {
        self.fields[key as usize].filter(|field| !field.is_null())
    }

    /// The field is there and null.
    pub fn is_null(&self, key: Key) -> bool {
        self.fields[key as usize].is_some_and(|field| field.is_null())
    }

    /// `model`.
    ///
    /// # Errors
    /// `InvalidRequest` when it is not a string.
    pub fn model(&self) -> Result<Option<Cow<'a, str>>, RunnerError> {
        let Some(field) = self.get(Key::Model) else {
            return Ok(None);
        };
        field
            .as_str()
            .map(Some)
            .ok_or_else(|| wrong_type(Key::Model, "a string"))
    }

    /// `stream`, false when absent.
    ///
    /// # Errors
    /// `InvalidRequest` when it is not a boolean.
    pub fn stream(&self) -> Result<bool, RunnerError> {
        let Some(field) = self.get(Key::Stream) else {
            return Ok(false);
        };
        field.as_bool().ok_or_else(|| wrong_type(Key::Stream, "a boolean"))
    }

    /// `ttl`: whole seconds, at least 1 (LM Studio contract 3).
    ///
    /// # Errors
    /// `InvalidRequest` for anything else.
    pub fn ttl(&self) -> Result<Option<Duration>, RunnerError> {
        let Some(field) = self.get(Key::Ttl) else {
            return Ok(None);
        };
        match field.as_i64() {
            Some(seconds @ 1..) => Ok(Some(Duration::from_secs(seconds.unsigned_abs()))),
            Some(_) => Err(RunnerError::invalid("'ttl' must be an integer of at least 1 (seconds)")
                .param("ttl")
                .code("invalid_value")),
            None => Err(wrong_type(Key::Ttl, "an integer (seconds)")),
        }
    }

    /// `keep_alive` by Ollama's rules (contract 4.4).
    ///
    /// # Errors
    /// `InvalidRequest` with Go's words for a bad duration.
    pub fn keep_alive(&self) -> Result<Option<KeepAlive>, RunnerError> {
        let Some(field) = self.get(Key::KeepAlive) else {
            return Ok(None);
        };
        if let Some(seconds) = field.as_f64() {
            return Ok(Some(KeepAlive::from_seconds(seconds)));
        }
        match field.as_str() {
            Some(text) => KeepAlive::parse_go(&text)
                .map(Some)
                .map_err(|e| RunnerError::invalid(e.to_string()).param("keep_alive")),
            None => Err(wrong_type(
                Key::KeepAlive,
                "a number of seconds or a duration such as \"5m\"",
            )),
        }
    }
}

fn wrong_type(key: Key, wanted: &str) -> RunnerError {
    let name = key.as_str();
    RunnerError::invalid(format!("'{name}' must be {wanted}"))
        .param(name)
        .code("invalid_type")
}

/// Scans one JSON object, any field order. Checks the grammar on the way; depth at most 128.
///
/// # Errors
/// `InvalidRequest` with line and column for anything that is not one JSON object in UTF-8.
pub fn peek(body: &[u8]) -> Result<Peeked<'_>, RunnerError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(RunnerError::invalid(
            "The request body is empty; a JSON object is expected.",
        ));
    }
    let mut scanner = scan::Scanner::new(body)?;
    scanner.space();
    scanner.expect(b'{', "a JSON object")?;
    let mut peeked = Peeked {
        fields: [None; Key::ALL.len()],
        open: scanner.position(),
        empty: true,
    };
    scanner.space();
    if scanner.take(b'}') {
        scanner.end()?;
        return Ok(peeked);
    }
    peeked.empty = false;
    loop {
        scanner.space();
        let name = scanner.string()?;
        scanner.space();
        scanner.expect(b':', "':'")?;
        scanner.space();
        let start = scanner.position();
        scanner.value()?;
        if let Some(key) = key_of(name) {
            peeked.fields[key as usize] = Some(Field {
                start,
                raw: &body[start..scanner.position()],
            });
        }
        scanner.space();
        if scanner.take(b'}') {
            scanner.end()?;
            return Ok(peeked);
        }
        scanner.expect(b',', "',' or '}'")?;
    }
}

/// The key behind the raw text between a name's quotes.
fn key_of(name: &[u8]) -> Option<Key> {
    if memchr::memchr(b'\\', name).is_none() {
        return Key::from_wire(name);
    }
    let mut quoted = Vec::with_capacity(name.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(name);
    quoted.push(b'"');
    Key::from_wire(serde_json::from_slice::<String>(&quoted).ok()?.as_bytes())
}

/// A copy of the body with its `model` replaced (or added when absent).
pub fn rewrite_model(body: &[u8], peeked: &Peeked<'_>, model: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(model.len() + 2);
    crate::json::write_str(model, &mut value);
    rewrite(body, peeked, &[(Key::Model, value)])
}

/// A copy of the body with values replaced by raw JSON; a key that is absent is added. Of two edits of one key the last wins.
pub fn rewrite(body: &[u8], peeked: &Peeked<'_>, edits: &[(Key, Vec<u8>)]) -> Vec<u8> {
    let mut values: [Option<&[u8]>; Key::ALL.len()] = [None; Key::ALL.len()];
    for (key, value) in edits {
        values[*key as usize] = Some(value);
    }
    let added: usize = edits
        .iter()
        .map(|(key, value)| key.as_str().len() + value.len() + 4)
        .sum();
    let mut out = Vec::with_capacity(body.len() + added);
    out.extend_from_slice(&body[..peeked.open]);
    let mut first = true;
    let mut replaced: Vec<(Field<'_>, &[u8])> = Vec::new();
    for key in Key::ALL {
        let Some(value) = values[key as usize] else { continue };
        if let Some(field) = peeked.fields[key as usize] {
            replaced.push((field, value));
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        crate::json::write_str(key.as_str(), &mut out);
        out.push(b':');
        out.extend_from_slice(value);
    }
    if !first && !peeked.empty {
        out.push(b',');
    }
    replaced.sort_by_key(|(field, _)| field.start);
    let mut copied = peeked.open;
    for (field, value) in replaced {
        out.extend_from_slice(&body[copied..field.start]);
        out.extend_from_slice(value);
        copied = field.start + field.raw.len();
    }
    out.extend_from_slice(&body[copied..]);
    out
}

/// A copy of a body with members put before its own: of two of one name the later, the body's own, wins. `peeked` may be of the
/// body before [`rewrite`], which never moves its beginning. `members`: `"name":value` joined by commas.
pub fn with_defaults(body: &[u8], peeked: &Peeked<'_>, members: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + members.len() + 1);
    let (before, after) = body.split_at(peeked.open);
    out.extend_from_slice(before);
    out.extend_from_slice(members);
    if !members.is_empty() && after.trim_ascii_start().first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(after);
    out
}

#[cfg(test)]
mod tests;
