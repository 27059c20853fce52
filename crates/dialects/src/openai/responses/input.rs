//! Items of `input` (and of earlier outputs) to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::RunnerError;
use domain::chat::{Message, Part, Role, ToolCall};
use serde_json::{Value, json};

use super::tools::flat_name;
use crate::openai::fields::{Fields, invalid, unsupported, wrong_type};
use crate::openai::media;

/// `input` as a list of items: a string is one message of the user.
pub(super) fn items(input: &Value) -> Result<Vec<Value>, RunnerError> {
    match input {
        Value::String(text) => Ok(vec![json!({
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]
        })]),
        Value::Array(items) => Ok(items.clone()),
        _ => Err(wrong_type("input", "a string or an array of items")),
    }
}

/// Items to messages: calls and reasoning join the assistant message they belong to.
pub(super) fn messages(items: &[Value]) -> Result<Vec<Message>, RunnerError> {
    let mut messages = Vec::with_capacity(items.len());
    let mut reasoning: Option<String> = None;
    for (i, item) in items.iter().enumerate() {
        let item = Fields::of_value(item, format!("input[{i}]"))?;
        let kind = match item.text("type")? {
            Some(kind) => kind,
            None if item.get("role").is_some() => "message",
            None => return Err(invalid("input", format!("'input[{i}].type' field is required"))),
        };
        match kind {
            "message" => {
                let mut message = message(&item)?;
                if message.role == Role::Assistant {
                    message.reasoning = reasoning.take();
                }
                messages.push(message);
            }
            "function_call" => {
                let call = function_call(&item)?;
                let last = messages
                    .last_mut()
                    .filter(|last: &&mut Message| last.role == Role::Assistant && reasoning.is_none());
                if let Some(last) = last {
                    last.tool_calls.push(call);
                } else {
                    let mut message = Message::empty(Role::Assistant);
                    message.reasoning = reasoning.take();
                    message.tool_calls.push(call);
                    messages.push(message);
                }
            }
            "function_call_output" => {
                let mut message = Message::empty(Role::Tool);
                message.tool_call_id = Some(item.required("call_id")?.to_owned());
                message.parts = match item.get("output") {
                    Some(Value::String(text)) => vec![Part::Text(text.clone())],
                    Some(Value::Array(parts)) => parts_of(parts, &item.name("output"))?,
                    _ => return Err(wrong_type(&item.name("output"), "a string or an array")),
                };
                messages.push(message);
            }
            "reasoning" => reasoning = thought(&item)?,
            // What a search found is in the answer that followed it.
            "web_search_call" => {}
            other => {
                return Err(unsupported(
                    "input",
                    format!("Input items of type '{other}' are not supported here ('input[{i}]')."),
                ));
            }
        }
    }
    if reasoning.is_some() {
        let mut message = Message::empty(Role::Assistant);
        message.reasoning = reasoning;
        messages.push(message);
    }
    Ok(messages)
}

fn message(item: &Fields<'_>) -> Result<Message, RunnerError> {
    let role = match item.required("role")? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" | "developer" => Role::System,
        other => {
            let name = item.name("role");
            return Err(invalid(
                "input",
                format!("Invalid '{name}': '{other}'. Supported values: user, assistant, system, developer."),
            ));
        }
    };
    let mut message = Message::empty(role);
    message.parts = match item.get("content") {
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(Value::Array(parts)) => parts_of(parts, &item.name("content"))?,
        _ => return Err(wrong_type(&item.name("content"), "a string or an array")),
    };
    Ok(message)
}

fn parts_of(parts: &[Value], path: &str) -> Result<Vec<Part>, RunnerError> {
    let mut read = Vec::with_capacity(parts.len());
    for (i, part) in parts.iter().enumerate() {
        let part = Fields::of_value(part, format!("{path}[{i}]"))?;
        read.push(match part.required("type")? {
            "input_text" | "output_text" | "text" => Part::Text(part.required("text")?.to_owned()),
            "refusal" => Part::Text(part.required("refusal")?.to_owned()),
            "input_image" if part.get("file_id").is_some() && part.get("image_url").is_none() => {
                return Err(unsupported(
                    "input",
                    "'file_id' is not supported here; send the image as a data URL in 'image_url'.",
                ));
            }
            "input_image" => media::image(part.required("image_url")?, "input")?,
            "image_url" => match part.get("image_url") {
                Some(Value::String(url)) => media::image(url, "input")?,
                _ => match part.object("image_url")? {
                    Some(image) => media::image(image.required("url")?, "input")?,
                    None => return Err(crate::openai::fields::missing(&part.name("image_url"))),
                },
            },
            "input_audio" => {
                let Some(audio) = part.object("input_audio")? else {
                    return Err(crate::openai::fields::missing(&part.name("input_audio")));
                };
                Part::Audio {
                    format: audio.text("format")?.unwrap_or("wav").to_owned(),
                    base64: audio.required("data")?.to_owned(),
                }
            }
            other => {
                return Err(unsupported(
                    "input",
                    format!("Content of type '{other}' is not supported here ('{path}[{i}]')."),
                ));
            }
        });
    }
    Ok(read)
}

fn function_call(item: &Fields<'_>) -> Result<ToolCall, RunnerError> {
    let name = item.required("name")?;
    let name = item
        .text("namespace")?
        .map_or_else(|| name.to_owned(), |namespace| flat_name(namespace, name));
    let arguments = item.text("arguments")?.unwrap_or("{}");
    Ok(ToolCall {
        id: Some(item.required("call_id")?.to_owned()),
        name,
        arguments: if arguments.is_empty() { "{}" } else { arguments }.to_owned(),
    })
}

/// The text of a reasoning item: what it shows in full, else its summary, else what [`seal`] put into it.
fn thought(item: &Fields<'_>) -> Result<Option<String>, RunnerError> {
    for member in ["content", "summary"] {
        let parts = item.list(member)?.unwrap_or_default();
        let text: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
        if text.iter().any(|text| !text.is_empty()) {
            return Ok(Some(text.join("\n")));
        }
    }
    let Some(sealed) = item.text("encrypted_content")?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let opened = STANDARD
        .decode(sealed)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Some(opened.unwrap_or_else(|| sealed.to_owned())))
}

/// `encrypted_content` of our reasoning items, for clients that keep the conversation themselves and send it back. Nothing is
/// secret about a local model's thoughts; the form only has to survive the round trip.
pub(super) fn seal(text: &str) -> String {
    STANDARD.encode(text)
}
