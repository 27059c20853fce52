//! Everything generated from the types: the JSON Schema, the default file, the reference page.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::document::pretty;
use crate::section::Config;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Config).to_value();
    // One type serves three listeners with three default ports: only the defaults of `proxies` are true.
    if let Some(port) = schema
        .pointer_mut("/$defs/Proxy/properties/port")
        .and_then(Value::as_object_mut)
    {
        port.shift_remove("default");
    }
    schema
});

/// The schema, made once.
pub(crate) fn schema_value() -> &'static Value {
    &SCHEMA
}

/// The JSON Schema (draft 2020-12) of `config.json`.
pub fn json_schema() -> Value {
    SCHEMA.clone()
}

/// The text of `docs/config.schema.json`.
pub fn json_schema_text() -> String {
    pretty(&SCHEMA)
}

/// The text of a `config.json` with every setting at its default; `schema` is the address editors find the schema at.
pub fn default_text(schema: Option<&str>) -> String {
    let config = Config {
        schema: schema.map(str::to_owned),
        ..Config::default()
    };
    pretty(&serde_json::to_value(config).unwrap_or_default())
}

/// The reference page of all settings, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Settings\n\nGenerated from `crates/config`; do not edit. Every setting of `config.json`, with its default.\n\
         Flags beat environment variables, these beat the file, the file beats the defaults.\n",
    );
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    section(&mut page, &SCHEMA, "", Some(&defaults));
    page
}

fn resolve(schema: &Value) -> &Value {
    let target = |s: &Value| {
        s.get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| SCHEMA.pointer(r.strip_prefix('#')?))
            .filter(|s| s.is_object())
    };
    target(schema).unwrap_or(schema)
}

/// Writes one table for the members of an object, then the tables of its sub-objects.
fn section(page: &mut String, schema: &Value, prefix: &str, defaults: Option<&Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let mut rows = String::new();
    let mut deeper = Vec::new();
    for (name, property) in properties {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let target = resolve(property);
        let default = defaults.and_then(|d| d.get(name));
        if target.get("properties").is_some() {
            deeper.push((path, property, target, default));
        } else if let Some(inner) = target
            .get("additionalProperties")
            .map(resolve)
            .filter(|s| s.get("properties").is_some())
        {
            deeper.push((format!("{path}.<name>"), property, inner, None));
        } else {
            let default = default.map_or("–".to_owned(), |d| format!("`{d}`"));
            let _ = writeln!(rows, "| `{path}` | {default} | {} |", description(property));
        }
    }
    if !rows.is_empty() {
        let _ = write!(page, "\n| Setting | Default | Meaning |\n|---|---|---|\n{rows}");
    }
    for (path, property, target, default) in deeper {
        let _ = write!(page, "\n## {path}\n\n{}\n", description(property));
        let fresh = json!({});
        section(
            page,
            target,
            &path,
            default
                .or(Some(&fresh))
                .filter(|d| d.as_object().is_some_and(|o| !o.is_empty())),
        );
    }
}

fn description(schema: &Value) -> String {
    let own = schema
        .get("description")
        .or_else(|| resolve(schema).get("description"))
        .and_then(Value::as_str);
    own.unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Compares a committed file with what it is generated from; `UPDATE_GENERATED=1` writes it.
    fn current(file: &str, text: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{file} is not current: run UPDATE_GENERATED=1 cargo test -p config"
        );
    }

    #[test]
    fn generated_files_are_current() {
        current("docs/config.schema.json", &json_schema_text());
        current("docs/config.md", &reference());
        current("config.json", &default_text(Some("docs/config.schema.json")));
    }

    #[test]
    fn every_setting_is_documented() {
        let undocumented = |name: &str, object: &Value| -> Vec<String> {
            let properties = object.get("properties").and_then(Value::as_object);
            properties
                .into_iter()
                .flatten()
                .filter(|(_, property)| description(property).is_empty())
                .map(|(key, _)| format!("{name}.{key}"))
                .collect()
        };
        let mut missing = undocumented("config", &SCHEMA);
        for (name, definition) in SCHEMA["$defs"].as_object().unwrap() {
            missing.extend(undocumented(name, definition));
        }
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn defaults_are_valid_and_without_warnings() {
        for text in [default_text(None), default_text(Some("x")), "{}".to_owned()] {
            let parsed = Config::parse(&text).unwrap();
            assert_eq!(parsed.warnings, Vec::<String>::new());
            assert_eq!(
                Config {
                    schema: None,
                    ..parsed.config
                },
                Config::default()
            );
        }
    }
}
