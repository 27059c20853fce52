use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{ROUTES, Route};
use crate::state::VERSION;

/// `/openapi.json`, made once from the route table.
pub(crate) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT
        .get_or_init(|| Bytes::from(serde_json::to_vec(&build()).unwrap_or_default()))
        .clone()
}

fn build() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.as_str()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "LlamaRunner",
            "version": VERSION,
            "description": "Local models for Ollama, LM Studio and OpenAI clients. Every route is on every port.",
        },
        "paths": paths,
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": format!("{}_{}", route.method.as_str(), identifier(route.path)),
        "tags": [route.dialect.as_str()],
        "summary": route.summary,
        "x-class": route.class.as_str(),
        "responses": { "200": { "description": "OK" }, "default": { "description": "Error in the form of this API" } },
    });
    if let (Some(open), Some(close)) = (route.path.find('{'), route.path.find('}')) {
        operation["parameters"] = json!([{
            "name": &route.path[open + 1..close],
            "in": "path",
            "required": true,
            "description": "May contain slashes, percent-encoded or plain.",
            "schema": { "type": "string" },
        }]);
    }
    if route.method == super::Verb::Post {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": { "type": "object" } } } });
    }
    operation
}

fn identifier(path: &str) -> String {
    let words: Vec<&str> = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        "root".into()
    } else {
        words.join("_")
    }
}
