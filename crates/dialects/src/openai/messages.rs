//! Messages of a chat that is relayed: refused where the engine would fetch or misread, rewritten where it knows another form.

use std::borrow::Cow;

use domain::RunnerError;
use memchr::memmem;
use serde::Deserialize;
use serde_json::{Value, json};

use super::check::ChatRules;
use super::fields::{invalid, unsupported};
use super::media;

/// Words without which nothing here applies: a chat of plain text costs one search for each.
const WORDS: [&[u8]; 6] = [b"image_url", b"input_audio", b"video", b"null", b"\"file\"", b"\\u"];

/// Roles of LM Studio's clients (contract 4.2).
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// The role alone: everything else of a message is skipped.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
}

/// Are all roles known, and none of them one to rename? Then there is nothing to look at closer.
fn plain_roles(raw: &[u8]) -> bool {
    let said = serde_json::from_slice::<Vec<Said<'_>>>(raw).unwrap_or_default();
    let plain = |said: &Said<'_>| {
        said.role
            .as_deref()
            .is_some_and(|role| role != "developer" && ROLES.contains(&role))
    };
    !said.is_empty() && said.iter().all(plain)
}

/// LM Studio's refusal of a role it does not know (its bug tracker, 669), which programs look for. True: renamed.
fn check_role(message: &mut Value) -> Result<bool, RunnerError> {
    let role = message.get_mut("role");
    match role.as_deref().and_then(Value::as_str) {
        Some("developer") => {
            if let Some(role) = role {
                *role = "system".into();
            }
            Ok(true)
        }
        Some(word) if ROLES.contains(&word) => Ok(false),
        word => {
            let other = role.as_deref().filter(|role| !role.is_null()).map(Value::to_string);
            let got = word
                .map(str::to_owned)
                .or(other)
                .unwrap_or_else(|| "undefined".to_owned());
            Err(invalid(
                "messages",
                format!(
                    "'messages' array must only contain objects with a 'role' field that is in [user, assistant, system, \
                     developer, tool]. Got '{got}'"
                ),
            ))
        }
    }
}

/// Checks the raw value of `messages`. `Some`: the value to send instead.
///
/// # Errors
/// `InvalidRequest` for media that would have to be fetched (the engine would do it: a way into the caller's network and disk),
/// for content of unknown types, for messages without content and for roles that are not known to `rules`.
pub(super) fn check(raw: &[u8], rules: ChatRules) -> Result<Option<Vec<u8>>, RunnerError> {
    let roles = rules == ChatRules::LmStudio && !plain_roles(raw);
    if !roles && !WORDS.iter().any(|word| memmem::find(raw, word).is_some()) {
        return Ok(None);
    }
    // As values, where of two members of one name the last wins, as it does for the engine: what was not seen here cannot
    // reach it.
    let mut list: Vec<Value> = serde_json::from_slice(raw)
        .map_err(|error| invalid("messages", format!("'messages' cannot be read: {error}")))?;
    let mut rewritten = false;
    for message in &mut list {
        if roles {
            rewritten |= check_role(message)?;
        }
        let assistant = message.get("role").is_some_and(|role| role == "assistant");
        match message.get_mut("content") {
            Some(Value::Array(parts)) => {
                for part in parts {
                    rewritten |= check_part(part)?;
                }
            }
            Some(Value::Null) if !assistant => {
                return Err(invalid("messages", "invalid message content type: <nil>"));
            }
            _ => {}
        }
    }
    Ok(rewritten.then(|| crate::json::to_vec(&list)))
}

/// True: the part had a form that the engine does not know and was changed.
fn check_part(part: &mut Value) -> Result<bool, RunnerError> {
    if let Some(kind) = part.get("type").and_then(Value::as_str)
        && !matches!(
            kind,
            "text" | "image_url" | "input_audio" | "input_video" | "video_url" | "refusal"
        )
    {
        return Err(unsupported(
            "messages",
            format!("Content of type '{kind}' is not supported here."),
        ));
    }
    for member in ["input_audio", "input_video", "video_url"] {
        let Some(medium) = part.get(member) else { continue };
        let addresses = ["data", "url"]
            .into_iter()
            .filter_map(|name| medium.get(name)?.as_str());
        if addresses.into_iter().any(fetched) {
            return Err(invalid(
                "messages",
                "audio and video URLs are not supported, please send base64 encoded data instead",
            ));
        }
    }
    let Some(image) = part.get_mut("image_url") else {
        return Ok(false);
    };
    let plain = image.is_string();
    let url = if plain { Some(&*image) } else { image.get("url") };
    let Some(url) = url.and_then(Value::as_str) else {
        return Ok(false);
    };
    if !media::is_data(url) {
        return Err(media::remote("messages"));
    }
    let labelled = unlabelled(url).map(|rest| format!("data:image/png;base64,{rest}"));
    if !plain && labelled.is_none() {
        return Ok(false);
    }
    let url = labelled.unwrap_or_else(|| url.to_owned());
    *image = json!({"url": url});
    Ok(true)
}

/// The base64 of a data URL without a media type, which Ollama takes for an image (Ollama contract 7.2).
fn unlabelled(url: &str) -> Option<&str> {
    let rest = url.get(5..)?;
    rest.strip_prefix(";base64,").or_else(|| rest.strip_prefix("base64,"))
}

/// Would the engine fetch or open this?
fn fetched(url: &str) -> bool {
    ["http:", "https:", "file:"].iter().any(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}
