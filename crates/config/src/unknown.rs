//! Keys that no version of ours knows. They are kept (promise C5) and the user is told, with the nearest known name.

use serde_json::{Map, Value};

use crate::positions::pointer;
use crate::schema::schema_value;

/// An unknown key.
#[derive(Debug, PartialEq)]
pub(crate) struct Unknown {
    pub(crate) pointer: String,
    pub(crate) key: String,
    pub(crate) nearest: Option<String>,
}

/// All keys of a document that the schema does not list.
pub(crate) fn unknown_keys(document: &Value) -> Vec<Unknown> {
    let root = schema_value();
    let mut walk = Walk {
        root,
        path: Vec::new(),
        found: Vec::new(),
    };
    walk.visit(root, document);
    walk.found
}

struct Walk<'a> {
    root: &'a Value,
    path: Vec<String>,
    found: Vec<Unknown>,
}

impl<'a> Walk<'a> {
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| self.root.pointer(reference.strip_prefix('#')?))
            .unwrap_or(schema)
    }

    fn visit(&mut self, schema: &'a Value, value: &Value) {
        let schema = self.resolve(schema);
        match value {
            Value::Object(members) => {
                let properties = schema.get("properties").and_then(Value::as_object);
                let others = schema.get("additionalProperties").filter(|s| s.is_object());
                for (key, member) in members {
                    self.path.push(key.clone());
                    match (properties.and_then(|p| p.get(key)), others, properties) {
                        (Some(schema), _, _) | (None, Some(schema), _) => self.visit(schema, member),
                        (None, None, Some(properties)) => self.found.push(Unknown {
                            pointer: pointer(&self.path),
                            key: key.clone(),
                            nearest: nearest(key, properties),
                        }),
                        (None, None, None) => {}
                    }
                    self.path.pop();
                }
            }
            Value::Array(elements) => {
                if let Some(items) = schema.get("items") {
                    for (index, element) in elements.iter().enumerate() {
                        self.path.push(index.to_string());
                        self.visit(items, element);
                        self.path.pop();
                    }
                }
            }
            _ => {}
        }
    }
}

fn nearest(key: &str, known: &Map<String, Value>) -> Option<String> {
    let lower = key.to_lowercase();
    known
        .keys()
        .map(|name| (strsim::damerau_levenshtein(&lower, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_unknown_keys_everywhere() {
        let document = json!({
            "schedular": {},
            "proxies": {"ollama": {"prot": 1, "rate_limits": {"zzz": 1}}},
            "models": {"entries": {"any key": {"contxt": 1, "env": {"ANY": "x"}}}},
            "groups": {"any": {"memebers": []}},
            "model_aliases": {"any": "x"},
            "auth": {"inference_keys": [{"env": "K"}]}
        });
        let found: Vec<_> = unknown_keys(&document)
            .into_iter()
            .map(|u| (u.pointer, u.nearest))
            .collect();
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            found,
            [
                ("/schedular".into(), some("scheduler")),
                ("/proxies/ollama/prot".into(), some("port")),
                ("/proxies/ollama/rate_limits/zzz".into(), None),
                ("/models/entries/any key/contxt".into(), some("context")),
                ("/groups/any/memebers".into(), some("members")),
            ]
        );
        assert_eq!(
            unknown_keys(&serde_json::to_value(crate::Config::default()).unwrap()),
            []
        );
    }
}
