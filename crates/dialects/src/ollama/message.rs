//! Messages of `/api/chat` (contract 4.2) in both directions of their odd parts: images, tool calls and tool results.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{
    RunnerError,
    chat::{Message, Part, Role, ToolCall},
};
use serde_json::Value;

use super::fields::Fields;

/// Reads `messages`.
///
/// # Errors
/// `InvalidRequest` for wrong types, unknown roles, broken base64.
pub(super) fn parse_all(items: Vec<Value>) -> Result<Vec<Message>, RunnerError> {
    let mut calls = CallIds {
        given: given_ids(&items),
        ..CallIds::default()
    };
    items.into_iter().map(|item| parse(item, &mut calls)).collect()
}

fn parse(item: Value, calls: &mut CallIds) -> Result<Message, RunnerError> {
    let Value::Object(members) = item else {
        return Err(Fields::of(serde_json::Map::new(), "ChatRequest").mismatch("messages", &item, "api.Message"));
    };
    let mut fields = Fields::of(members, "Message");
    let role = role(&fields.string("role")?.unwrap_or_default())?;
    let content = fields.text("content")?;
    let images = parse_images(fields.list("images", "[]api.ImageData")?)?;
    let reasoning = fields.text("thinking")?.filter(|_| role == Role::Assistant);
    let name = fields.text("tool_name")?.filter(|_| role == Role::Tool);
    let call_id = fields.text("tool_call_id")?.filter(|_| role == Role::Tool);
    let tool_calls = fields.list("tool_calls", "[]api.ToolCall")?;

    let mut parts: Vec<Part> = content.map(Part::Text).into_iter().collect();
    parts.extend(images);
    let tool_calls = tool_calls
        .into_iter()
        .map(|call| calls.call(call))
        .collect::<Result<_, _>>()?;
    let tool_call_id = if role == Role::Tool {
        calls.answer(call_id, name.as_deref())
    } else {
        None
    };
    Ok(Message {
        role,
        parts,
        reasoning,
        tool_calls,
        tool_call_id,
        name,
    })
}

fn role(text: &str) -> Result<Role, RunnerError> {
    match text.to_ascii_lowercase().as_str() {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => Err(RunnerError::invalid(format!(
            "invalid role: {text}, must be one of [system user assistant tool]"
        ))
        .param("messages")),
    }
}

/// The ids of all calls that came with one.
fn given_ids(items: &[Value]) -> HashSet<String> {
    let calls = items.iter().filter_map(|item| item.get("tool_calls")?.as_array());
    let ids = calls.flatten().filter_map(|call| call.get("id")?.as_str());
    ids.map(str::to_owned).collect()
}

/// Gives ids to calls that came without one, and binds results without an id to the oldest unanswered call of that tool:
/// some templates need ids (contract 6, \[better\]).
#[derive(Debug, Default)]
struct CallIds {
    count: usize,
    /// Ids that the client chose: none is given out twice.
    given: HashSet<String>,
    unanswered: Vec<(String, String)>,
}

impl CallIds {
    fn call(&mut self, item: Value) -> Result<ToolCall, RunnerError> {
        let Value::Object(members) = item else {
            return Err(Fields::of(serde_json::Map::new(), "Message").mismatch("tool_calls", &item, "api.ToolCall"));
        };
        let mut fields = Fields::of(members, "ToolCall");
        let id = fields.text("id")?;
        let mut function = Fields::of(fields.object("function")?, "ToolCallFunction");
        let name = function.string("name")?.unwrap_or_default();
        let arguments = match function.take("arguments") {
            None => "{}".to_owned(),
            Some(Value::Object(members)) => Value::Object(members).to_string(),
            // Clients of OpenAI's form send the object as text.
            Some(Value::String(text)) if serde_json::from_str::<serde_json::Map<String, Value>>(&text).is_ok() => text,
            Some(other) => return Err(function.mismatch("arguments", &other, "api.ToolCallFunctionArguments")),
        };
        let id = id.unwrap_or_else(|| self.fresh());
        self.unanswered.push((name.clone(), id.clone()));
        Ok(ToolCall {
            id: Some(id),
            name,
            arguments,
        })
    }

    fn fresh(&mut self) -> String {
        loop {
            let id = format!("call_{}", self.count);
            self.count += 1;
            if !self.given.contains(&id) {
                return id;
            }
        }
    }

    fn answer(&mut self, id: Option<String>, tool: Option<&str>) -> Option<String> {
        let position = match (&id, tool) {
            (Some(id), _) => self.unanswered.iter().position(|(_, open)| open == id),
            (None, Some(tool)) => self.unanswered.iter().position(|(name, _)| name == tool),
            (None, None) => (!self.unanswered.is_empty()).then_some(0),
        };
        let bound = position.map(|at| self.unanswered.remove(at).1);
        id.or(bound)
    }
}

/// Reads a list of base64 images (or sounds).
///
/// # Errors
/// `InvalidRequest` for anything that is not base64 of a known form.
pub(super) fn parse_images(items: Vec<Value>) -> Result<Vec<Part>, RunnerError> {
    items.into_iter().map(parse_image).collect()
}

fn parse_image(item: Value) -> Result<Part, RunnerError> {
    let Value::String(mut text) = item else {
        return Err(Fields::of(serde_json::Map::new(), "Message").mismatch("images", &item, "api.ImageData"));
    };
    // Not in Ollama's form, but many clients paste data URLs.
    if let Some(comma) = text.strip_prefix("data:").and_then(|rest| rest.find(',')) {
        text.drain(..="data:".len() + comma);
    }
    if text.contains(['\n', '\r']) {
        text.retain(|c| c != '\n' && c != '\r');
    }
    check_base64(&text)?;
    // 24 characters make the 16 bytes (18, in fact) that tell the forms apart.
    let head = text
        .get(..text.len().min(24))
        .and_then(|head| STANDARD.decode(head).ok())
        .unwrap_or_default();
    match sniff(&head) {
        Some(Media::Image(mime)) => Ok(Part::Image {
            mime: mime.to_owned(),
            base64: text,
        }),
        Some(Media::Audio(format)) => Ok(Part::Audio {
            format: format.to_owned(),
            base64: text,
        }),
        None => Err(
            RunnerError::invalid("image: unknown format; PNG, JPEG, WebP, GIF, BMP, WAV and MP3 are known")
                .param("images"),
        ),
    }
}

fn check_base64(text: &str) -> Result<(), RunnerError> {
    let illegal =
        |at: usize| Err(RunnerError::invalid(format!("illegal base64 data at input byte {at}")).param("images"));
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = &bytes[..bytes.len() - padding];
    if let Some(at) = digits
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')))
    {
        return illegal(at);
    }
    if bytes.is_empty() || !bytes.len().is_multiple_of(4) {
        return illegal(bytes.len());
    }
    Ok(())
}

enum Media {
    Image(&'static str),
    Audio(&'static str),
}

fn sniff(head: &[u8]) -> Option<Media> {
    if let Some(mime) = crate::images::media_type(head) {
        return Some(Media::Image(mime));
    }
    Some(match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Media::Audio("wav"),
        [b'I', b'D', b'3', ..] => Media::Audio("mp3"),
        [0xff, second, ..] if second & 0xe0 == 0xe0 => Media::Audio("mp3"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PNG: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

    fn messages(value: &Value) -> Result<Vec<Message>, RunnerError> {
        parse_all(value.as_array().unwrap().clone())
    }

    #[test]
    fn made_ids_differ_from_given_ones() {
        let parsed = messages(&json!([
            {"role": "assistant", "tool_calls": [{"function": {"name": "g"}}]},
            {"role": "tool", "tool_name": "g", "content": "G"},
            {"role": "assistant", "tool_calls": [{"id": "call_0", "function": {"name": "f"}}, {"function": {"name": "g"}}]},
            {"role": "tool", "tool_name": "g", "content": "G"},
            {"role": "tool", "tool_call_id": "call_0", "content": "F"},
        ]))
        .unwrap();
        let calls = parsed.iter().flat_map(|m| &m.tool_calls);
        let ids: Vec<_> = calls.filter_map(|call| call.id.as_deref()).collect();
        assert_eq!(ids, ["call_1", "call_0", "call_2"]);
        let answered: Vec<_> = parsed.iter().filter_map(|m| m.tool_call_id.as_deref()).collect();
        assert_eq!(answered, ["call_1", "call_2", "call_0"]);
    }

    #[test]
    fn tool_results_find_their_calls() {
        let call = |city: &str| json!({"function": {"name": "weather", "arguments": {"city": city}}});
        let parsed = messages(&json!([
            {"role": "Assistant", "content": "", "tool_calls": [call("Paris"), call("London"),
                {"id": "t9", "function": {"name": "time", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_name": "weather", "content": "sunny"},
            {"role": "tool", "tool_call_id": "t9", "content": "noon"},
            {"role": "tool", "content": "rain"},
            {"role": "tool", "content": "lost"},
        ]))
        .unwrap();
        let ids: Vec<_> = parsed.iter().map(|m| m.tool_call_id.as_deref()).collect();
        assert_eq!(ids, [None, Some("call_0"), Some("t9"), Some("call_1"), None]);
        assert_eq!(parsed[0].tool_calls[0].arguments, r#"{"city":"Paris"}"#);
        assert_eq!(parsed[0].tool_calls[2].arguments, r#"{"a":1}"#);
        assert!(parsed[0].parts.is_empty());
        assert_eq!(parsed[1].name.as_deref(), Some("weather"));
    }

    #[test]
    fn images_are_checked_and_named() {
        let image = |text: &str| parse_image(Value::from(text));
        assert!(matches!(image(PNG).unwrap(), Part::Image { mime, .. } if mime == "image/png"));
        assert!(
            matches!(image(&format!("data:image/png;base64,{PNG}")).unwrap(), Part::Image { base64, .. } if base64 == PNG)
        );
        for (bytes, expected) in [
            (&b"\xff\xd8\xff\xe0aaaaaaaaaaaaaaaa"[..], "image/jpeg"),
            (b"RIFF1234WEBPVP8 aaaa", "image/webp"),
            (b"RIFF1234WAVEfmt aaaa", "wav"),
            (b"ID3\x04aaaaaaaaaaaaaaaa", "mp3"),
        ] {
            let kind = match image(&STANDARD.encode(bytes)).unwrap() {
                Part::Image { mime, .. } => mime,
                Part::Audio { format, .. } => format,
                Part::Text(text) => text,
            };
            assert_eq!(kind, expected);
        }
        for (text, words) in [
            ("abc", "illegal base64 data at input byte 3"),
            ("ab*d", "illegal base64 data at input byte 2"),
            ("", "illegal base64 data at input byte 0"),
            ("AAAA", "image: unknown format"),
        ] {
            assert!(image(text).unwrap_err().message.starts_with(words), "{text}");
        }
    }

    #[test]
    fn wrong_shapes() {
        for (value, words) in [
            (
                json!([1]),
                "json: cannot unmarshal number into Go struct field ChatRequest.messages of type api.Message",
            ),
            (
                json!([{"role": "user", "content": 5}]),
                "Message.content of type string",
            ),
            (json!([{"role": "robot"}]), "invalid role: robot"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "no"}}]}]),
                "arguments",
            ),
        ] {
            assert!(messages(&value).unwrap_err().message.contains(words));
        }
    }
}
