//! What a port, a stored model and Ollama's `options` add to a body that is relayed (Ollama contract 7.2, 11).

use domain::chat::{ChatRequest, Message, Role};
use domain::{LaunchOptions, ModelProfile, RunnerError};
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
/// messages go before the chat's own: that is an edit of `messages`.
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
    if stored {
        let own_system = first_role(peeked).is_some_and(|role| role == "system" || role == "developer");
        if own_system {
            request.messages.push(Message::text(Role::System, ""));
        }
        ollama::apply_profile(profile, &mut request)?;
        if own_system {
            request.messages.pop();
        }
    }
    let body = engine::chat_body(&request, Limits::default())?;
    let mut members: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(Value::Array(before)) = members.remove("messages") {
        put_before(peeked, &before, edits);
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

fn first_role(peeked: &Peeked<'_>) -> Option<String> {
    let messages: Vec<Value> = serde_json::from_slice(peeked.get(Key::Messages)?.raw).ok()?;
    Some(messages.first()?.get("role")?.as_str()?.to_owned())
}

/// Puts messages before those of the body, or before those an earlier edit made of them.
fn put_before(peeked: &Peeked<'_>, before: &[Value], edits: &mut Edits) {
    let Some(field) = peeked.get(Key::Messages).filter(|_| !before.is_empty()) else {
        return;
    };
    let edited = edits.iter().rev().find(|(key, _)| *key == Key::Messages);
    let own = edited.map_or(field.raw, |(_, value)| value);
    let Some(own) = own.strip_prefix(b"[") else { return };
    let mut list = to_vec(&before);
    list.pop();
    list.push(b',');
    list.extend_from_slice(own);
    edits.push((Key::Messages, list));
}
