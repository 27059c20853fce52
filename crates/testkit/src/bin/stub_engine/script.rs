//! How one request is answered.

use serde::Deserialize;

/// The `stub` object of a request body (or an `x-stub` header with the same JSON); missing fields come from `STUB_*`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// Tokens to produce. Without it: the request's limit (`max_tokens`, `n_predict`), else 16.
    pub(crate) tokens: Option<u64>,
    /// Tokens per second; 0 or absent: as fast as they are taken.
    pub(crate) rate: Option<f64>,
    /// Milliseconds before the first token.
    pub(crate) first_ms: Option<u64>,
    /// Sends a stream in pieces of this many bytes, also inside UTF-8 characters and inside `data:`.
    pub(crate) split: Option<usize>,
    /// Hangs after this many tokens: no more bytes, `/health` stays 200, `/metrics` and other requests hang too.
    pub(crate) hang_after: Option<u64>,
    /// The process dies after this many tokens, as `die` says (`exit:0` by default).
    pub(crate) die_after: Option<u64>,
    /// `exit:N` or `signal:N`.
    pub(crate) die: Option<String>,
    /// The connection breaks after this many tokens, without an end of the body.
    pub(crate) cut_after: Option<u64>,
    /// An error event in the stream after this many tokens, as the engine sends it when a context is full.
    pub(crate) error_after: Option<u64>,
    /// The answer, cut at blanks into tokens and repeated as needed; ` tok0`, ` tok1`, … without it.
    pub(crate) text: Option<String>,
    /// Answers with this status at once.
    pub(crate) status: Option<u16>,
    /// Error message with it.
    pub(crate) error: Option<String>,
    /// Answers with this tool call instead of text: `{"name":…,"arguments":"…"}`.
    pub(crate) tool_call: Option<serde_json::Value>,
    /// Puts this before the content as `reasoning_content`.
    pub(crate) reasoning: Option<String>,
    /// Lets chunks of one stream share a write; by default each is written by itself, as the real engine does.
    pub(crate) batch: Option<bool>,
}

impl Script {
    /// This request's values, with `defaults` where it says nothing.
    pub(crate) fn or(self, defaults: &Self) -> Self {
        let d = defaults.clone();
        Self {
            tokens: self.tokens.or(d.tokens),
            rate: self.rate.or(d.rate),
            first_ms: self.first_ms.or(d.first_ms),
            split: self.split.or(d.split),
            hang_after: self.hang_after.or(d.hang_after),
            die_after: self.die_after.or(d.die_after),
            die: self.die.or(d.die),
            cut_after: self.cut_after.or(d.cut_after),
            error_after: self.error_after.or(d.error_after),
            text: self.text.or(d.text),
            status: self.status.or(d.status),
            error: self.error.or(d.error),
            tool_call: self.tool_call.or(d.tool_call),
            reasoning: self.reasoning.or(d.reasoning),
            batch: self.batch.or(d.batch),
        }
    }

    /// The text of a token.
    pub(crate) fn token(words: &[String], n: u64) -> String {
        match words.len() {
            0 => format!(" tok{n}"),
            len => words[usize::try_from(n).unwrap_or(usize::MAX) % len].clone(),
        }
    }

    /// The text cut into tokens: every word keeps the blank before it.
    pub(crate) fn words(&self) -> Vec<String> {
        let Some(text) = &self.text else { return Vec::new() };
        let mut words: Vec<String> = Vec::new();
        for c in text.chars() {
            match words.last_mut() {
                Some(word) if c != ' ' => word.push(c),
                _ => words.push(c.to_string()),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_join_to_the_text() {
        let script = Script {
            text: Some("Grüße aus 東京  !".to_owned()),
            ..Script::default()
        };
        assert_eq!(script.words().concat(), "Grüße aus 東京  !");
        assert_eq!(script.words()[1], " aus");
        assert_eq!(Script::token(&[], 3), " tok3");
    }
}
