use domain::{ErrorKind, KeepAlive, LaunchOptions, RunnerError};
use serde_json::Value;

use super::fields::Fields;
use super::options;
use super::reply::ReplyHead;
use crate::engine::Embeddings;
use crate::json::{write_str, write_u64};

/// A parsed `/api/embed` or `/api/embeddings` body (contract 4.3).
#[derive(Debug, Clone)]
pub struct EmbedCall {
    /// `model` as written.
    pub model: String,
    /// Texts; empty: load only.
    pub input: Vec<String>,
    /// Cut inputs that are too long (tokenize, cut, detokenize); false: answer 400.
    pub truncate: bool,
    /// Cut vectors to this many dimensions.
    pub dimensions: Option<usize>,
    /// `keep_alive`.
    pub keep_alive: Option<KeepAlive>,
    /// `options.num_ctx`: the longest input, whatever more the loaded model has room for.
    pub context: Option<u32>,
    /// Launch wishes from `options`.
    pub launch: LaunchOptions,
    legacy: bool,
}

/// Contexts below this only bound inputs, they start no engine.
const LEAST_CONTEXT: u32 = 512;

/// An input that is longer than `num_ctx`, or than the model's context, and must not be cut.
pub fn input_too_long() -> RunnerError {
    RunnerError::invalid("the input length exceeds the context length").param("input")
}

/// A context that the model's own special tokens fill.
pub fn no_room_for_input() -> RunnerError {
    RunnerError::invalid("input after truncation exceeds maximum context length").param("options.num_ctx")
}

impl EmbedCall {
    /// Parses `/api/embed`.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "EmbedRequest")?;
        let invalid = || RunnerError::invalid("invalid input type").param("input");
        let input = match fields.take("input") {
            None => Vec::new(),
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| {
                    if let Value::String(text) = item {
                        Ok(text)
                    } else {
                        Err(invalid())
                    }
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(invalid()),
        };
        let dimensions = fields
            .integer("dimensions")?
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0);
        Self::rest(fields, input, dimensions, false)
    }

    /// Parses the legacy `/api/embeddings`.
    ///
    /// # Errors
    /// `InvalidRequest` in Ollama's words.
    pub fn parse_legacy(body: &[u8]) -> Result<Self, RunnerError> {
        let mut fields = Fields::parse(body, "EmbeddingRequest")?;
        let input = fields.text("prompt")?.into_iter().collect();
        Self::rest(fields, input, None, true)
    }

    fn rest(
        mut fields: Fields,
        input: Vec<String>,
        dimensions: Option<usize>,
        legacy: bool,
    ) -> Result<Self, RunnerError> {
        let options = fields.object("options")?;
        let (_, mut launch) = options::parse(&options, false)?;
        let context = options.get("num_ctx").and_then(Value::as_i64);
        let context = context.and_then(|tokens| u32::try_from(tokens).ok());
        // A short one says how to cut this input; an engine started with it would cut everybody's.
        launch.context = launch.context.filter(|tokens| *tokens >= LEAST_CONTEXT);
        Ok(Self {
            model: fields.model()?,
            input,
            truncate: fields.bool("truncate")?.unwrap_or(true),
            dimensions,
            keep_alive: fields.keep_alive()?,
            context,
            launch,
            legacy,
        })
    }

    /// Should the engine normalise? False for the legacy route.
    pub fn normalize(&self) -> bool {
        !self.legacy
    }

    /// The reply: vectors of length 1 (not for the legacy route), cut to `dimensions`.
    ///
    /// # Errors
    /// `InvalidRequest` for NaN or infinite values.
    pub fn reply(&self, head: &ReplyHead, embeddings: Embeddings) -> Result<Vec<u8>, RunnerError> {
        let Embeddings {
            mut vectors,
            prompt_tokens,
        } = embeddings;
        if vectors.iter().flatten().any(|x| !x.is_finite()) {
            return Err(RunnerError::invalid("embedding contains NaN or Inf values"));
        }
        let mut out = Vec::with_capacity(vectors.iter().map(|v| v.len() * 12).sum::<usize>() + 256);
        if self.legacy {
            out.extend_from_slice(b"{\"embedding\":");
            write_vector(&vectors.into_iter().next().unwrap_or_default(), &mut out);
            out.push(b'}');
            return Ok(out);
        }
        for vector in &mut vectors {
            vector.truncate(self.dimensions.unwrap_or(usize::MAX));
            normalize(vector);
        }
        out.extend_from_slice(b"{\"model\":");
        write_str(&head.model, &mut out);
        out.extend_from_slice(b",\"embeddings\":[");
        for (i, vector) in vectors.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_vector(vector, &mut out);
        }
        out.extend_from_slice(b"],\"total_duration\":");
        write_u64(
            (head.clock)().saturating_sub(head.started_ns).max(1).unsigned_abs(),
            &mut out,
        );
        out.extend_from_slice(b",\"load_duration\":");
        write_u64(u64::try_from(head.load.as_nanos()).unwrap_or(u64::MAX).max(1), &mut out);
        if prompt_tokens > 0 {
            out.extend_from_slice(b",\"prompt_eval_count\":");
            write_u64(prompt_tokens, &mut out);
        }
        out.push(b'}');
        Ok(out)
    }

    /// The engine's too-long errors become the contract's text.
    pub fn engine_error(&self, error: RunnerError) -> RunnerError {
        let words = error.message.to_ascii_lowercase();
        let too_long = matches!(error.kind, ErrorKind::ContextExceeded { .. })
            || ["too large", "context size", "context length", "physical batch size"]
                .iter()
                .any(|w| words.contains(w));
        if too_long { input_too_long() } else { error }
    }
}

fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let scale = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    for x in vector {
        *x = (f64::from(*x) * scale) as f32;
    }
}

fn write_vector(vector: &[f32], out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, x) in vector.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        crate::json::write_f32(*x, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn head() -> ReplyHead {
        ReplyHead {
            model: "e".into(),
            clock: Arc::new(|| 5_000),
            started_ns: 1_000,
            load: Duration::from_nanos(7),
            top_logprobs: 0,
        }
    }

    #[test]
    fn inputs() {
        let input = |json: &str| EmbedCall::parse(format!("{{\"input\":{json}}}").as_bytes()).map(|call| call.input);
        for empty in ["null", "\"\"", "[]"] {
            assert!(input(empty).unwrap().is_empty());
        }
        assert_eq!(input("\"a\"").unwrap(), ["a"]);
        assert_eq!(input("[\"a\",\"\"]").unwrap(), ["a", ""]);
        for bad in ["1", "[1]", "{}", "[[\"a\"]]"] {
            assert_eq!(input(bad).unwrap_err().message, "invalid input type");
        }
    }

    #[test]
    fn vectors() {
        let call = EmbedCall::parse(br#"{"model":"e","input":"x","dimensions":2}"#).unwrap();
        let given = Embeddings {
            vectors: vec![vec![3.0, 4.0, 12.0]],
            prompt_tokens: 2,
        };
        assert_eq!(
            String::from_utf8(call.reply(&head(), given).unwrap()).unwrap(),
            r#"{"model":"e","embeddings":[[0.6,0.8]],"total_duration":4000,"load_duration":7,"prompt_eval_count":2}"#
        );
        let bad = Embeddings {
            vectors: vec![vec![f32::NAN]],
            prompt_tokens: 1,
        };
        assert!(call.reply(&head(), bad).unwrap_err().message.contains("NaN or Inf"));
        let legacy = EmbedCall::parse_legacy(br#"{"model":"e","prompt":"x"}"#).unwrap();
        let given = Embeddings {
            vectors: vec![vec![3.0, 4.5]],
            prompt_tokens: 2,
        };
        assert_eq!(legacy.reply(&head(), given).unwrap(), br#"{"embedding":[3.0,4.5]}"#);
        let empty = EmbedCall::parse_legacy(br#"{"model":"e"}"#).unwrap();
        assert_eq!(
            empty.reply(&head(), Embeddings::default()).unwrap(),
            br#"{"embedding":[]}"#
        );
    }

    #[test]
    fn too_long() {
        let call = EmbedCall::parse(br#"{"input":"x"}"#).unwrap();
        let error = call.engine_error(RunnerError::new(
            ErrorKind::Engine { status: 500 },
            "input is TOO LARGE to process",
        ));
        assert_eq!(error.message, "the input length exceeds the context length");
        assert_eq!(call.engine_error(RunnerError::internal("x")).message, "x");
    }
}
