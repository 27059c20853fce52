//! Reads the fields of an `/api/v1` body: types are exact, and a key that nobody reads is refused (contract 7).

use domain::RunnerError;
use serde_json::{Map, Value};

/// A parsed object. Read what is known, then call [`Fields::finish`].
#[derive(Debug)]
pub(super) struct Fields {
    members: Map<String, Value>,
    /// Where the object stands, for messages: empty, or `input.0.`.
    path: String,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, RunnerError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self::of(members, String::new())),
            Ok(_) => Err(RunnerError::invalid("The request body must be a JSON object.").code("invalid_type")),
            Err(error) => {
                Err(RunnerError::invalid(format!("The request body is not valid JSON: {error}.")).code("invalid_value"))
            }
        }
    }

    pub(super) fn of(members: Map<String, Value>, path: String) -> Self {
        Self { members, path }
    }

    /// Takes a value out; null counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        // Order matters only for the message about keys that are left.
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, RunnerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mismatch(name, "a string")),
        }
    }

    pub(super) fn required_string(&mut self, name: &str) -> Result<String, RunnerError> {
        match self.string(name)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(self.missing(name)),
        }
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, RunnerError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(on)),
            Some(_) => Err(self.mismatch(name, "a boolean")),
        }
    }

    /// A whole number in these bounds.
    pub(super) fn integer(&mut self, name: &str, least: u32) -> Result<Option<u32>, RunnerError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        let Some(number) = whole else {
            return Err(self.mismatch(name, "an integer"));
        };
        if number < f64::from(least) || number > f64::from(u32::MAX) {
            return Err(self.invalid(name, &format!("must be at least {least}")));
        }
        Ok(Some(number as u32))
    }

    /// A number in these bounds.
    pub(super) fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<Value>, RunnerError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Some(number) = value.as_f64() else {
            return Err(self.mismatch(name, "a number"));
        };
        if !(least..=most).contains(&number) {
            let rule = if most.is_finite() {
                format!("must be between {least} and {most}")
            } else {
                format!("must be at least {least}")
            };
            return Err(self.invalid(name, &rule));
        }
        Ok(Some(value))
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), RunnerError> {
        if self.members.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = self.members.keys().map(|key| format!("'{key}'")).collect();
        let mut error = RunnerError::invalid(format!("Unrecognized key(s) in object: {}", keys.join(", ")));
        if let Some(first) = self.members.keys().next() {
            error = error.param(format!("{}{first}", self.path));
        }
        Err(error.code("unrecognized_keys"))
    }

    pub(super) fn missing(&self, name: &str) -> RunnerError {
        let name = format!("{}{name}", self.path);
        RunnerError::invalid(format!("'{name}' is required"))
            .param(name)
            .code("missing_required_parameter")
    }

    pub(super) fn mismatch(&self, name: &str, expected: &str) -> RunnerError {
        let name = format!("{}{name}", self.path);
        RunnerError::invalid(format!("'{name}' must be {expected}"))
            .param(name)
            .code("invalid_type")
    }

    pub(super) fn invalid(&self, name: &str, rule: &str) -> RunnerError {
        let name = format!("{}{name}", self.path);
        RunnerError::invalid(format!("'{name}' {rule}"))
            .param(name)
            .code("invalid_value")
    }
}
