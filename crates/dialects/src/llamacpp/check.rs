use domain::RunnerError;

use crate::openai::{ChatRules, Edits, check_addresses, check_chat, common};
use crate::peek::{Key, Peeked};

/// Checks a body for `/completion`, `/infill` or `/embedding`: what the engine cannot survive is refused or clamped
/// (promise H8). A slot may be named, if it is there: the engine would wait for ever for another one.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn check_native(peeked: &Peeked<'_>, slots: u32) -> Result<Edits, RunnerError> {
    let mut edits = common(peeked)?;
    for key in [Key::Content, Key::Input] {
        if let Some(field) = peeked.get(key) {
            check_addresses(field.raw, key.as_str())?;
        }
    }
    let slot = peeked.get(Key::IdSlot).and_then(|field| field.as_i64());
    if slot.is_some_and(|slot| (-1..i64::from(slots)).contains(&slot)) {
        edits.retain(|(key, _)| *key != Key::IdSlot);
    }
    Ok(edits)
}

/// Checks a chat body that is only rendered or counted: image addresses would be fetched by the engine. What is no chat is
/// the engine's to refuse.
///
/// # Errors
/// `InvalidRequest` naming the field.
pub fn check_template(peeked: &Peeked<'_>) -> Result<(), RunnerError> {
    let chat = peeked
        .get(Key::Messages)
        .is_some_and(|messages| messages.is_array() && !messages.is_empty());
    if chat {
        check_chat(peeked, ChatRules::OpenAi).map(drop)
    } else {
        Ok(())
    }
}
