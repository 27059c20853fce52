//! Reads the fields of a JSON object by Ollama's rules: null and absent are the same, names match in any case, and type
//! errors are worded as Go's decoder words them (contract 1, 1.3).

use domain::{KeepAlive, RunnerError};
use serde_json::{Map, Value};

/// A parsed request body.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    members: Map<String, Value>,
    /// Go's name of the struct, which is part of its messages.
    struct_name: &'static str,
}

impl Fields {
    pub(super) fn parse(body: &[u8], struct_name: &'static str) -> Result<Self, RunnerError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(RunnerError::invalid("missing request body"));
        }
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(members)) => Ok(Self { members, struct_name }),
            Ok(other) => Err(RunnerError::invalid(format!(
                "json: cannot unmarshal {} into Go value of type api.{struct_name}",
                kind(&other)
            ))),
            Err(error) => Err(RunnerError::invalid(syntax(body, &error))),
        }
    }

    pub(super) fn of(members: Map<String, Value>, struct_name: &'static str) -> Self {
        Self { members, struct_name }
    }

    /// Takes a value out; null counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let value = match self.members.get_mut(name) {
            Some(value) => value.take(),
            None => self
                .members
                .iter_mut()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))?
                .1
                .take(),
        };
        (!value.is_null()).then_some(value)
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, RunnerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mismatch(name, &other, "string")),
        }
    }

    /// A string where empty counts as absent.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, RunnerError> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, RunnerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(other) => Err(self.mismatch(name, &other, "bool")),
        }
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, RunnerError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.mismatch(name, &value, "int")),
            },
        }
    }

    pub(super) fn list(&mut self, name: &str, go_type: &str) -> Result<Vec<Value>, RunnerError> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.mismatch(name, &other, go_type)),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Map<String, Value>, RunnerError> {
        match self.take(name) {
            None => Ok(Map::new()),
            Some(Value::Object(members)) => Ok(members),
            Some(other) => Err(self.mismatch(name, &other, "map[string]interface {}")),
        }
    }

    /// `model`, or its deprecated spelling `name`; white space around it is no part of it.
    pub(super) fn model(&mut self) -> Result<String, RunnerError> {
        let model = self.text("model")?;
        let name = self.text("name")?;
        Ok(model.or(name).unwrap_or_default())
    }

    /// `keep_alive` (contract 4.4).
    pub(super) fn keep_alive(&mut self) -> Result<Option<KeepAlive>, RunnerError> {
        let invalid = |message: String| RunnerError::invalid(message).param("keep_alive");
        match self.take("keep_alive") {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => KeepAlive::parse_go(&text).map(Some).map_err(|e| invalid(e.to_string())),
            Some(Value::Number(number)) => Ok(Some(KeepAlive::from_seconds(number.as_f64().unwrap_or(-1.0)))),
            Some(Value::Bool(_)) => Err(invalid("Unsupported type: 'bool'".into())),
            Some(Value::Array(_)) => Err(invalid("Unsupported type: '[]interface {}'".into())),
            Some(Value::Object(_) | Value::Null) => Err(invalid("Unsupported type: 'map[string]interface {}'".into())),
        }
    }

    pub(super) fn mismatch(&self, name: &str, value: &Value, go_type: &str) -> RunnerError {
        RunnerError::invalid(format!(
            "json: cannot unmarshal {} into Go struct field {}.{name} of type {go_type}",
            kind(value),
            self.struct_name
        ))
        .param(name)
    }
}

/// Go's word for the JSON type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A syntax error in the words of Go's scanner.
fn syntax(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".into();
    }
    let words = error.to_string();
    if words.starts_with("recursion limit") {
        return "exceeded max depth".into();
    }
    if words.starts_with("number out of range") {
        return "json: number out of range".into();
    }
    let place = [
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
        ("expected ident", "in literal"),
        ("invalid number", "in numeric literal"),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
        ("invalid unicode", "in string literal"),
        ("lone leading surrogate", "in \\u hexadecimal character escape"),
    ]
    .into_iter()
    .find(|(start, _)| words.starts_with(start))
    .map_or("looking for beginning of value", |(_, place)| place);
    let line = body
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let byte = line.get(error.column().saturating_sub(1)).copied().unwrap_or(b'\n');
    format!("invalid character {:?} {place}", char::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> String {
        Fields::parse(body.as_bytes(), "ChatRequest").unwrap_err().message
    }

    #[test]
    fn words_of_go() {
        assert_eq!(error(""), "missing request body");
        assert_eq!(error("{\"model\":"), "unexpected EOF");
        assert_eq!(
            error("{nope"),
            "invalid character 'n' looking for beginning of object key string"
        );
        assert_eq!(error("{\"a\" 1}"), "invalid character '1' after object key");
        assert_eq!(
            error("{\"a\":1 \"b\"}"),
            "invalid character '\"' after object key:value pair"
        );
        assert_eq!(
            error("{\"a\":x}"),
            "invalid character 'x' looking for beginning of value"
        );
        assert_eq!(error("{} x"), "invalid character 'x' after top-level value");
        assert_eq!(
            error("[1]"),
            "json: cannot unmarshal array into Go value of type api.ChatRequest"
        );
        let mut fields = Fields::parse(br#"{"MODEL":1,"stream":"x"}"#, "ChatRequest").unwrap();
        assert_eq!(
            fields.model().unwrap_err().message,
            "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"
        );
        assert!(
            fields
                .bool("stream")
                .unwrap_err()
                .message
                .ends_with("ChatRequest.stream of type bool")
        );
    }

    #[test]
    fn keep_alive_forms() {
        let keep = |json: &str| {
            Fields::parse(format!("{{\"keep_alive\":{json}}}").as_bytes(), "ChatRequest")
                .unwrap()
                .keep_alive()
        };
        let seconds = |s: f64| Ok(Some(KeepAlive::from_seconds(s)));
        assert_eq!(keep("300"), seconds(300.0));
        assert_eq!(keep("0.5"), seconds(0.5));
        assert_eq!(keep("-1"), Ok(Some(KeepAlive::Forever)));
        assert_eq!(keep("\"5m0s\""), seconds(300.0));
        assert_eq!(keep("\"0s\""), seconds(0.0));
        assert_eq!(keep("\"\""), Ok(None));
        assert_eq!(keep("null"), Ok(None));
        assert_eq!(
            keep("\"10\"").unwrap_err().message,
            "time: missing unit in duration \"10\""
        );
        assert_eq!(keep("\"abc\"").unwrap_err().message, "time: invalid duration \"abc\"");
        assert_eq!(keep("true").unwrap_err().message, "Unsupported type: 'bool'");
    }
}
