//! Finds a few top-level fields of a JSON request body without building a tree.
use std::borrow::Cow;
use std::time::Duration;

use domain::{KeepAlive, RunnerError};

/// Top-level fields the scanner looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "each is the field of the same name in snake case")]
pub enum Key {
    Model,
    Stream,
    Messages,
    Prompt,
    Input,
    Ttl,
    KeepAlive,
    ToolChoice,
    Tools,
    ResponseFormat,
    MaxTokens,
    MaxCompletionTokens,
    NPredict,
    NKeep,
    NDiscard,
    IdSlot,
    NProbs,
    N,
    Grammar,
    JsonSchema,
    Query,
    Documents,
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
        None
    }
    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        None
    }
    /// The value of an integer.
    pub fn as_i64(&self) -> Option<i64> {
        None
    }
    /// Is it `null`?
    pub fn is_null(&self) -> bool {
        false
    }
    /// `[]`, `{}` or `""`, white space inside allowed.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What [`peek`] found.
#[derive(Debug, Clone)]
pub struct Peeked<'a> {
    fields: Vec<Option<Field<'a>>>,
}

impl<'a> Peeked<'a> {
    /// The last field of this name (llama-server's parser lets the last one win); `None` when absent or null.
    pub fn get(&self, _key: Key) -> Option<Field<'a>> {
        let _ = &self.fields;
        None
    }
    /// `model`; an error when it is not a string.
    pub fn model(&self) -> Result<Option<Cow<'a, str>>, RunnerError> {
        Ok(None)
    }
    /// `stream`, false when absent; an error when it is not a boolean.
    pub fn stream(&self) -> Result<bool, RunnerError> {
        Ok(false)
    }
    /// `ttl` in seconds, LM Studio contract 3: an integer of at least 1.
    pub fn ttl(&self) -> Result<Option<Duration>, RunnerError> {
        Ok(None)
    }
    /// `keep_alive` by Ollama's rules (contract 4.4).
    pub fn keep_alive(&self) -> Result<Option<KeepAlive>, RunnerError> {
        Ok(None)
    }
}

/// Scans one JSON object, any field order. Checks the grammar on the way; depth at most 128.
///
/// # Errors
/// `InvalidRequest` with line and column for anything that is not one JSON object in UTF-8.
pub fn peek(_body: &[u8]) -> Result<Peeked<'_>, RunnerError> {
    Ok(Peeked { fields: Vec::new() })
}

/// A copy of the body with its `model` replaced (or added when absent).
pub fn rewrite_model(body: &[u8], _peeked: &Peeked<'_>, _model: &str) -> Vec<u8> {
    body.to_vec()
}

/// A copy of the body with values replaced by raw JSON; a key that is absent is added.
pub fn rewrite(body: &[u8], _peeked: &Peeked<'_>, _edits: &[(Key, Vec<u8>)]) -> Vec<u8> {
    body.to_vec()
}
