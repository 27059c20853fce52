//! `/v1/completions`: relayed where the engine does what is asked, shaped here where it does not (`echo`, `logprobs`), or
//! filled in (`suffix`).

use domain::RunnerError;
use domain::chat::{CompletionRequest, Sampling, TokenLogprob};
use serde_json::{Map, Value, json};

use super::check::{Edits, answers, check_completion};
use super::fields::{Fields, invalid, missing, unsupported, wrong_type};
use crate::peek::{Key, Peeked};

/// Most alternatives per token: OpenAI's old route knows five; what the engine can is allowed.
const MAX_LOGPROBS: i64 = 100;

/// How a request is served.
#[derive(Debug, Clone, PartialEq)]
pub enum CompletionPlan {
    /// Bytes pass, with these changes.
    Relay(Edits),
    /// The same, but the answer is shaped on its way.
    Shaped(Edits, CompletionShape),
    /// Text before and behind a gap, for the engine's own route.
    Infill(Box<CompletionRequest>, CompletionShape),
}

impl CompletionPlan {
    /// The changes for a route whose answers are not shaped (LM Studio's old one).
    ///
    /// # Errors
    /// `InvalidRequest` for what would need shaping.
    pub fn relayed(self) -> Result<Edits, RunnerError> {
        match self {
            Self::Relay(edits) => Ok(edits),
            Self::Shaped(edits, shape) if shape.echo.is_none() => Ok(edits),
            Self::Shaped(..) => Err(unsupported(
                "echo",
                "'echo' is not supported on this route; use /v1/completions.",
            )),
            Self::Infill(..) => Err(unsupported(
                "suffix",
                "'suffix' is not supported on this route; use /v1/completions.",
            )),
        }
    }
}

/// What is added to an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompletionShape {
    /// Put the prompts before the answers.
    pub echo: Option<Vec<Prompt>>,
    /// Answers per prompt.
    pub answers: usize,
    /// Alternatives per token in OpenAI's old form; `None`: no probabilities.
    pub logprobs: Option<usize>,
}

/// One prompt of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// As text.
    Text(String),
    /// As tokens of the model.
    Tokens(Vec<i64>),
}

/// Reads a body.
///
/// # Errors
/// `InvalidRequest` with `param` and `code`; fields that cannot be honoured are named.
pub fn completion_plan(body: &[u8], peeked: &Peeked<'_>) -> Result<CompletionPlan, RunnerError> {
    let mut edits = check_completion(peeked)?;
    let answers = answers(peeked)?;
    if let Some(best) = peeked.get(Key::BestOf)
        && best.as_i64() != Some(i64::from(answers))
    {
        return Err(unsupported(
            "best_of",
            "'best_of' must equal 'n' here: the engine does not choose among answers.",
        ));
    }
    let echo = flag(peeked, Key::Echo)?;
    let logprobs = match peeked.get(Key::Logprobs) {
        None => None,
        Some(field) if field.as_bool() == Some(false) => None,
        Some(field) => match field.as_i64() {
            Some(top @ 0..=MAX_LOGPROBS) => Some(top as usize),
            Some(_) => return Err(invalid("logprobs", "'logprobs' must be between 0 and 100")),
            None => return Err(wrong_type("logprobs", "an integer")),
        },
    };
    if echo && logprobs.is_some() {
        return Err(unsupported(
            "logprobs",
            "'logprobs' with 'echo' is not supported here: the engine gives none for the prompt.",
        ));
    }
    let suffix = peeked.get(Key::Suffix).filter(|suffix| !suffix.is_empty());
    if !echo && logprobs.is_none() && suffix.is_none() {
        return Ok(CompletionPlan::Relay(edits));
    }
    let shape = CompletionShape {
        echo: if echo { Some(prompts(peeked)?) } else { None },
        answers: answers as usize,
        logprobs,
    };
    if suffix.is_some() {
        if answers > 1 {
            return Err(unsupported("n", "'n' with 'suffix' is not supported here."));
        }
        return Ok(CompletionPlan::Infill(Box::new(infill(body, logprobs)?), shape));
    }
    if echo {
        edits.push((Key::Echo, b"false".to_vec()));
    }
    if logprobs == Some(0) {
        // The engine's zero is "none at all".
        edits.push((Key::Logprobs, b"1".to_vec()));
    }
    Ok(CompletionPlan::Shaped(edits, shape))
}

fn flag(peeked: &Peeked<'_>, key: Key) -> Result<bool, RunnerError> {
    let Some(field) = peeked.get(key) else { return Ok(false) };
    field.as_bool().ok_or_else(|| wrong_type(key.as_str(), "a boolean"))
}

/// `prompt` in its four forms.
fn prompts(peeked: &Peeked<'_>) -> Result<Vec<Prompt>, RunnerError> {
    let shape = || wrong_type("prompt", "a string, an array of strings, or arrays of tokens");
    let Some(field) = peeked.get(Key::Prompt) else {
        return Err(missing("prompt"));
    };
    let value: Value = serde_json::from_slice(field.raw).map_err(|_| shape())?;
    let tokens = |list: &[Value]| list.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(list) => tokens(list).map(Prompt::Tokens),
        _ => None,
    };
    let all = match &value {
        Value::Array(list) if !list.first().is_some_and(Value::is_number) => list.iter().map(one).collect(),
        value => one(value).map(|prompt| vec![prompt]),
    };
    all.ok_or_else(shape)
}

/// Members that have a place of their own in the domain form, or none in the engine's fill-in route.
const TAKEN: [&str; 16] = [
    "model",
    "prompt",
    "suffix",
    "stream",
    "stream_options",
    "n",
    "best_of",
    "echo",
    "logprobs",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "user",
    "ttl",
    "keep_alive",
];

fn infill(body: &[u8], logprobs: Option<usize>) -> Result<CompletionRequest, RunnerError> {
    let members: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| RunnerError::invalid(format!("Invalid JSON: {error}")))?;
    let fields = Fields::of(&members, "");
    let Some(Value::String(prompt)) = fields.get("prompt") else {
        return Err(unsupported(
            "suffix",
            "'suffix' is supported for one 'prompt' of text only.",
        ));
    };
    let stop = match fields.get("stop") {
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops
            .iter()
            .filter_map(|stop| stop.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    let max_tokens = fields
        .integer("max_tokens")?
        .or(fields.integer("max_completion_tokens")?);
    let sampling = Sampling {
        max_tokens,
        stop,
        seed: fields.integer("seed")?,
        fields: members
            .iter()
            .filter(|(name, value)| !TAKEN.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    Ok(CompletionRequest {
        prompt: prompt.clone(),
        suffix: fields.text("suffix")?.map(str::to_owned),
        sampling,
        logprobs: logprobs.map(|top| top as u32),
        ..CompletionRequest::default()
    })
}

/// Probabilities in the form of OpenAI's old route. `offset`: characters of text before these tokens; moved on.
pub(super) fn old_logprobs(tokens: &[TokenLogprob], alternatives: usize, offset: &mut usize) -> Value {
    let mut offsets = Vec::with_capacity(tokens.len());
    let mut top = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(*offset);
        *offset += token.token.chars().count();
        let best: Map<String, Value> = token
            .top
            .iter()
            .take(alternatives)
            .map(|token| (token.token.clone(), token.logprob.into()))
            .collect();
        top.push(best);
    }
    json!({
        "tokens": tokens.iter().map(|token| &*token.token).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": if alternatives == 0 { Value::Null } else { json!(top) },
        "text_offset": offsets,
    })
}
