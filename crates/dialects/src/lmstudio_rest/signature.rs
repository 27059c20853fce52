//! What LM Studio's answers to the OpenAI routes carry besides the engine's (contract 4.2, 4.3).

use domain::{ErrorKind, RunnerError};
use memchr::memmem::Finder;
use serde_json::{Map, Value, json};

use crate::json::{to_vec, write_str};

/// Characters of an id behind its prefix.
const ID_LENGTH: usize = 21;

/// Id and model of one answer; `system_fingerprint` repeats the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    id: String,
    model: String,
}

impl Signature {
    /// Of a chat answer by this instance. `random`: fresh for each answer.
    pub fn chat(random: u128, model: String) -> Self {
        Self::new("chatcmpl-", random, model)
    }

    /// Of a completion by this instance.
    pub fn completion(random: u128, model: String) -> Self {
        Self::new("cmpl-", random, model)
    }

    fn new(prefix: &str, mut random: u128, model: String) -> Self {
        let mut id = String::with_capacity(prefix.len() + ID_LENGTH);
        id.push_str(prefix);
        for _ in 0..ID_LENGTH {
            id.push(char::from_digit((random % 36) as u32, 36).unwrap_or('0'));
            random /= 36;
        }
        Self { id, model }
    }
}

/// Reads an answer of the engine that is not streamed and completes it: the signature, `tool_calls` and `logprobs` also
/// where there are none.
pub(super) fn signed(response: &[u8], signature: &Signature) -> Result<Map<String, Value>, RunnerError> {
    let mut result: Map<String, Value> = serde_json::from_slice(response).map_err(|_| {
        RunnerError::new(
            ErrorKind::EngineFailed,
            "The model's engine sent an answer of an unknown shape.",
        )
    })?;
    for (name, value) in [
        ("id", &signature.id),
        ("model", &signature.model),
        ("system_fingerprint", &signature.model),
    ] {
        result.insert(name.into(), value.as_str().into());
    }
    let choices = result.get_mut("choices").and_then(Value::as_array_mut);
    for choice in choices.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) {
            message.entry("tool_calls").or_insert_with(|| json!([]));
        }
        choice.entry("logprobs").or_insert(Value::Null);
    }
    Ok(result)
}

/// A chat or completion answer that is not streamed, in LM Studio's form. `stats` is empty: no draft model is at work.
///
/// # Errors
/// `EngineFailed` when the engine's answer is not a JSON object.
pub fn sign(response: &[u8], signature: &Signature) -> Result<Vec<u8>, RunnerError> {
    let mut result = signed(response, signature)?;
    result.insert("stats".into(), json!({}));
    Ok(to_vec(&result))
}

/// Puts a signature on the chunks of a stream without reading them: three looks into each. The engine writes compact JSON,
/// and inside a string its quotes would be escaped, so what is found is always a member.
pub(super) struct ChunkSigner {
    signature: Signature,
    /// The model as the inside of a JSON string.
    model: Vec<u8>,
    finders: [Finder<'static>; 4],
}

const ID: &[u8] = b"\"id\":\"chatcmpl-";
const FINGERPRINT: &[u8] = b"\"system_fingerprint\":\"";
const FINISH: &[u8] = b"\"finish_reason\":";
const LOGPROBS: &[u8] = b"\"logprobs\":";

impl ChunkSigner {
    pub(super) fn new(signature: Signature) -> Self {
        let mut model = Vec::new();
        write_str(&signature.model, &mut model);
        model.pop();
        model.remove(0);
        Self {
            signature,
            model,
            finders: [ID, FINGERPRINT, FINISH, LOGPROBS].map(Finder::new),
        }
    }

    /// Appends the chunk with the signature in place of the engine's, and `logprobs` where its choice has none.
    pub(super) fn chunk(&self, data: &[u8], out: &mut Vec<u8>) {
        let [id, fingerprint, finish, logprobs] = &self.finders;
        // Where to cut, how much is left out, what is written instead; in the order of the bytes.
        let mut cuts: [Option<(usize, usize, &[u8])>; 3] = [None; 3];
        let text = |at: usize, skip: usize, new| {
            let start = at + skip;
            memchr::memchr(b'"', &data[start..]).map(|length| (start, length, new))
        };
        cuts[0] = id
            .find(data)
            .and_then(|at| text(at, b"\"id\":\"".len(), self.signature.id.as_bytes()));
        cuts[1] = fingerprint
            .find(data)
            .and_then(|at| text(at, FINGERPRINT.len(), &self.model));
        if logprobs.find(data).is_none() {
            cuts[2] = finish.find(data).map(|at| (at, 0, &b"\"logprobs\":null,"[..]));
        }
        cuts.sort_unstable_by_key(|cut| cut.map(|(at, ..)| at));
        let mut done = 0;
        for (at, length, new) in cuts.into_iter().flatten() {
            out.extend_from_slice(&data[done..at]);
            out.extend_from_slice(new);
            done = at + length;
        }
        out.extend_from_slice(&data[done..]);
    }
}
