//! What one answer consists of, and when.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::death::Death;
use crate::death::die;
use crate::script::Script;

/// When which token comes and what it is; shared by streams and whole answers.
pub(crate) struct Plan {
    pub(crate) script: Script,
    words: Vec<String>,
    total: u64,
    pub(crate) finish: &'static str,
    pub(crate) start: Instant,
    death: Option<(u64, Death)>,
    /// Alternatives told with every token's probability, when a chat asks for probabilities.
    alternatives: Option<usize>,
}

/// What happens after a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Token,
    End,
    Hang,
    Cut,
    Error,
}

impl Plan {
    pub(crate) fn new(request: &Value, script: Script, process_death: Option<(u64, Death)>) -> Self {
        let limit = ["max_tokens", "max_completion_tokens", "n_predict"]
            .iter()
            .find_map(|name| request.get(*name)?.as_i64())
            .and_then(|limit| u64::try_from(limit).ok());
        let words = script.words();
        let natural = script.tokens.or((!words.is_empty()).then_some(words.len() as u64));
        let total = natural.or(limit).unwrap_or(16).min(limit.unwrap_or(u64::MAX));
        let finish = match (&script.tool_call, limit) {
            (Some(_), _) => "tool_calls",
            (None, Some(limit)) if natural.is_none_or(|natural| natural > limit) => "length",
            _ => "stop",
        };
        let own = script.die_after.map(|after| {
            (
                after,
                script
                    .die
                    .as_deref()
                    .and_then(|die| die.parse().ok())
                    .unwrap_or(Death::Exit(0)),
            )
        });
        Self {
            words,
            total,
            finish,
            start: Instant::now(),
            death: own.or(process_death),
            alternatives: (request.get("logprobs") == Some(&Value::Bool(true))).then(|| {
                let wanted = request.get("top_logprobs").and_then(Value::as_u64).unwrap_or(0);
                usize::try_from(wanted).unwrap_or(usize::MAX)
            }),
            script,
        }
    }

    pub(crate) fn token(&self, n: u64) -> String {
        Script::token(&self.words, n)
    }

    /// The probability of token `n`, in the form of chats; `None`: not asked for.
    pub(crate) fn logprob(&self, n: u64) -> Option<Value> {
        let alternatives = self.alternatives?;
        let entry =
            |token: &str, logprob: f64| json!({"id": n, "token": token, "bytes": token.as_bytes(), "logprob": logprob});
        let token = self.token(n);
        let others = ["", "?", "!", ".", ",", ";"].iter().enumerate();
        let top: Vec<Value> = others
            .map(|(at, more)| entry(&format!("{token}{more}"), -0.25 - at as f64))
            .take(alternatives)
            .collect();
        let mut told = entry(&token, -0.25);
        told["top_logprobs"] = top.into();
        Some(told)
    }

    /// When token `n` is due; `None`: at once.
    pub(crate) fn due(&self, n: u64) -> Option<Instant> {
        let first = Duration::from_millis(self.script.first_ms.unwrap_or(0));
        let spacing = match self.script.rate {
            Some(rate) if rate > 0.0 => Duration::from_secs_f64(n as f64 / rate),
            _ => Duration::ZERO,
        };
        let wait = first + spacing;
        (!wait.is_zero()).then(|| self.start + wait)
    }

    pub(crate) fn next(&self, produced: u64) -> Next {
        let at = |limit: Option<u64>| limit.is_some_and(|limit| produced >= limit);
        if let Some((after, death)) = self.death
            && produced >= after
        {
            die(death);
        }
        if at(self.script.hang_after) {
            Next::Hang
        } else if at(self.script.cut_after) {
            Next::Cut
        } else if at(self.script.error_after) {
            Next::Error
        } else if produced >= self.total {
            Next::End
        } else {
            Next::Token
        }
    }
}
