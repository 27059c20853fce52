//! Chat histories (contract 11.6) in the domain form.

use domain::RunnerError;
use domain::chat::{Message, Part, Role, ToolCall};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::files::image_mime;

/// A conversation.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct History {
    messages: Vec<WireMessage>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct WireMessage {
    role: Role,
    #[serde(default)]
    content: Vec<WirePart>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum WirePart {
    Text {
        text: String,
    },
    File {
        #[serde(default)]
        name: String,
        identifier: String,
    },
    #[serde(rename_all = "camelCase")]
    ToolCallRequest {
        tool_call_request: WireCall,
    },
    #[serde(rename_all = "camelCase")]
    ToolCallResult {
        content: String,
        #[serde(default)]
        tool_call_id: Option<String>,
        #[serde(default)]
        name: Option<String>,
    },
    /// Kinds of a later version are left out.
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct WireCall {
    #[serde(default)]
    id: Option<String>,
    name: String,
    #[serde(default)]
    arguments: Option<Map<String, Value>>,
}

/// A file that a client uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadedFile {
    /// As the client named it.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Where files of a history come from.
#[derive(Clone, Copy)]
pub struct FileSource<'a> {
    /// Finds an uploaded file.
    pub find: &'a dyn Fn(&str) -> Option<std::sync::Arc<UploadedFile>>,
    /// The model reads images.
    pub vision: bool,
    /// What cannot be used becomes a note in the text instead of an error (`applyPromptTemplate`).
    pub lenient: bool,
}

impl History {
    /// The messages in the domain form. Every tool result becomes a message of its own.
    ///
    /// # Errors
    /// `InvalidRequest` for a file that was not uploaded, `NotCapable` for an image to a model without vision.
    pub fn into_messages(self, files: FileSource<'_>) -> Result<Vec<Message>, RunnerError> {
        let mut messages = Vec::with_capacity(self.messages.len());
        for wire in self.messages {
            let mut message = Message::empty(wire.role);
            let mut results = 0;
            for part in wire.content {
                match part {
                    WirePart::Text { text } => message.parts.push(Part::Text(text)),
                    WirePart::File { name, identifier } => message.parts.push(file(&name, &identifier, files)?),
                    WirePart::ToolCallRequest {
                        tool_call_request: call,
                    } => message.tool_calls.push(ToolCall {
                        id: call.id,
                        name: call.name,
                        arguments: Value::Object(call.arguments.unwrap_or_default()).to_string(),
                    }),
                    WirePart::ToolCallResult {
                        content,
                        tool_call_id,
                        name,
                    } => {
                        results += 1;
                        messages.push(Message {
                            tool_call_id,
                            name,
                            ..Message::text(Role::Tool, content)
                        });
                    }
                    WirePart::Other => {}
                }
            }
            // Empty texts stand beside tool calls; joined, text is one part as templates expect it.
            join_texts(&mut message.parts);
            if results == 0 || !message.parts.is_empty() || !message.tool_calls.is_empty() {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

fn join_texts(parts: &mut Vec<Part>) {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        match (joined.last_mut(), part) {
            (_, Part::Text(text)) if text.is_empty() => {}
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, part) => joined.push(part),
        }
    }
    *parts = joined;
}

fn file(name: &str, identifier: &str, files: FileSource<'_>) -> Result<Part, RunnerError> {
    let note = |why: &str| Ok(Part::Text(format!("[file {name}: {why}]")));
    let Some(file) = (files.find)(identifier) else {
        if files.lenient {
            return note("not uploaded");
        }
        return Err(RunnerError::invalid(format!(
            "The file '{name}' ({identifier}) is not known here. Upload it on the same client first."
        )));
    };
    if let Some(mime) = image_mime(&file.bytes) {
        if files.vision {
            return Ok(Part::Image {
                mime: mime.to_owned(),
                base64: base64(&file.bytes),
            });
        }
        if files.lenient {
            return note("image");
        }
        return Err(RunnerError::new(
            domain::ErrorKind::NotCapable,
            "This model cannot read images. Use a model with vision.",
        ));
    }
    match std::str::from_utf8(&file.bytes) {
        Ok(text) => Ok(Part::Text(format!("{}:\n{text}\n", file.name))),
        Err(_) if files.lenient => note("no text"),
        Err(_) => Err(RunnerError::invalid(format!(
            "The file '{}' is neither an image nor text.",
            file.name
        ))),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The texts of a history in one, for the pass-through template of a text completion.
pub fn raw_prompt(messages: &[Message]) -> String {
    let mut prompt = String::new();
    for part in messages.iter().flat_map(|message| &message.parts) {
        if let Part::Text(text) = part {
            prompt.push_str(text);
        }
    }
    prompt
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn find(identifier: &str) -> Option<Arc<UploadedFile>> {
        let bytes = match identifier {
            "text" => b"contents".to_vec(),
            "image" => b"\x89PNGdata".to_vec(),
            "junk" => vec![0xff, 0],
            _ => return None,
        };
        Some(Arc::new(UploadedFile {
            name: format!("{identifier}.x"),
            bytes,
        }))
    }

    fn read(messages: &Value, vision: bool, lenient: bool) -> Result<Vec<Message>, RunnerError> {
        let history: History = serde_json::from_value(json!({ "messages": messages })).unwrap();
        history.into_messages(FileSource {
            find: &find,
            vision,
            lenient,
        })
    }

    #[test]
    fn a_round_with_tools() {
        let messages = read(
            &json!([
                {"role": "system", "content": [{"type": "text", "text": "a"}]},
                {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
                {"role": "system", "content": [{"type": "text", "text": "d"}]},
                {"role": "assistant", "content": [
                    {"type": "text", "text": ""},
                    {"type": "toolCallRequest", "toolCallRequest": {"id": "1", "type": "function", "name": "add", "arguments": {"a": 1}}},
                    {"type": "toolCallRequest", "toolCallRequest": {"type": "function", "name": "now"}},
                ]},
                {"role": "tool", "content": [
                    {"type": "toolCallResult", "content": "3", "toolCallId": "1"},
                    {"type": "toolCallResult", "content": "4", "name": "now"},
                    {"type": "later"},
                ]},
            ]),
            false,
            false,
        )
        .unwrap();
        let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
        assert_eq!(
            roles,
            [
                Role::System,
                Role::User,
                Role::System,
                Role::Assistant,
                Role::Tool,
                Role::Tool
            ]
        );
        assert_eq!(messages[1].parts, [Part::Text("bc".into())]);
        assert!(messages[3].parts.is_empty());
        assert_eq!(messages[3].tool_calls[0].arguments, r#"{"a":1}"#);
        assert_eq!(messages[3].tool_calls[1].arguments, "{}");
        assert_eq!(messages[4].tool_call_id.as_deref(), Some("1"));
        assert_eq!(raw_prompt(&messages), "abcd34");
    }

    #[test]
    fn files() {
        let with = |identifier: &str| json!([{"role": "user", "content": [{"type": "file", "name": "f", "identifier": identifier, "sizeBytes": 1, "fileType": "image"}]}]);
        assert_eq!(
            read(&with("text"), false, false).unwrap()[0].parts,
            [Part::Text("text.x:\ncontents\n".into())]
        );
        assert!(
            matches!(&read(&with("image"), true, false).unwrap()[0].parts[..], [Part::Image { mime, .. }] if mime == "image/png")
        );
        for identifier in ["image", "other", "junk"] {
            assert!(read(&with(identifier), false, false).is_err(), "{identifier}");
            assert!(read(&with(identifier), false, true).is_ok(), "{identifier}");
        }
    }
}
