//! Tools of a request in the engine's form, and the way back to the names the client knows.

use std::collections::HashMap;

use domain::RunnerError;
use domain::chat::ToolChoice;
use serde_json::{Map, Value, json};

use crate::openai::fields::{Fields, invalid, unsupported};

/// What a request offers the model.
#[derive(Debug, Clone, Default)]
pub(super) struct Offered {
    /// Function tools in the chat form.
    pub(super) tools: Vec<Value>,
    pub(super) choice: ToolChoice,
    /// Flat name → namespace and name in it.
    pub(super) namespaces: Namespaces,
}

/// Functions that were declared in a namespace: flat name → (namespace, name).
pub(super) type Namespaces = HashMap<String, (String, String)>;

/// The name by which the model calls a function of a namespace. Clients such as Codex end some namespaces with the
/// separator already.
pub(super) fn flat_name(namespace: &str, name: &str) -> String {
    if namespace.ends_with("__") {
        format!("{namespace}{name}")
    } else {
        format!("{namespace}__{name}")
    }
}

/// Reads `tools` and `tool_choice`.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Offered, RunnerError> {
    let mut offered = Offered::default();
    for (i, tool) in fields.list("tools")?.unwrap_or_default().iter().enumerate() {
        let tool = Fields::of_value(tool, format!("tools[{i}]"))?;
        match tool.required("type")? {
            "function" => offered.tools.push(function(&tool, None)?),
            "namespace" => namespace(&tool, &mut offered)?,
            // Codex offers it with every request, and Ollama takes it (Ollama contract 7.3). An offer that the model does not
            // know of is one it does not take up: the answer stays an honest one. Asking for it by `tool_choice` is an error.
            search if search.starts_with("web_search") => {}
            other => {
                return Err(unsupported(
                    "tools",
                    format!(
                        "Tools of type '{other}' are not supported here; only 'function' and 'namespace' tools, which the \
                         client runs itself."
                    ),
                ));
            }
        }
    }
    choice(fields, &mut offered)?;
    Ok(offered)
}

/// One function in the chat form.
fn function(tool: &Fields<'_>, namespace: Option<&str>) -> Result<Value, RunnerError> {
    let name = tool.required("name")?;
    let name = namespace.map_or_else(|| name.to_owned(), |namespace| flat_name(namespace, name));
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    if let Some(description) = tool.text("description")? {
        function.insert("description".into(), description.into());
    }
    let parameters = tool.get("parameters").cloned();
    let any = || json!({"type": "object", "properties": {}});
    function.insert("parameters".into(), parameters.unwrap_or_else(any));
    if let Some(strict) = tool.boolean("strict")? {
        function.insert("strict".into(), strict.into());
    }
    Ok(json!({"type": "function", "function": function}))
}

fn namespace(space: &Fields<'_>, offered: &mut Offered) -> Result<(), RunnerError> {
    let outer = space.required("name")?;
    for (i, tool) in space.list("tools")?.unwrap_or_default().iter().enumerate() {
        let tool = Fields::of_value(tool, format!("{}[{i}]", space.name("tools")))?;
        let kind = tool.text("type")?.unwrap_or("function");
        if kind != "function" {
            return Err(unsupported(
                "tools",
                format!("Tools of type '{kind}' are not supported here."),
            ));
        }
        let inner = tool.required("name")?;
        offered
            .namespaces
            .insert(flat_name(outer, inner), (outer.to_owned(), inner.to_owned()));
        offered.tools.push(function(&tool, Some(outer))?);
    }
    Ok(())
}

/// `tool_choice` in all its forms. `allowed_tools` leaves the other tools out.
fn choice(fields: &Fields<'_>, offered: &mut Offered) -> Result<(), RunnerError> {
    let Some(value) = fields.get("tool_choice") else {
        return Ok(());
    };
    if let Some(word) = value.as_str() {
        offered.choice = mode(word, "tool_choice")?;
    } else {
        let object = Fields::of_value(value, "tool_choice")?;
        match object.required("type")? {
            "function" => {
                let name = wanted_name(&object)?;
                if !offered.tools.iter().any(|tool| tool["function"]["name"] == name) {
                    return Err(unknown(&name));
                }
                offered.choice = ToolChoice::Function(name);
            }
            "allowed_tools" => {
                let names = object
                    .list("tools")?
                    .unwrap_or_default()
                    .iter()
                    .map(|tool| wanted_name(&Fields::of_value(tool, "tool_choice.tools")?))
                    .collect::<Result<Vec<_>, _>>()?;
                for name in &names {
                    if !offered.tools.iter().any(|tool| tool["function"]["name"] == **name) {
                        return Err(unknown(name));
                    }
                }
                offered
                    .tools
                    .retain(|tool| names.iter().any(|name| tool["function"]["name"] == **name));
                offered.choice = mode(object.text("mode")?.unwrap_or("auto"), "tool_choice.mode")?;
            }
            other => {
                return Err(unsupported(
                    "tool_choice",
                    format!("'tool_choice' of type '{other}' is not supported here."),
                ));
            }
        }
    }
    if offered.choice == ToolChoice::Required && offered.tools.is_empty() {
        return Err(invalid(
            "tool_choice",
            "'tool_choice' is 'required', but 'tools' names no tool.",
        ));
    }
    Ok(())
}

fn mode(word: &str, name: &str) -> Result<ToolChoice, RunnerError> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Required),
        _ => Err(invalid(
            name,
            format!(
                "Invalid '{name}': '{word}'. Supported values: none, auto, required, or an object that names a function."
            ),
        )),
    }
}

fn wanted_name(object: &Fields<'_>) -> Result<String, RunnerError> {
    let name = object.required("name")?;
    let namespace = object.text("namespace")?;
    Ok(namespace.map_or_else(|| name.to_owned(), |namespace| flat_name(namespace, name)))
}

fn unknown(name: &str) -> RunnerError {
    invalid(
        "tool_choice",
        format!("'tool_choice' names '{name}', which is not in 'tools'"),
    )
}
