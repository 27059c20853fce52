//! Answers of `/v1/completions` that are shaped on their way: prompts echoed, probabilities in OpenAI's old form, gaps filled.

use domain::RunnerError;
use domain::chat::{FinishReason, TokenLogprob, Usage};
use serde_json::{Map, Value, json};

use super::completion::{CompletionShape, old_logprobs};
use super::relay::{StreamErrorForm, stream_error};
use crate::Transcoder;
use crate::engine::{Answer, GenerationDecoder, Piece, Wire, cut_error, error_from_value};
use crate::json::to_vec;
use crate::sse::{SseSplitter, write_data};

/// What is done to the choices of an answer.
#[derive(Debug, Clone)]
struct Shaper {
    /// Texts of the prompts, to be put before the first text of each choice.
    echo: Vec<String>,
    answers: usize,
    logprobs: Option<usize>,
    /// By choice: the prompt was put, and the characters of text so far.
    seen: Vec<(bool, usize)>,
}

impl Shaper {
    fn new(shape: &CompletionShape, echo: Vec<String>) -> Self {
        Self {
            echo,
            answers: shape.answers.max(1),
            logprobs: shape.logprobs,
            seen: Vec::new(),
        }
    }

    fn choices(&mut self, body: &mut Map<String, Value>) {
        let choices = body.get_mut("choices").and_then(Value::as_array_mut);
        for choice in choices.into_iter().flatten().filter_map(Value::as_object_mut) {
            self.choice(choice);
        }
    }

    fn choice(&mut self, choice: &mut Map<String, Value>) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0) as usize;
        if index >= 4096 {
            return;
        }
        if self.seen.len() <= index {
            self.seen.resize(index + 1, (false, 0));
        }
        let (put, offset) = &mut self.seen[index];
        if !std::mem::replace(put, true)
            && let Some(prompt) = self.echo.get(index / self.answers)
        {
            let text = choice.get("text").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{prompt}{text}");
            choice.insert("text".into(), text.into());
        }
        if let Some(alternatives) = self.logprobs
            && let Some(content) = choice.get("logprobs").and_then(|logprobs| logprobs.get("content"))
        {
            let tokens: Vec<TokenLogprob> = content.as_array().into_iter().flatten().map(token).collect();
            let old = old_logprobs(&tokens, alternatives, offset);
            choice.insert("logprobs".into(), old);
        }
    }
}

/// A token of the engine's list.
fn token(value: &Value) -> TokenLogprob {
    let top = value.get("top_logprobs").and_then(Value::as_array);
    TokenLogprob {
        id: value.get("id").and_then(Value::as_i64),
        token: value
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        logprob: value
            .get("logprob")
            .and_then(Value::as_f64)
            .unwrap_or(f64::from(f32::MIN)),
        bytes: Vec::new(),
        top: top.into_iter().flatten().map(token).collect(),
    }
}

/// A whole answer of the engine, shaped. `echo`: the prompts as text, when they are asked for.
///
/// # Errors
/// `EngineFailed` when the answer is not a JSON object.
pub fn shape_completion(body: &[u8], shape: &CompletionShape, echo: Vec<String>) -> Result<Vec<u8>, RunnerError> {
    let mut body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| cut_error())?;
    Shaper::new(shape, echo).choices(&mut body);
    Ok(to_vec(&body))
}

/// The engine's stream, shaped.
pub struct ShapedStream {
    splitter: SseSplitter,
    shaper: Shaper,
    form: StreamErrorForm,
    error: Option<RunnerError>,
    ended: bool,
}

impl ShapedStream {
    /// For one stream. `echo`: the prompts as text, when they are asked for.
    pub fn new(shape: &CompletionShape, echo: Vec<String>, form: StreamErrorForm) -> Self {
        Self {
            splitter: SseSplitter::new(),
            shaper: Shaper::new(shape, echo),
            form,
            error: None,
            ended: false,
        }
    }
}

impl Transcoder for ShapedStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Self {
            splitter,
            shaper,
            form,
            error,
            ended,
        } = self;
        splitter.push(chunk, |event| {
            if *ended || event.data == b"null" {
                return;
            }
            if event.data == b"[DONE]" {
                write_data(event.data, out);
                *ended = true;
                return;
            }
            let body = serde_json::from_slice::<Map<String, Value>>(event.data);
            let found = match &body {
                Ok(body) => body.get("error").map(|value| error_from_value(None, value)),
                Err(_) => Some(cut_error()),
            };
            if let Some(found) = found {
                stream_error(&found, *form, out);
                *error = Some(found);
                *ended = true;
                return;
            }
            if let Ok(mut body) = body {
                shaper.choices(&mut body);
                write_data(&to_vec(&body), out);
            }
        });
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.ended {
            self.fail(&cut_error(), out);
        }
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.ended, true) {
            stream_error(error, self.form, out);
            self.error = Some(error.clone());
        }
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn error(&self) -> Option<&RunnerError> {
        self.error.as_ref()
    }

    fn usage(&self) -> Option<&Usage> {
        None
    }
}

/// What the chunks of a filled gap share.
#[derive(Debug, Clone)]
pub struct InfillHead {
    /// `cmpl-…`.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// Unix seconds.
    pub created: i64,
    /// What is added.
    pub shape: CompletionShape,
    /// The prompt, when it is to be echoed.
    pub echo: Vec<String>,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
}

impl InfillHead {
    fn body(&self, choice: Option<Value>) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": choice.into_iter().collect::<Vec<_>>()
        })
    }

    fn usage(usage: &Usage) -> Value {
        json!({
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
        })
    }

    /// The whole answer.
    pub fn reply(&self, answer: &Answer) -> Vec<u8> {
        let text = self.echo.concat() + &answer.text;
        let logprobs = self
            .shape
            .logprobs
            .map(|alternatives| old_logprobs(&answer.logprobs, alternatives, &mut 0));
        let mut body = self.body(Some(json!({
            "index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason(answer.finish)
        })));
        body["usage"] = Self::usage(&answer.usage);
        to_vec(&body)
    }
}

fn reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Length) => "length",
        _ => "stop",
    }
}

/// The engine's fill-in stream as a stream of completions.
pub struct InfillStream {
    decoder: GenerationDecoder,
    state: Infill,
}

struct Infill {
    head: InfillHead,
    form: StreamErrorForm,
    offset: usize,
    /// Text whose probabilities come with the next piece.
    held: Option<String>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    error: Option<RunnerError>,
    over: bool,
}

impl InfillStream {
    /// For one stream.
    pub fn new(head: InfillHead, form: StreamErrorForm) -> Self {
        Self {
            decoder: GenerationDecoder::new(Wire::Completion),
            state: Infill {
                head,
                form,
                offset: 0,
                held: None,
                usage: None,
                finish: None,
                error: None,
                over: false,
            },
        }
    }
}

impl Infill {
    fn text(&mut self, text: &str, tokens: &[TokenLogprob], out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.head.echo).concat() + text;
        let offset = &mut self.offset;
        let logprobs = self
            .head
            .shape
            .logprobs
            .map(|alternatives| old_logprobs(tokens, alternatives, offset));
        let choice = json!({"index": 0, "text": text, "logprobs": logprobs, "finish_reason": null});
        write_data(&to_vec(&self.head.body(Some(choice))), out);
    }

    fn release(&mut self, tokens: &[TokenLogprob], out: &mut Vec<u8>) {
        if let Some(text) = self.held.take() {
            self.text(&text, tokens, out);
        }
    }
}

impl Transcoder for InfillStream {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Self { decoder, state } = self;
        decoder.decode(chunk, |piece| match piece {
            Piece::Text(text) => {
                state.release(&[], out);
                if state.head.shape.logprobs.is_some() {
                    state.held = Some(text.into_owned());
                } else {
                    state.text(&text, &[], out);
                }
            }
            Piece::Logprobs(tokens) => state.release(&tokens, out),
            Piece::Finish(reason) => state.finish = Some(reason),
            Piece::Usage(usage) => state.usage = Some(usage),
            Piece::Error(error) => state.error = Some(error),
            _ => {}
        });
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(error) = self.decoder.cut() {
            self.state.error.get_or_insert(error);
        }
        let state = &mut self.state;
        if state.over {
            return;
        }
        if let Some(error) = state.error.clone() {
            return self.fail(&error, out);
        }
        state.over = true;
        state.release(&[], out);
        let rest = std::mem::take(&mut state.head.echo).concat();
        let choice = json!({"index": 0, "text": rest, "logprobs": null, "finish_reason": reason(state.finish)});
        write_data(&to_vec(&state.head.body(Some(choice))), out);
        if state.head.include_usage {
            let mut body = state.head.body(None);
            body["usage"] = InfillHead::usage(&state.usage.unwrap_or_default());
            write_data(&to_vec(&body), out);
        }
        write_data(b"[DONE]", out);
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.state.over, true) {
            stream_error(error, self.state.form, out);
            self.state.error.get_or_insert_with(|| error.clone());
        }
    }

    fn ended(&self) -> bool {
        self.decoder.ended()
    }

    fn error(&self) -> Option<&RunnerError> {
        self.state.error.as_ref()
    }

    fn usage(&self) -> Option<&Usage> {
        self.state.usage.as_ref()
    }
}
