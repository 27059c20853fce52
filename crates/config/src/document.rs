//! A configuration text as a JSON document: parsed, with positions, editable without losing what this version does not know.

use serde_json::{Map, Value};

use crate::error::{ConfigError, Place, Problem};
use crate::positions::Positions;

/// A parsed text.
#[derive(Debug)]
pub(crate) struct Document {
    /// Name shown in messages.
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) value: Value,
    pub(crate) positions: Positions,
}

impl Document {
    /// Parses a text.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when it is not a JSON object or holds a key twice.
    pub(crate) fn read(file: &str, text: &str) -> Result<Self, ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let problem = |position, field: String, message: String| Problem {
            place: Place {
                file: file.to_owned(),
                position,
                field,
            },
            message,
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            let message = error.to_string();
            let message = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(head, _)| head);
            ConfigError::Invalid(vec![problem(
                Some((error.line().max(1), error.column().max(1))),
                String::new(),
                format!("this is not valid JSON: {message}"),
            )])
        })?;
        if !value.is_object() {
            let message = "the file must hold one JSON object, { … }".to_owned();
            return Err(ConfigError::Invalid(vec![problem(
                Some((1, 1)),
                String::new(),
                message,
            )]));
        }
        let positions = Positions::scan(&text);
        let duplicates: Vec<Problem> = positions
            .duplicates(&text)
            .into_iter()
            .map(|(pointer, position)| problem(Some(position), dotted(&pointer), "this key is there twice".to_owned()))
            .collect();
        if !duplicates.is_empty() {
            return Err(ConfigError::Invalid(duplicates));
        }
        Ok(Self {
            file: file.to_owned(),
            text,
            value,
            positions,
        })
    }
}

/// A JSON pointer as people write it: `proxies.ollama.port`.
pub(crate) fn dotted(pointer: &str) -> String {
    segments(pointer).map(|s| s.join(".")).unwrap_or_default()
}

/// The segments of a JSON pointer; `None` when it is not one.
pub(crate) fn segments(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let rest = pointer.strip_prefix('/')?;
    Some(
        rest.split('/')
            .map(|s| s.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

/// Lays `over` onto `base`: objects member by member, anything else replaces.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Sets (or with `None` removes) the value at a path, making the objects on the way. False when a list index or a
/// non-object is in the way.
pub(crate) fn set_path(root: &mut Value, path: &[String], value: Option<Value>) -> bool {
    let Some((last, parents)) = path.split_last() else {
        return match value {
            Some(value) if value.is_object() => {
                *root = value;
                true
            }
            _ => false,
        };
    };
    let mut at = root;
    for segment in parents {
        at = match at {
            Value::Object(map) => {
                if value.is_none() && !map.contains_key(segment) {
                    return true;
                }
                map.entry(segment.clone()).or_insert_with(|| Value::Object(Map::new()))
            }
            Value::Array(list) => match segment.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
                Some(element) => element,
                None => return false,
            },
            _ => return false,
        };
    }
    match (at, value) {
        (Value::Object(map), Some(value)) => {
            map.insert(last.clone(), value);
            true
        }
        (Value::Object(map), None) => {
            map.shift_remove(last);
            true
        }
        (Value::Array(list), value) => match (last.as_str(), last.parse::<usize>().ok(), value) {
            ("-", _, Some(value)) => {
                list.push(value);
                true
            }
            (_, Some(index), Some(value)) if index < list.len() => {
                list[index] = value;
                true
            }
            (_, Some(index), None) if index < list.len() => {
                list.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// The text form of a document as this program writes it.
pub(crate) fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_and_removes() {
        let mut value = json!({"a": {"b": 1, "x": 2}, "l": [1, 2]});
        let path = |pointer: &str| segments(pointer).unwrap();
        assert!(set_path(&mut value, &path("/a/b"), Some(json!(5))));
        assert!(set_path(&mut value, &path("/n/m~1o"), Some(json!("k"))));
        assert!(set_path(&mut value, &path("/l/-"), Some(json!(3))));
        assert!(set_path(&mut value, &path("/l/0"), None));
        assert!(set_path(&mut value, &path("/a/x"), None));
        assert!(set_path(&mut value, &path("/none/x"), None));
        assert!(!set_path(&mut value, &path("/a/b/c"), Some(json!(1))));
        assert!(!set_path(&mut value, &path("/l/9"), Some(json!(1))));
        assert!(!set_path(&mut value, &path(""), Some(json!(1))));
        assert_eq!(value, json!({"a": {"b": 5}, "l": [2, 3], "n": {"m/o": "k"}}));
        assert_eq!(segments("a"), None);
    }
}
