use std::borrow::Cow;
use std::time::Duration;

use domain::{
    ErrorKind, RunnerError,
    chat::{FinishReason, GenerationEvent, PromptProgress, TokenLogprob, Usage},
};

use super::error::error_from_value;
use super::wire::{ChatChunk, CompletionChunk, Text, Timings, TokenProb, WireUsage};
use crate::sse::SseSplitter;

/// Which stream form the engine sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `/v1/chat/completions`.
    Chat,
    /// `/completion` and `/infill`.
    Completion,
}

/// A [`GenerationEvent`] that borrows from the engine's bytes.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Text(Cow<'a, str>),
    Reasoning(Cow<'a, str>),
    ToolCall {
        index: u32,
        id: Option<Cow<'a, str>>,
        name: Option<Cow<'a, str>>,
        arguments: Cow<'a, str>,
    },
    Logprobs(Vec<TokenLogprob>),
    PromptProgress(PromptProgress),
    Finish(FinishReason),
    Usage(Usage),
    Error(RunnerError),
    Done,
}

impl From<Piece<'_>> for GenerationEvent {
    fn from(piece: Piece<'_>) -> Self {
        match piece {
            Piece::Text(text) => Self::Text(text.into_owned()),
            Piece::Reasoning(text) => Self::Reasoning(text.into_owned()),
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => Self::ToolCall {
                index,
                id: id.map(Cow::into_owned),
                name: name.map(Cow::into_owned),
                arguments: arguments.into_owned(),
            },
            Piece::Logprobs(tokens) => Self::Logprobs(tokens),
            Piece::PromptProgress(progress) => Self::PromptProgress(progress),
            Piece::Finish(reason) => Self::Finish(reason),
            Piece::Usage(usage) => Self::Usage(usage),
            Piece::Error(error) => Self::Error(error.message),
            Piece::Done => Self::Done,
        }
    }
}

/// Engine stream bytes to events, whatever the chunking.
#[derive(Debug)]
pub struct GenerationDecoder {
    splitter: SseSplitter,
    state: State,
}

#[derive(Debug)]
struct State {
    wire: Wire,
    /// A finish reason was seen: everything visible was delivered.
    finished: bool,
    /// `[DONE]`, the last `/completion` event or an error was seen; the rest is ignored.
    ended: bool,
    /// The stop text that ended the answer, where the engine names it.
    stop_text: Option<String>,
}

impl GenerationDecoder {
    /// A decoder for one stream.
    pub fn new(wire: Wire) -> Self {
        Self {
            splitter: SseSplitter::new(),
            state: State {
                wire,
                finished: false,
                ended: false,
                stop_text: None,
            },
        }
    }

    /// Decodes the next piece.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<GenerationEvent>) {
        self.decode(chunk, |piece| out.push(piece.into()));
    }

    /// The stream ended: adds an [`GenerationEvent::Error`] when it was cut.
    pub fn finish(&mut self, out: &mut Vec<GenerationEvent>) {
        if let Some(error) = self.cut() {
            out.push(GenerationEvent::Error(error.message));
        }
    }

    /// The stop text that ended the answer. Chat streams name it only when the request had `"verbose": true`.
    pub fn stop_text(&self) -> Option<&str> {
        self.state.stop_text.as_deref()
    }

    /// Nothing that may still come matters.
    pub fn ended(&self) -> bool {
        self.state.ended
    }

    /// The stream ended here: the error of a cut stream, `None` when it was complete. Only the first call can give one.
    pub(crate) fn cut(&mut self) -> Option<RunnerError> {
        let complete = self.state.finished || self.state.ended;
        self.state.ended = true;
        (!complete).then(cut_error)
    }

    pub(crate) fn decode(&mut self, chunk: &[u8], mut sink: impl FnMut(Piece<'_>)) {
        if self.state.ended {
            return;
        }
        let state = &mut self.state;
        self.splitter
            .push(chunk, |event| state.event(event.event, event.data, &mut sink));
        if self.splitter.overflowed() && !self.state.ended {
            self.state.fail(nonsense("an event of more than 16 MiB"), &mut sink);
        }
    }
}

impl State {
    fn event(&mut self, name: &[u8], data: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        // With several prompts the engine says `null` where it has nothing to say yet.
        if self.ended || data == b"null" {
            return;
        }
        if data == b"[DONE]" {
            self.ended = true;
            sink(Piece::Done);
            return;
        }
        if name == b"error" {
            let value = serde_json::from_slice(data).unwrap_or_default();
            return self.fail(error_from_value(None, &value), sink);
        }
        match self.wire {
            Wire::Chat => {
                if let Some((reasoning, text)) = plain_delta(data) {
                    let text = Cow::Borrowed(text);
                    return sink(if reasoning {
                        Piece::Reasoning(text)
                    } else {
                        Piece::Text(text)
                    });
                }
                match serde_json::from_slice::<ChatChunk<'_>>(data) {
                    Ok(chunk) => self.chat(chunk, sink),
                    Err(_) => self.fail(nonsense("an event that is not a chat chunk"), sink),
                }
            }
            Wire::Completion => match serde_json::from_slice::<CompletionChunk<'_>>(data) {
                Ok(chunk) => self.completion(chunk, sink),
                Err(_) => self.fail(nonsense("an event that is not a completion chunk"), sink),
            },
        }
    }

    fn fail(&mut self, error: RunnerError, sink: &mut impl FnMut(Piece<'_>)) {
        self.ended = true;
        sink(Piece::Error(error));
    }

    fn chat(&mut self, chunk: ChatChunk<'_>, sink: &mut impl FnMut(Piece<'_>)) {
        if let Some(error) = chunk.error {
            return self.fail(error_from_value(None, &error), sink);
        }
        if let Some(progress) = chunk.prompt_progress {
            sink(Piece::PromptProgress(progress.into()));
        }
        self.stopped_by(chunk.verbose.and_then(|verbose| verbose.stopping_word));
        if let Some(choice) = chunk.choices.0 {
            if let Some(text) = visible(choice.delta.reasoning_content) {
                sink(Piece::Reasoning(text));
            }
            if let Some(text) = visible(choice.delta.content) {
                sink(Piece::Text(text));
            }
            for (position, call) in choice.delta.tool_calls.into_iter().flatten().enumerate() {
                sink(Piece::ToolCall {
                    index: call.index.unwrap_or(position as u32),
                    id: visible(call.id),
                    name: visible(call.function.name),
                    arguments: call.function.arguments.map(|text| text.0).unwrap_or_default(),
                });
            }
            if let Some(tokens) = choice
                .logprobs
                .and_then(|l| l.content)
                .filter(|tokens| !tokens.is_empty())
            {
                sink(Piece::Logprobs(tokens.into_iter().map(token_logprob).collect()));
            }
            if let Some(reason) = choice.finish_reason {
                self.finished = true;
                sink(Piece::Finish(match &*reason.0 {
                    "length" => FinishReason::Length,
                    "tool_calls" => FinishReason::ToolCalls,
                    _ => FinishReason::Stop,
                }));
            }
        }
        if let Some(usage) = usage(chunk.timings, chunk.usage) {
            sink(Piece::Usage(usage));
        }
    }

    fn stopped_by(&mut self, word: Option<Text<'_>>) {
        if let Some(word) = visible(word) {
            self.stop_text = Some(word.into_owned());
        }
    }

    fn completion(&mut self, chunk: CompletionChunk<'_>, sink: &mut impl FnMut(Piece<'_>)) {
        if let Some(error) = chunk.error {
            return self.fail(error_from_value(None, &error), sink);
        }
        if let Some(progress) = chunk.prompt_progress {
            sink(Piece::PromptProgress(progress.into()));
        }
        self.stopped_by(chunk.stopping_word);
        if let Some(text) = visible(chunk.content) {
            sink(Piece::Text(text));
        }
        if let Some(tokens) = chunk.completion_probabilities.filter(|tokens| !tokens.is_empty()) {
            sink(Piece::Logprobs(tokens.into_iter().map(token_logprob).collect()));
        }
        if chunk.stop {
            let limit = chunk.stop_type.is_some_and(|kind| kind.0 == "limit");
            sink(Piece::Finish(if limit {
                FinishReason::Length
            } else {
                FinishReason::Stop
            }));
        }
        if let Some(usage) = usage(chunk.timings, None) {
            sink(Piece::Usage(usage));
        }
        if chunk.stop {
            self.finished = true;
            self.ended = true;
            sink(Piece::Done);
        }
    }
}

/// The text of a chunk that holds nothing but one piece of text without escapes, in exactly the form llama-server writes it:
/// nine of ten events of a stream. Every other form, also of other engines, takes the full parser. (goal P8)
fn plain_delta(data: &[u8]) -> Option<(bool, &str)> {
    let delta = data.strip_prefix(br#"{"choices":[{"finish_reason":null,"index":0,"delta":{""#)?;
    let (reasoning, text) = match delta.strip_prefix(br#"content":""#) {
        Some(text) => (false, text),
        None => (true, delta.strip_prefix(br#"reasoning_content":""#)?),
    };
    let end = memchr::memchr2(b'"', b'\\', text)?;
    let (text, rest) = text.split_at(end);
    // Counts and times would come after `object`, probabilities inside the choice.
    let plain = !text.is_empty()
        && text.iter().all(|byte| *byte >= 0x20)
        && rest.starts_with(br#""}}],"created":"#)
        && rest.ends_with(br#","object":"chat.completion.chunk"}"#);
    if plain {
        std::str::from_utf8(text).ok().map(|text| (reasoning, text))
    } else {
        None
    }
}

fn visible(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|text| text.0).filter(|text| !text.is_empty())
}

fn usage(timings: Option<Timings>, usage: Option<WireUsage>) -> Option<Usage> {
    if let Some(timings) = timings {
        return Some(Usage {
            prompt_tokens: timings.cache_n.saturating_add(timings.prompt_n),
            cached_tokens: timings.cache_n,
            completion_tokens: timings.predicted_n,
            prompt_time: milliseconds(timings.prompt_ms),
            completion_time: milliseconds(timings.predicted_ms),
        });
    }
    usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        ..Usage::default()
    })
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

fn token_logprob(token: TokenProb<'_>) -> TokenLogprob {
    let text = token.token.0;
    TokenLogprob {
        bytes: token.bytes.unwrap_or_else(|| text.as_bytes().to_vec()),
        token: text.into_owned(),
        id: token.id,
        // The engine's null stands for minus infinity; the lowest finite number keeps the reply valid JSON.
        logprob: token.logprob.unwrap_or(f64::from(f32::MIN)),
        top: token.top_logprobs.into_iter().flatten().map(token_logprob).collect(),
    }
}

/// The error of a stream that ended too early.
pub(crate) fn cut_error() -> RunnerError {
    RunnerError::new(
        ErrorKind::EngineFailed,
        "The model's engine ended before the answer was complete. Try again; the engine is started anew.",
    )
}

fn nonsense(what: &str) -> RunnerError {
    RunnerError::new(ErrorKind::EngineFailed, format!("The model's engine sent {what}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the full parser makes of the same bytes: the same text, because a space in the prefix defeats the short cut.
    #[test]
    fn the_short_cut_changes_nothing() {
        for stream in [
            include_str!("../../../../tests/golden/engine/chat.sse"),
            include_str!("../../../../tests/golden/engine/think.sse"),
            include_str!("../../../../tests/golden/engine/emoji.sse"),
            include_str!("../../../../tests/golden/engine/schema.sse"),
            include_str!("../../../../tests/golden/engine/logprobs.sse"),
            include_str!("../../../../tests/golden/engine/tools2.sse"),
        ] {
            let events = |stream: &str| {
                let mut events = Vec::new();
                GenerationDecoder::new(Wire::Chat).push(stream.as_bytes(), &mut events);
                events
            };
            assert_eq!(events(stream), events(&stream.replace("{\"choices\"", "{ \"choices\"")));
        }
        let chat = include_str!("../../../../tests/golden/engine/chat.sse");
        let short = chat
            .lines()
            .filter_map(|line| plain_delta(line.strip_prefix("data: ")?.as_bytes()))
            .count();
        assert_eq!(short, 9, "the recorded form is known");
    }
}
