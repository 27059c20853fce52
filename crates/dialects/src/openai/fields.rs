//! Typed looks into a JSON object, with OpenAI's words when a field has another type.

use domain::RunnerError;
use serde_json::{Map, Value};

/// A field that must be there.
pub(crate) fn missing(name: &str) -> RunnerError {
    RunnerError::invalid(format!("'{name}' field is required"))
        .param(name)
        .code("missing_required_parameter")
}

/// A field whose value we cannot take.
pub(crate) fn invalid(name: &str, message: impl Into<String>) -> RunnerError {
    RunnerError::invalid(message).param(name).code("invalid_value")
}

/// A field (or a value of it) that would change the answer and that we cannot honour.
pub(crate) fn unsupported(name: &str, message: impl Into<String>) -> RunnerError {
    RunnerError::invalid(message).param(name).code("unsupported_parameter")
}

/// The members of an object, with the path to it for error messages.
pub(crate) struct Fields<'a> {
    members: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The members of an object found at `path` (empty: the request itself).
    pub(crate) fn of(members: &'a Map<String, Value>, path: impl Into<String>) -> Self {
        Self {
            members,
            path: path.into(),
        }
    }

    /// The same for a value that must be an object.
    pub(crate) fn of_value(value: &'a Value, path: impl Into<String>) -> Result<Self, RunnerError> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self::of(members, path)),
            _ => Err(wrong_type(&path, "an object")),
        }
    }

    /// The full name of a member.
    pub(crate) fn name(&self, member: &str) -> String {
        if self.path.is_empty() {
            member.to_owned()
        } else {
            format!("{}.{member}", self.path)
        }
    }

    /// A member that is there and not null.
    pub(crate) fn get(&self, member: &str) -> Option<&'a Value> {
        self.members.get(member).filter(|value| !value.is_null())
    }

    /// A string.
    pub(crate) fn text(&self, member: &str) -> Result<Option<&'a str>, RunnerError> {
        self.typed(member, "a string", Value::as_str)
    }

    /// A string that must be there.
    pub(crate) fn required(&self, member: &str) -> Result<&'a str, RunnerError> {
        self.text(member)?.ok_or_else(|| missing(&self.name(member)))
    }

    /// A boolean.
    pub(crate) fn boolean(&self, member: &str) -> Result<Option<bool>, RunnerError> {
        self.typed(member, "a boolean", Value::as_bool)
    }

    /// A whole number.
    pub(crate) fn integer(&self, member: &str) -> Result<Option<i64>, RunnerError> {
        self.typed(member, "an integer", |value| {
            let whole = |number: f64| (number.fract() == 0.0).then_some(number as i64);
            value.as_i64().or_else(|| value.as_f64().and_then(whole))
        })
    }

    /// A number.
    pub(crate) fn number(&self, member: &str) -> Result<Option<f64>, RunnerError> {
        self.typed(member, "a number", Value::as_f64)
    }

    /// A list.
    pub(crate) fn list(&self, member: &str) -> Result<Option<&'a [Value]>, RunnerError> {
        self.typed(member, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object.
    pub(crate) fn object(&self, member: &str) -> Result<Option<Fields<'a>>, RunnerError> {
        let members = self.typed(member, "an object", Value::as_object)?;
        Ok(members.map(|members| Fields::of(members, self.name(member))))
    }

    fn typed<T>(
        &self,
        member: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, RunnerError> {
        match self.get(member) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| wrong_type(&self.name(member), wanted)),
        }
    }
}

/// A field of another JSON type.
pub(crate) fn wrong_type(name: &str, wanted: &str) -> RunnerError {
    RunnerError::invalid(format!("'{name}' must be {wanted}"))
        .param(name)
        .code("invalid_type")
}
