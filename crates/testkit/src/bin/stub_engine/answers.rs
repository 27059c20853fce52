//! Answers chosen by what is asked: the rules of `STUB_ANSWERS`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::script::Script;

/// One rule of the file: the first that fits a request is its script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Any of these in the prompt, or in the last message of the user (whatever the case of letters); empty: always.
    #[serde(default)]
    any: Vec<String>,
    /// Only requests with tools, or only those without.
    tools: Option<bool>,
    /// Only requests that end with a tool's result, or only those that do not.
    answered: Option<bool>,
    script: Script,
}

/// The rules of a file; none without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Vec<Rule>);

impl Answers {
    /// Reads a JSON list of rules.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text)
            .map(Self)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(crate) fn find(&self, request: &Value) -> Script {
        if self.0.is_empty() {
            return Script::default();
        }
        let asked = asked(request).to_lowercase();
        let has_tools = request
            .get("tools")
            .and_then(Value::as_array)
            .is_some_and(|tools| !tools.is_empty());
        let last = request
            .get("messages")
            .and_then(Value::as_array)
            .and_then(|messages| messages.last());
        let answered = last.is_some_and(|message| message.get("role").and_then(Value::as_str) == Some("tool"));
        let fits = |rule: &&Rule| {
            rule.tools.is_none_or(|tools| tools == has_tools)
                && rule.answered.is_none_or(|wanted| wanted == answered)
                && (rule.any.is_empty() || rule.any.iter().any(|word| asked.contains(&word.to_lowercase())))
        };
        self.0
            .iter()
            .find(fits)
            .map(|rule| rule.script.clone())
            .unwrap_or_default()
    }
}

/// What the user said last.
fn asked(request: &Value) -> String {
    if let Some(prompt) = request.get("prompt") {
        return prompt.as_str().map_or_else(|| prompt.to_string(), str::to_owned);
    }
    let messages = request
        .get("messages")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let user = messages
        .iter()
        .rev()
        .find(|message| message.get("role").and_then(Value::as_str) == Some("user"));
    match user.and_then(|message| message.get("content")) {
        Some(Value::String(text)) => text.clone(),
        Some(content) => content.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_fits() {
        let rules = json!([
            {"any": ["weather"], "tools": true, "script": {"tool_call": {"name": "f", "arguments": "{}"}}},
            {"any": ["Sky", "rain"], "script": {"text": "blue"}},
            {"script": {"text": "yes"}},
        ]);
        let answers = Answers(serde_json::from_value(rules).unwrap());
        let text = |request: Value| answers.find(&request).text;
        assert_eq!(
            text(json!({"messages": [{"role": "user", "content": "why is the SKY?"}, {"role": "tool", "content": "rain"}]}))
                .as_deref(),
            Some("blue")
        );
        assert_eq!(text(json!({"prompt": "weather"})).as_deref(), Some("yes"));
        let parts = json!([{"type": "text", "text": "weather?"}]);
        let called = answers.find(&json!({"messages": [{"role": "user", "content": parts}], "tools": [{}]}));
        assert!(called.tool_call.is_some() && called.text.is_none());
    }
}
