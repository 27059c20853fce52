use domain::{
    RunnerError,
    chat::{FinishReason, TokenLogprob, ToolCall, Usage},
};

use super::stream::{GenerationDecoder, Piece, Wire};

/// Most tool calls of one answer; the engine numbers them itself, so a higher number is nonsense.
const MAX_CALLS: u32 = 1024;

/// A whole answer, for replies that are not streamed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Answer text.
    pub text: String,
    /// Reasoning text.
    pub reasoning: String,
    /// Whole tool calls.
    pub tool_calls: Vec<ToolCall>,
    /// Probabilities, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: Option<FinishReason>,
    /// The stop text that ended it, where the engine names it ([`GenerationDecoder::stop_text`]).
    pub stop_text: Option<String>,
    /// Counts and times.
    pub usage: Usage,
}

/// Puts the pieces of tool calls together by index.
#[derive(Debug, Default)]
pub(crate) struct ToolCalls(Vec<ToolCall>);

impl ToolCalls {
    pub(crate) fn add(&mut self, index: u32, id: Option<&str>, name: Option<&str>, arguments: &str) {
        if index >= MAX_CALLS {
            return;
        }
        let index = index as usize;
        while self.0.len() <= index {
            self.0.push(ToolCall {
                id: None,
                name: String::new(),
                arguments: String::new(),
            });
        }
        let call = &mut self.0[index];
        if let Some(id) = id {
            call.id = Some(id.to_owned());
        }
        if let Some(name) = name {
            name.clone_into(&mut call.name);
        }
        call.arguments.push_str(arguments);
    }

    pub(crate) fn take(&mut self) -> Vec<ToolCall> {
        std::mem::take(&mut self.0)
    }
}

/// Collects a stream into an [`Answer`].
#[derive(Debug)]
pub struct AnswerCollector {
    decoder: GenerationDecoder,
    answer: Answer,
    calls: ToolCalls,
    error: Option<RunnerError>,
}

impl AnswerCollector {
    /// For one stream.
    pub fn new(wire: Wire) -> Self {
        Self {
            decoder: GenerationDecoder::new(wire),
            answer: Answer::default(),
            calls: ToolCalls::default(),
            error: None,
        }
    }

    /// Next piece of the engine's body.
    pub fn push(&mut self, chunk: &[u8]) {
        let Self {
            decoder,
            answer,
            calls,
            error,
        } = self;
        decoder.decode(chunk, |piece| match piece {
            Piece::Text(text) => answer.text.push_str(&text),
            Piece::Reasoning(text) => answer.reasoning.push_str(&text),
            Piece::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                calls.add(index, id.as_deref(), name.as_deref(), &arguments);
            }
            Piece::Logprobs(tokens) => answer.logprobs.extend(tokens),
            Piece::Finish(reason) => answer.finish = Some(reason),
            Piece::Usage(usage) => answer.usage = usage,
            Piece::Error(found) => *error = Some(found),
            Piece::PromptProgress(_) | Piece::Done => {}
        });
    }

    /// The engine said it is done (or failed): nothing that it may still send matters.
    pub fn ended(&self) -> bool {
        self.decoder.ended()
    }

    /// The engine's body ended.
    ///
    /// # Errors
    /// The error the engine reported in mid-stream, or `EngineFailed` when the stream was cut.
    pub fn finish(mut self) -> Result<Answer, RunnerError> {
        if let Some(error) = self.error.or_else(|| self.decoder.cut()) {
            return Err(error);
        }
        self.answer.tool_calls = self.calls.take();
        self.answer.stop_text = self.decoder.stop_text().map(str::to_owned);
        Ok(self.answer)
    }
}
