//! `tool_choice` of a chat: the engine knows three words, and neither a named function nor a list of allowed ones.

use domain::RunnerError;
use serde_json::Value;

use super::check::Edits;
use super::fields::{invalid, unsupported};
use crate::peek::{Key, Peeked};

/// The engine ignores an object that names a function and may call another tool. When the named tools exist, the others are
/// taken out of the request, which it obeys: one function becomes `required`, `allowed_tools` keeps its mode.
pub(super) fn tool_choice(peeked: &Peeked<'_>, edits: &mut Edits) -> Result<(), RunnerError> {
    let tools: Vec<Value> = match peeked.get(Key::Tools) {
        Some(tools) if !tools.is_empty() => {
            serde_json::from_slice(tools.raw).map_err(|_| super::fields::wrong_type("tools", "an array"))?
        }
        _ => Vec::new(),
    };
    for tool in &tools {
        match tool.get("type").and_then(Value::as_str) {
            None | Some("function") => {}
            Some(other) => {
                return Err(unsupported(
                    "tools",
                    format!(
                        "Tools of type '{other}' are not supported here; only 'function' tools, which the client runs itself."
                    ),
                ));
            }
        }
    }
    let Some(choice) = peeked.get(Key::ToolChoice) else {
        return Ok(());
    };
    if !choice.is_object() {
        return match choice.as_str().as_deref() {
            Some("required") if tools.is_empty() => Err(invalid(
                "tool_choice",
                "'tool_choice' is 'required', but 'tools' names no tool.",
            )),
            Some("none") => {
                // The engine would show them to the model all the same, and pass on as text what looks like a call.
                if !tools.is_empty() {
                    edits.push((Key::Tools, b"[]".to_vec()));
                }
                Ok(())
            }
            Some("auto" | "required") => Ok(()),
            _ => Err(invalid(
                "tool_choice",
                "'tool_choice' must be 'none', 'auto', 'required' or an object that names a function",
            )),
        };
    }
    let value: Value = serde_json::from_slice(choice.raw).unwrap_or_default();
    let (wanted, mode) = if value.get("type").is_some_and(|kind| kind == "allowed_tools") {
        allowed(&value)?
    } else {
        let name = name_of(&value).ok_or_else(|| invalid("tool_choice", "'tool_choice.function.name' is required"))?;
        (vec![name], "required")
    };
    let mut kept = Vec::with_capacity(wanted.len());
    for name in wanted {
        let named = tools.iter().find(|tool| name_of(tool) == Some(name));
        kept.push(named.ok_or_else(|| {
            invalid(
                "tool_choice",
                format!("'tool_choice' names '{name}', which is not in 'tools'"),
            )
        })?);
    }
    edits.push((Key::Tools, crate::json::to_vec(&kept)));
    edits.push((Key::ToolChoice, format!("\"{mode}\"").into_bytes()));
    Ok(())
}

/// `{"type":"allowed_tools","allowed_tools":{"mode":…,"tools":[…]}}`.
fn allowed(value: &Value) -> Result<(Vec<&str>, &str), RunnerError> {
    let inner = value.get("allowed_tools").unwrap_or(value);
    let mode = inner.get("mode").and_then(Value::as_str).unwrap_or("auto");
    if !matches!(mode, "auto" | "required") {
        return Err(invalid(
            "tool_choice",
            format!("Invalid 'tool_choice.allowed_tools.mode': '{mode}'. Supported values: auto, required."),
        ));
    }
    let tools = inner.get("tools").and_then(Value::as_array);
    let tools = tools.filter(|tools| !tools.is_empty()).ok_or_else(|| {
        invalid(
            "tool_choice",
            "'tool_choice.allowed_tools.tools' must be a non-empty array",
        )
    })?;
    let names = tools.iter().map(|tool| {
        name_of(tool).ok_or_else(|| invalid("tool_choice", "'tool_choice.allowed_tools.tools' must name functions"))
    });
    Ok((names.collect::<Result<_, _>>()?, mode))
}

/// The function's name, in the chat form or the flat one.
fn name_of(tool: &Value) -> Option<&str> {
    tool.pointer("/function/name")
        .or_else(|| tool.get("name"))
        .and_then(Value::as_str)
}
