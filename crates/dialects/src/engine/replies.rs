//! The engine's small routes: template, tokens, embeddings.

use domain::{ErrorKind, RunnerError};
use serde::{Deserialize, Serialize};

use crate::json::to_vec;

/// `{"prompt": "..."}` of `/apply-template`.
///
/// # Errors
/// `EngineFailed` when the answer has another shape.
pub fn parse_prompt(body: &[u8]) -> Result<String, RunnerError> {
    #[derive(Deserialize)]
    struct Reply {
        prompt: String,
    }
    parse::<Reply>(body).map(|reply| reply.prompt)
}

/// `{"input_tokens": n}` of [`super::COUNT_CHAT`].
///
/// # Errors
/// `EngineFailed` when the answer has another shape.
pub fn parse_input_tokens(body: &[u8]) -> Result<u64, RunnerError> {
    #[derive(Deserialize)]
    struct Reply {
        input_tokens: u64,
    }
    parse::<Reply>(body).map(|reply| reply.input_tokens)
}

/// Body for `/tokenize`. `special`: add BOS as the model wants it. Special tokens in the text are always parsed.
pub fn tokenize_body(text: &str, special: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        content: &'a str,
        add_special: bool,
        parse_special: bool,
    }
    to_vec(&Body {
        content: text,
        add_special: special,
        parse_special: true,
    })
}

/// `{"tokens": [...]}` of `/tokenize`.
///
/// # Errors
/// `EngineFailed` when the answer has another shape.
pub fn parse_tokens(body: &[u8]) -> Result<Vec<i64>, RunnerError> {
    #[derive(Deserialize)]
    struct Reply {
        tokens: Vec<i64>,
    }
    parse::<Reply>(body).map(|reply| reply.tokens)
}

/// Body for `/detokenize`.
pub fn detokenize_body(tokens: &[i64]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        tokens: &'a [i64],
    }
    to_vec(&Body { tokens })
}

/// `{"content": "..."}` of `/detokenize`.
///
/// # Errors
/// `EngineFailed` when the answer has another shape.
pub fn parse_content(body: &[u8]) -> Result<String, RunnerError> {
    #[derive(Deserialize)]
    struct Reply {
        content: String,
    }
    parse::<Reply>(body).map(|reply| reply.content)
}

/// Body for `/v1/embeddings`. `normalize` false: raw vectors (Ollama's legacy route).
pub fn embeddings_body(input: &[String], normalize: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        input: &'a [String],
        encoding_format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        embd_normalize: Option<i32>,
    }
    to_vec(&Body {
        input,
        encoding_format: "float",
        embd_normalize: (!normalize).then_some(-1),
    })
}

/// Vectors in input order with the prompt token count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// One vector per input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: u64,
}

/// Reads the answer of `/v1/embeddings`; vectors are put into input order.
///
/// # Errors
/// `EngineFailed` when the answer has another shape.
pub fn parse_embeddings(body: &[u8]) -> Result<Embeddings, RunnerError> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        index: usize,
        embedding: Vec<Option<f32>>,
    }
    #[derive(Deserialize, Default)]
    struct Counts {
        #[serde(default)]
        prompt_tokens: u64,
    }
    #[derive(Deserialize)]
    struct Reply {
        data: Vec<Item>,
        #[serde(default)]
        usage: Counts,
    }
    let mut reply = parse::<Reply>(body)?;
    reply.data.sort_by_key(|item| item.index);
    // The engine writes null for a number that is not finite.
    let vector = |item: Item| item.embedding.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect();
    Ok(Embeddings {
        vectors: reply.data.into_iter().map(vector).collect(),
        prompt_tokens: reply.usage.prompt_tokens,
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RunnerError> {
    serde_json::from_slice(body).map_err(|_| {
        RunnerError::new(
            ErrorKind::EngineFailed,
            "The model's engine sent an answer of an unknown shape.",
        )
    })
}
