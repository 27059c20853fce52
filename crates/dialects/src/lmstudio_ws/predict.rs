//! The engine's stream as the messages of a prediction channel (contract 10.5, 11.4, 11.5).

use std::borrow::Cow;

use domain::RunnerError;
use domain::chat::{FinishReason, PromptProgress, TokenLogprob, Usage};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::frames::channel_send;
use super::{KvConfig, Prediction, WireError};
use crate::Clock;
use crate::engine::{GenerationDecoder, Piece, Wire};
use crate::json::{write_str, write_u64};

/// Why a prediction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The client cancelled.
    UserStopped,
    /// The model said the end.
    EosFound,
    /// A stop text was met.
    StopStringFound(String),
    /// The model called tools.
    ToolCalls,
    /// The limit of the request.
    MaxPredictedTokensReached,
    /// The context is full.
    ContextLengthReached,
}

impl StopReason {
    fn as_str(&self) -> &'static str {
        match self {
            Self::UserStopped => "userStopped",
            Self::EosFound => "eosFound",
            Self::StopStringFound(_) => "stopStringFound",
            Self::ToolCalls => "toolCalls",
            Self::MaxPredictedTokensReached => "maxPredictedTokensReached",
            Self::ContextLengthReached => "contextLengthReached",
        }
    }
}

/// Counts and times of a prediction. Unknown values are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Why it ended.
    pub stop: StopReason,
    /// Generated tokens per second.
    pub tokens_per_second: Option<f64>,
    /// From the request to the first token.
    pub time_to_first_token: Option<f64>,
    /// From the request to the end.
    pub total_time: f64,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens.
    pub predicted_tokens: u64,
}

impl Stats {
    /// The object on the wire.
    pub fn value(&self) -> Value {
        let mut stats = Map::new();
        stats.insert("stopReason".into(), self.stop.as_str().into());
        if let StopReason::StopStringFound(text) = &self.stop {
            stats.insert("stopString".into(), text.as_str().into());
        }
        let mut number = |name: &str, value: Option<f64>| {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                stats.insert(name.into(), json!(value));
            }
        };
        number("tokensPerSecond", self.tokens_per_second);
        number("timeToFirstTokenSec", self.time_to_first_token);
        number("totalTimeSec", Some(self.total_time));
        if let Some(prompt) = self.prompt_tokens {
            stats.insert("promptTokensCount".into(), prompt.into());
        }
        stats.insert("predictedTokensCount".into(), self.predicted_tokens.into());
        if let Some(prompt) = self.prompt_tokens {
            stats.insert("totalTokensCount".into(), (prompt + self.predicted_tokens).into());
        }
        Value::Object(stats)
    }
}

/// The last message of a prediction.
pub fn success_message(stats: &Stats, instance: &Value, load: &KvConfig, prediction: &KvConfig) -> Value {
    json!({
        "type": "success",
        "stats": stats.value(),
        "modelInfo": instance,
        "loadModelConfig": load,
        "predictionConfig": prediction,
    })
}

/// Turns the engine's bytes into whole frames of one channel.
pub struct PredictStream {
    decoder: GenerationDecoder,
    state: State,
}

struct State {
    channel: i64,
    clock: Clock,
    begun: i64,
    first_token: Option<i64>,
    tags: (String, String),
    max_tokens: Option<i64>,
    tool_stops: Vec<String>,
    logprobs: bool,
    reasoning: bool,
    /// Last progress sent, so that it strictly rises.
    progress: Option<f64>,
    /// The engine's last word about the prompt.
    prompt: PromptProgress,
    /// Text that waits for its tokens' probabilities, which follow in the same event.
    held: Option<(bool, String)>,
    tokens: Vec<TokenLogprob>,
    pieces: u64,
    call: Option<Call>,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    error: Option<RunnerError>,
    /// The whole answer, when somebody reads the log.
    kept: Option<String>,
}

#[derive(Default)]
struct Call {
    index: u32,
    id: Option<String>,
    name: String,
    arguments: String,
}

impl PredictStream {
    /// For one channel. `keep`: the answer's text is wanted at the end.
    pub fn new(channel: i64, wire: Wire, prediction: &Prediction, clock: Clock, keep: bool) -> Self {
        let begun = clock();
        Self {
            decoder: GenerationDecoder::new(wire),
            state: State {
                channel,
                clock,
                begun,
                first_token: None,
                tags: prediction.tags.clone(),
                max_tokens: prediction.sampling.max_tokens,
                tool_stops: prediction.tool_stops.clone(),
                logprobs: prediction.logprobs.is_some(),
                reasoning: false,
                progress: None,
                prompt: PromptProgress::default(),
                held: None,
                tokens: Vec::new(),
                pieces: 0,
                call: None,
                finish: None,
                usage: None,
                error: None,
                kept: keep.then(String::new),
            },
        }
    }

    /// Next piece of the engine's body.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<String>) {
        let state = &mut self.state;
        self.decoder.decode(chunk, |piece| state.piece(piece, out));
        state.flush(out);
    }

    /// Nothing that may still come matters.
    pub fn ended(&self) -> bool {
        self.decoder.ended()
    }

    /// A sign of life while nothing comes from the engine: progress that rises a little (contract 10.5: Python gives up
    /// after 60 s of silence). Nothing once there are fragments.
    pub fn still_waiting(&mut self, out: &mut Vec<String>) {
        if self.state.first_token.is_none() {
            let next = self.state.progress.map_or(0.0, |last| last + (1.0 - last) / 1e3);
            self.state.progress(next, out);
        }
    }

    /// The engine's body ended: the counts of a complete answer.
    ///
    /// # Errors
    /// What the engine reported in mid-stream, or that the stream was cut.
    pub fn finish(&mut self, out: &mut Vec<String>) -> Result<Stats, RunnerError> {
        self.state.flush(out);
        if let Some(error) = self.state.error.take().or_else(|| self.decoder.cut()) {
            return Err(error);
        }
        let cut_call = self.state.finish == Some(FinishReason::Length);
        self.state.end_call(cut_call, out);
        self.state.close_reasoning(out);
        let stop = match (self.decoder.stop_text(), self.state.finish) {
            (_, Some(FinishReason::ToolCalls)) => StopReason::ToolCalls,
            (Some(text), _) if self.state.tool_stops.iter().any(|stop| stop == text) => StopReason::ToolCalls,
            (Some(text), _) => StopReason::StopStringFound(text.to_owned()),
            (None, Some(FinishReason::Length)) if self.state.reached_limit() => StopReason::MaxPredictedTokensReached,
            (None, Some(FinishReason::Length)) => StopReason::ContextLengthReached,
            (None, Some(FinishReason::Stop) | None) => StopReason::EosFound,
        };
        Ok(self.state.stats(stop))
    }

    /// The client cancelled: the counts so far.
    pub fn cancelled(&mut self, out: &mut Vec<String>) -> Stats {
        self.state.flush(out);
        self.state.close_reasoning(out);
        self.state.stats(StopReason::UserStopped)
    }

    /// The text of the answer, where it was kept.
    pub fn text(&self) -> &str {
        self.state.kept.as_deref().unwrap_or_default()
    }
}

impl State {
    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<String>) {
        match piece {
            Piece::Text(text) => self.text(false, &text, out),
            Piece::Reasoning(text) => self.text(true, &text, out),
            Piece::Logprobs(tokens) => {
                self.tokens.extend(tokens);
                self.flush(out);
            }
            Piece::PromptProgress(progress) => self.prompt_progress(progress, out),
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                self.flush(out);
                self.begin(out);
                self.tool_call(index, id, name, &arguments, out);
            }
            Piece::Finish(reason) => self.finish = Some(reason),
            Piece::Usage(usage) => self.usage = Some(usage),
            Piece::Error(error) => self.error = Some(error),
            Piece::Done => {}
        }
    }

    fn prompt_progress(&mut self, progress: PromptProgress, out: &mut Vec<String>) {
        self.prompt = progress;
        let fresh = progress.total.saturating_sub(progress.cached).max(1);
        let done = progress.processed.saturating_sub(progress.cached);
        self.progress((done as f64 / fresh as f64).min(1.0), out);
    }

    fn progress(&mut self, progress: f64, out: &mut Vec<String>) {
        if self.progress.is_some_and(|last| progress <= last) {
            return;
        }
        if self.progress.is_none() && progress > 0.0 {
            self.progress(0.0, out);
        }
        self.progress = Some(progress);
        let prompt = self.prompt;
        let message = json!({
            "type": "promptProcessingProgress",
            "progress": progress,
            "details": {
                "cachedTokenCount": prompt.cached,
                "totalPromptTokenCount": prompt.total,
                "processedPromptTokenCount": prompt.processed,
                "unprocessedPromptTokenCount": prompt.total.saturating_sub(prompt.processed),
            },
        });
        out.push(channel_send(self.channel, &message));
    }

    /// The first token is there: the prompt has been read.
    fn begin(&mut self, out: &mut Vec<String>) {
        if self.first_token.is_some() {
            return;
        }
        self.first_token = Some((self.clock)());
        if self.progress.is_some() {
            self.prompt.processed = self.prompt.total;
            self.progress(1.0, out);
        }
    }

    fn text(&mut self, reasoning: bool, text: &str, out: &mut Vec<String>) {
        self.flush(out);
        self.begin(out);
        if reasoning != self.reasoning {
            self.reasoning = reasoning;
            self.tag(reasoning, out);
        }
        self.pieces += 1;
        if let Some(kept) = &mut self.kept {
            kept.push_str(text);
        }
        if self.logprobs {
            self.held = Some((reasoning, text.to_owned()));
        } else {
            out.push(self.fragment(text, if reasoning { "reasoning" } else { "none" }, 1));
        }
    }

    fn tag(&self, opening: bool, out: &mut Vec<String>) {
        out.push(if opening {
            self.fragment(&self.tags.0, "reasoningStartTag", 1)
        } else {
            self.fragment(&self.tags.1, "reasoningEndTag", 1)
        });
    }

    fn close_reasoning(&mut self, out: &mut Vec<String>) {
        if std::mem::take(&mut self.reasoning) {
            self.tag(false, out);
        }
    }

    /// By hand, since this is every frame of a stream (goal P8).
    fn fragment(&self, content: &str, kind: &str, tokens: u64) -> String {
        let mut frame = Vec::with_capacity(content.len() + 180);
        frame.extend_from_slice(br#"{"type":"channelSend","channelId":"#);
        if self.channel < 0 {
            frame.push(b'-');
        }
        write_u64(self.channel.unsigned_abs(), &mut frame);
        frame.extend_from_slice(br#","message":{"type":"fragment","fragment":{"content":"#);
        write_str(content, &mut frame);
        frame.extend_from_slice(br#","tokensCount":"#);
        write_u64(tokens, &mut frame);
        frame.extend_from_slice(br#","containsDrafted":false,"reasoningType":""#);
        frame.extend_from_slice(kind.as_bytes());
        frame.extend_from_slice(br#"","isStructural":false}}}"#);
        String::from_utf8(frame).unwrap_or_default()
    }

    /// Sends held text with the tokens that came for it.
    fn flush(&mut self, out: &mut Vec<String>) {
        let Some((reasoning, content)) = self.held.take() else {
            return;
        };
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Fragment<'a> {
            content: Cow<'a, str>,
            tokens_count: usize,
            contains_drafted: bool,
            reasoning_type: &'static str,
            is_structural: bool,
            tokens: Vec<Value>,
        }
        let tokens: Vec<Value> = self
            .tokens
            .drain(..)
            .filter_map(|token| wire_token(&token, true))
            .collect();
        let fragment = Fragment {
            content: content.into(),
            tokens_count: tokens.len().max(1),
            contains_drafted: false,
            reasoning_type: if reasoning { "reasoning" } else { "none" },
            is_structural: false,
            tokens,
        };
        out.push(channel_send(
            self.channel,
            &json!({"type": "fragment", "fragment": fragment}),
        ));
    }

    fn tool_call(
        &mut self,
        index: u32,
        id: Option<Cow<'_, str>>,
        name: Option<Cow<'_, str>>,
        arguments: &str,
        out: &mut Vec<String>,
    ) {
        if self.call.as_ref().is_some_and(|call| call.index != index) {
            self.end_call(false, out);
        }
        if self.call.is_none() {
            self.close_reasoning(out);
            let mut message = json!({"type": "toolCallGenerationStart"});
            if let Some(id) = &id {
                message["toolCallId"] = json!(id);
            }
            out.push(channel_send(self.channel, &message));
        }
        let call = self.call.get_or_insert_with(|| Call {
            index,
            ..Call::default()
        });
        if let Some(id) = id {
            call.id = Some(id.into_owned());
        }
        if let Some(name) = name {
            let message = json!({"type": "toolCallGenerationNameReceived", "name": name});
            out.push(channel_send(self.channel, &message));
            call.name = name.into_owned();
        }
        if !arguments.is_empty() {
            self.pieces += 1;
            call.arguments.push_str(arguments);
            let message = json!({"type": "toolCallGenerationArgumentFragmentGenerated", "content": arguments});
            out.push(channel_send(self.channel, &message));
        }
    }

    fn end_call(&mut self, cut: bool, out: &mut Vec<String>) {
        let Some(call) = self.call.take() else { return };
        let arguments = if call.arguments.trim().is_empty() {
            Ok(Map::new())
        } else {
            serde_json::from_str::<Map<String, Value>>(&call.arguments)
        };
        let message = match arguments {
            Ok(arguments) if !call.name.is_empty() => {
                let mut request = json!({"type": "function", "name": call.name, "arguments": arguments});
                if let Some(id) = call.id {
                    request["id"] = id.into();
                }
                json!({"type": "toolCallGenerationEnd", "toolCallRequest": request, "rawContent": call.arguments})
            }
            _ => {
                let title = if cut {
                    "The answer was cut in the middle of a tool call."
                } else {
                    "The model's tool call has no valid arguments."
                };
                let error = WireError::new(title);
                json!({"type": "toolCallGenerationFailed", "error": error.value(), "rawContent": call.arguments})
            }
        };
        out.push(channel_send(self.channel, &message));
    }

    fn predicted(&self) -> u64 {
        self.usage.map_or(self.pieces, |usage| usage.completion_tokens)
    }

    fn reached_limit(&self) -> bool {
        self.max_tokens
            .is_some_and(|limit| i64::try_from(self.predicted()).unwrap_or(i64::MAX) >= limit)
    }

    fn stats(&self, stop: StopReason) -> Stats {
        let seconds = |from: i64, to: i64| (to - from) as f64 / 1e9;
        let now = (self.clock)();
        let predicted = self.predicted();
        let generating = match self.usage {
            Some(usage) if !usage.completion_time.is_zero() => Some(usage.completion_time.as_secs_f64()),
            _ => self.first_token.map(|first| seconds(first, now)),
        };
        let known = self.usage.map(|usage| usage.prompt_tokens);
        Stats {
            stop,
            tokens_per_second: generating
                .filter(|time| *time > 0.0)
                .map(|time| predicted as f64 / time),
            time_to_first_token: self.first_token.map(|first| seconds(self.begun, first)),
            total_time: seconds(self.begun, now),
            prompt_tokens: known.or(Some(self.prompt.total).filter(|total| *total > 0)),
            predicted_tokens: predicted,
        }
    }
}

/// A token on the wire; `None` when the engine did not number it.
fn wire_token(token: &TokenLogprob, with_candidates: bool) -> Option<Value> {
    let mut value = json!({"text": token.token, "id": token.id?, "logProb": token.logprob});
    if with_candidates && !token.top.is_empty() {
        value["candidates"] = token.top.iter().filter_map(|token| wire_token(token, false)).collect();
    }
    Some(value)
}
