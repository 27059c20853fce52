//! Messages and their content blocks into the domain form.

use domain::{
    RunnerError,
    chat::{Message, Part, Role, ToolCall},
};
use serde_json::{Map, Value};

use super::request::wrong;

/// `system` and `messages` as one conversation.
pub(super) fn conversation(system: Option<Value>, messages: Vec<Value>) -> Result<Vec<Message>, RunnerError> {
    let mut all = Vec::with_capacity(messages.len() + 1);
    if let Some(text) = system_text(system, "system")? {
        all.push(Message::text(Role::System, text));
    }
    for (at, message) in messages.into_iter().enumerate() {
        let field = format!("messages.{at}");
        let Value::Object(mut message) = message else {
            return Err(wrong(&field, "an object"));
        };
        let role = message.remove("role");
        let content = message.remove("content");
        match role.as_ref().and_then(Value::as_str) {
            Some("user") => user(&field, content, &mut all)?,
            Some("assistant") => assistant(&field, content, &mut all)?,
            Some("system") => {
                let Some(text) = system_text(content, &format!("{field}.content"))? else {
                    continue;
                };
                match all.as_mut_slice() {
                    // Many templates take one system message only, at the start.
                    [first] if first.role == Role::System => {
                        if let [Part::Text(before)] = first.parts.as_mut_slice() {
                            before.push_str("\n\n");
                            before.push_str(&text);
                        }
                    }
                    _ => all.push(Message::text(Role::System, text)),
                }
            }
            _ => return Err(wrong(&format!("{field}.role"), "'user', 'assistant' or 'system'")),
        }
    }
    Ok(all)
}

/// A system prompt: text or text blocks.
fn system_text(value: Option<Value>, field: &str) -> Result<Option<String>, RunnerError> {
    let blocks = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(steady(text)).filter(|text| !text.is_empty())),
        Some(Value::Array(blocks)) => blocks,
        Some(_) => return Err(wrong(field, "a string or a list of text blocks")),
    };
    let mut texts = Vec::with_capacity(blocks.len());
    for (at, block) in blocks.into_iter().enumerate() {
        match block {
            Value::String(text) => texts.push(text),
            Value::Object(mut block) if kind(&block) == "text" => texts.push(text(&mut block, field, at)?),
            Value::Object(_) => {}
            _ => return Err(wrong(&format!("{field}.{at}"), "a text block")),
        }
    }
    let texts: Vec<String> = texts.into_iter().map(steady).filter(|text| !text.is_empty()).collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}

/// Claude Code puts a stamp that changes with every request before its prompt (`…; cch=a5145;`): made equal, so that the
/// engine's cache of the prompt keeps its worth.
fn steady(mut text: String) -> String {
    const STAMP: &str = "cch=";
    if text.starts_with("x-anthropic-billing-header:")
        && let Some(at) = text.lines().next().and_then(|line| line.find(STAMP))
    {
        let from = at + STAMP.len();
        let length = text[from..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        text.replace_range(from..from + length, "0");
    }
    text
}

fn kind(block: &Map<String, Value>) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn text(block: &mut Map<String, Value>, field: &str, at: usize) -> Result<String, RunnerError> {
    match block.remove("text") {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong(&format!("{field}.{at}.text"), "a string")),
    }
}

/// Content as blocks; a string is one text block.
fn blocks(field: &str, content: Option<Value>) -> Result<Vec<Map<String, Value>>, RunnerError> {
    match content {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => {
            let mut block = Map::new();
            block.insert("type".into(), "text".into());
            block.insert("text".into(), text.into());
            Ok(vec![block])
        }
        Some(Value::Array(blocks)) => blocks
            .into_iter()
            .enumerate()
            .map(|(at, block)| match block {
                Value::Object(block) => Ok(block),
                _ => Err(wrong(&format!("{field}.content.{at}"), "an object")),
            })
            .collect(),
        Some(_) => Err(wrong(
            &format!("{field}.content"),
            "a string or a list of content blocks",
        )),
    }
}

/// A user turn: tool results come before what the user says (Ollama contract 8).
fn user(field: &str, content: Option<Value>, all: &mut Vec<Message>) -> Result<(), RunnerError> {
    let plain = content.as_ref().is_some_and(Value::is_string);
    let mut said = Message::empty(Role::User);
    for (at, mut block) in blocks(field, content)?.into_iter().enumerate() {
        match kind(&block) {
            "tool_result" | "web_search_tool_result" | "mcp_tool_result" => {
                all.push(tool_result(&format!("{field}.content.{at}"), &mut block)?);
            }
            _ => said.parts.extend(part(&format!("{field}.content"), at, &mut block)?),
        }
    }
    if plain || !said.parts.is_empty() {
        all.push(said);
    }
    Ok(())
}

/// An assistant turn; what a server tool answered in its middle splits it.
fn assistant(field: &str, content: Option<Value>, all: &mut Vec<Message>) -> Result<(), RunnerError> {
    let mut said = Message::empty(Role::Assistant);
    let mut any = content.as_ref().is_some_and(Value::is_string);
    for (at, mut block) in blocks(field, content)?.into_iter().enumerate() {
        match kind(&block) {
            "thinking" => {
                if let Some(Value::String(thought)) = block.remove("thinking")
                    && !thought.is_empty()
                {
                    said.reasoning.get_or_insert_default().push_str(&thought);
                    any = true;
                }
            }
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                said.tool_calls
                    .push(tool_use(&format!("{field}.content.{at}"), &mut block)?);
                any = true;
            }
            "tool_result" | "web_search_tool_result" | "mcp_tool_result" => {
                all.push(std::mem::replace(&mut said, Message::empty(Role::Assistant)));
                all.push(tool_result(&format!("{field}.content.{at}"), &mut block)?);
                any = false;
            }
            _ => {
                if let Some(part) = part(&format!("{field}.content"), at, &mut block)? {
                    said.parts.push(part);
                    any = true;
                }
            }
        }
    }
    if any {
        all.push(said);
    }
    Ok(())
}

/// Text and images; documents as the text they hold. Block types nobody here knows are left out (Ollama contract 8).
fn part(field: &str, at: usize, block: &mut Map<String, Value>) -> Result<Option<Part>, RunnerError> {
    match kind(block) {
        "text" => text(block, field, at).map(|text| Some(Part::Text(text))),
        "image" => image(&format!("{field}.{at}"), block).map(Some),
        "document" => Ok(document(block).map(Part::Text)),
        _ => Ok(None),
    }
}

fn image(field: &str, block: &mut Map<String, Value>) -> Result<Part, RunnerError> {
    let Some(Value::Object(mut source)) = block.remove("source") else {
        return Err(wrong(&format!("{field}.source"), "an object"));
    };
    let mut string = |name: &str| match source.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    match string("type").as_deref() {
        Some("base64") => {}
        Some("url") => {
            // The engine would fetch it itself: a way into the caller's network.
            return Err(RunnerError::invalid(format!(
                "{field}.source: image URLs are not supported, send the image as base64"
            ))
            .param("messages"));
        }
        _ => return Err(wrong(&format!("{field}.source.type"), "'base64'")),
    }
    let Some(base64) = string("data").filter(|data| !data.is_empty()) else {
        return Err(wrong(&format!("{field}.source.data"), "a base64 string"));
    };
    let mime = string("media_type").unwrap_or_else(|| "image/jpeg".into());
    if !mime.starts_with("image/") || mime.contains([',', ';']) {
        return Err(wrong(
            &format!("{field}.source.media_type"),
            "an image type such as image/png",
        ));
    }
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'\r' | b'\n');
    if !base64.bytes().all(alphabet) {
        return Err(wrong(&format!("{field}.source.data"), "a base64 string"));
    }
    Ok(Part::Image { mime, base64 })
}

/// The text of a document, with its title before it.
fn document(block: &mut Map<String, Value>) -> Option<String> {
    let Some(Value::Object(mut source)) = block.remove("source") else {
        return None;
    };
    let (data, content) = (source.remove("data"), source.remove("content"));
    let body = match (kind(&source), data) {
        ("text", Some(Value::String(text))) => text,
        ("content", _) => joined(content?),
        _ => return None,
    };
    Some(match block.remove("title") {
        Some(Value::String(title)) if !title.is_empty() => format!("{title}\n\n{body}"),
        _ => body,
    })
}

/// The text in a string or in text blocks.
fn joined(content: Value) -> String {
    match content {
        Value::String(text) => text,
        Value::Array(blocks) => {
            let texts = blocks.into_iter().filter_map(|mut block| match block["text"].take() {
                Value::String(text) => Some(text),
                _ => None,
            });
            texts.collect()
        }
        _ => String::new(),
    }
}

fn tool_use(field: &str, block: &mut Map<String, Value>) -> Result<ToolCall, RunnerError> {
    let mut string = |name: &str| match block.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(
            RunnerError::invalid(format!("{field}: tool_use block missing required '{name}' field")).param("messages"),
        ),
    };
    let (id, name) = (string("id")?, string("name")?);
    let arguments = match block.remove("input") {
        Some(input @ Value::Object(_)) => input.to_string(),
        None | Some(Value::Null) => "{}".to_owned(),
        Some(_) => return Err(wrong(&format!("{field}.input"), "an object")),
    };
    Ok(ToolCall {
        id: Some(id),
        name,
        arguments,
    })
}

fn tool_result(field: &str, block: &mut Map<String, Value>) -> Result<Message, RunnerError> {
    let mut result = Message::empty(Role::Tool);
    result.tool_call_id = match block.remove("tool_use_id") {
        Some(Value::String(id)) => Some(id),
        _ => return Err(wrong(&format!("{field}.tool_use_id"), "a string")),
    };
    let searched = kind(block) == "web_search_tool_result";
    let mut text = String::new();
    let mut images = Vec::new();
    match block.remove("content") {
        // What a search found, or why it failed, as the JSON it is.
        Some(found) if searched => text = found.to_string(),
        Some(Value::Object(_)) => {
            return Err(wrong(
                &format!("{field}.content"),
                "a string or a list of content blocks",
            ));
        }
        content => {
            for (at, mut block) in blocks(field, content)?.into_iter().enumerate() {
                match part(&format!("{field}.content"), at, &mut block)? {
                    Some(Part::Text(more)) => text.push_str(&more),
                    Some(image) => images.push(image),
                    None => {}
                }
            }
        }
    }
    result.parts.push(Part::Text(text));
    result.parts.append(&mut images);
    Ok(result)
}
