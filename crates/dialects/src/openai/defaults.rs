//! What a port, a stored model and Ollama's `options` add to a body that is relayed (Ollama contract 7.2, 11).

use std::borrow::Cow;

use domain::chat::{ChatRequest, Message, Role};
use domain::{LaunchOptions, ModelProfile, RunnerError};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::check::Edits;
use super::fields::wrong_type;
use crate::engine::{self, Limits};
use crate::json::to_vec;
use crate::ollama;
use crate::peek::{Key, Peeked};

/// Additions to a body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Additions {
    /// Members for [`crate::peek::with_defaults`].
    pub members: Vec<u8>,
    /// Launch wishes of `options`.
    pub launch: LaunchOptions,
}

/// Reads `options`, adds what the stored model has and, on Ollama's port, its defaults. A stored system prompt and stored
/// messages go before the chat's own (but behind a system message of its own): that is an edit of `messages`.
///
/// # Errors
/// `InvalidRequest` for a wrong type in `options` or in a stored parameter.
pub fn additions(
    peeked: &Peeked<'_>,
    profile: &ModelProfile,
    ollama_port: bool,
    edits: &mut Edits,
) -> Result<Additions, RunnerError> {
    let stored = *profile != ModelProfile::default();
    let mut request = ChatRequest::default();
    let mut launch = LaunchOptions::default();
    if let Some(options) = peeked.get(Key::Options) {
        let options: Map<String, Value> =
            serde_json::from_slice(options.raw).map_err(|_| wrong_type("options", "an object"))?;
        (request.sampling, launch) = ollama::options_given(&options)?;
    } else if !stored && !ollama_port {
        return Ok(Additions::default());
    }
    let own = own_systems(peeked);
    if stored {
        // Stands for the chat's own system messages, which the stored ones go behind.
        request.messages.extend((own > 0).then(|| Message::empty(Role::System)));
        ollama::apply_profile(profile, &mut request)?;
        request.messages.drain(..own.min(1));
    }
    let body = engine::chat_body(&request, Limits::default())?;
    let mut members: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(Value::Array(added)) = members.remove("messages") {
        insert(peeked, own, &added, edits);
    }
    members.remove("stream");
    members.remove("cache_prompt");
    if [Key::MaxTokens, Key::MaxCompletionTokens, Key::NPredict]
        .iter()
        .any(|key| peeked.get(*key).is_some())
    {
        members.remove("max_tokens");
    }
    if ollama_port {
        for name in ["temperature", "top_p"] {
            members.entry(name).or_insert_with(|| 1.0.into());
        }
    }
    let text = to_vec(&members);
    let inner = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}"));
    Ok(Additions {
        members: inner.unwrap_or_default().to_vec(),
        launch,
    })
}

/// The messages of a chat as they will be sent.
fn messages<'a>(peeked: &Peeked<'a>, edits: &'a Edits) -> Option<Vec<&'a RawValue>> {
    let field = peeked.get(Key::Messages)?;
    let edited = edits.iter().rev().find(|(key, _)| *key == Key::Messages);
    serde_json::from_slice(edited.map_or(field.raw, |(_, value)| value)).ok()
}

/// How many system messages a chat begins with.
fn own_systems(peeked: &Peeked<'_>) -> usize {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    let none = Edits::new();
    let list = messages(peeked, &none).unwrap_or_default();
    let roles = list
        .iter()
        .map(|message| serde_json::from_str::<Said<'_>>(message.get()));
    roles
        .take_while(|said| {
            said.as_ref()
                .is_ok_and(|said| said.role == "system" || said.role == "developer")
        })
        .count()
}

/// Inserts messages into those of the body, or into those an earlier edit made of them.
fn insert(peeked: &Peeked<'_>, at: usize, added: &[Value], edits: &mut Edits) {
    if added.is_empty() {
        return;
    }
    let Some(list) = messages(peeked, edits) else { return };
    let (before, after) = list.split_at(at.min(list.len()));
    let mut joined = vec![b'['];
    let added: Vec<Vec<u8>> = added.iter().map(to_vec).collect();
    let texts = before
        .iter()
        .map(|message| message.get().as_bytes())
        .chain(added.iter().map(Vec::as_slice))
        .chain(after.iter().map(|message| message.get().as_bytes()));
    for text in texts {
        joined.extend_from_slice(text);
        joined.push(b',');
    }
    joined.pop();
    joined.push(b']');
    edits.push((Key::Messages, joined));
}
