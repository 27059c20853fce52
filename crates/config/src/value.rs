//! Values that several sections share.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use thiserror::Error;

/// `"auto"` or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auto<T> {
    /// The product decides.
    #[default]
    Auto,
    /// The user decided.
    Value(T),
}

impl<T> Auto<T> {
    /// The user's value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The user's value by reference, if there is one.
    pub fn as_ref(&self) -> Auto<&T> {
        match self {
            Self::Auto => Auto::Auto,
            Self::Value(value) => Auto::Value(value),
        }
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: de::DeserializeOwned> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.as_str() == Some("auto") {
            return Ok(Self::Auto);
        }
        T::deserialize(value)
            .map(Self::Value)
            .map_err(|error| de::Error::custom(format!("{error} or \"auto\"")))
    }
}

impl<T: JsonSchema> JsonSchema for Auto<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Auto_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, generator.subschema_for::<T>()] })
    }
}

/// Schema of [`domain::KeepAlive`].
pub(crate) struct KeepAliveSchema;

impl JsonSchema for KeepAliveSchema {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "KeepAlive".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "description": "Seconds; negative: forever." },
                { "type": "string", "description": "A duration such as \"5m\" or \"1h30m\"; negative: forever." }
            ]
        })
    }
}

/// A secret: the text itself, or where to find it. Never shown in debug output.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// `{"env":"NAME"}`: an environment variable.
    Env(String),
    /// `{"file":"path"}`: the first line of a file.
    File(PathBuf),
}

/// Why a secret could not be read. Never holds the secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set or empty.
    #[error("the environment variable {0} is not set")]
    Env(String),
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Secret {
    /// Reads the secret from where it is kept.
    ///
    /// # Errors
    /// [`SecretError`] when the variable or file is missing.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value),
                _ => Err(SecretError::Env(name.clone())),
            },
            Self::File(path) => std::fs::read_to_string(path)
                .map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
                .map_err(|source| SecretError::File {
                    path: path.clone(),
                    source,
                }),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Secret(…)"),
            Self::Env(name) => write!(f, "Secret(env {name})"),
            Self::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => serializer.serialize_str(value),
            Self::Env(name) => serializer.collect_map([("env", name)]),
            Self::File(path) => serializer.collect_map([("file", path)]),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = || de::Error::custom("expected a text, {\"env\":\"NAME\"} or {\"file\":\"path\"}");
        match Value::deserialize(deserializer)? {
            Value::String(value) => Ok(Self::Value(value)),
            Value::Object(map) if map.len() == 1 => match map.into_iter().next() {
                Some((key, Value::String(name))) if key == "env" && !name.is_empty() => Ok(Self::Env(name)),
                Some((key, Value::String(path))) if key == "file" && !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(expected()),
            },
            _ => Err(expected()),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The secret itself, or where to find it.",
            "anyOf": [
                { "type": "string" },
                { "type": "object", "properties": { "env": { "type": "string", "description": "Name of an environment variable." } },
                  "required": ["env"], "additionalProperties": false },
                { "type": "object", "properties": { "file": { "type": "string", "description": "Path of a file whose first line is the secret." } },
                  "required": ["file"], "additionalProperties": false }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_reads_and_writes() {
        let read = |text: &str| serde_json::from_str::<Auto<u32>>(text);
        assert_eq!(read("\"auto\"").unwrap(), Auto::Auto);
        assert_eq!(read("7").unwrap(), Auto::Value(7));
        let error = read("\"seven\"").unwrap_err().to_string();
        assert!(error.contains("expected u32 or \"auto\""), "{error}");
        assert_eq!(serde_json::to_string(&Auto::<u32>::Auto).unwrap(), "\"auto\"");
        assert_eq!(serde_json::to_string(&Auto::Value(7u32)).unwrap(), "7");
    }

    #[test]
    fn secrets() {
        let read = |text: &str| serde_json::from_str::<Secret>(text);
        assert_eq!(read("\"k\"").unwrap().read().unwrap(), "k");
        assert!(
            read(r#"{"env":"CONFIG_TEST_NO_SUCH_VARIABLE"}"#)
                .unwrap()
                .read()
                .is_err()
        );
        assert!(read(r#"{"env":""}"#).is_err());
        assert!(read(r#"{"env":"A","file":"b"}"#).is_err());
        assert!(read("1").is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc\nrest").unwrap();
        assert_eq!(Secret::File(file.path().into()).read().unwrap(), "abc");
        assert_eq!(format!("{:?}", read("\"hush\"").unwrap()), "Secret(…)");
        for text in ["\"k\"", r#"{"env":"A"}"#, r#"{"file":"b"}"#] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
    }
}
