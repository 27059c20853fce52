//! Verbs that show what is there.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output::{Output, count, duration, size};

fn models(state: &Value) -> &[Value] {
    state["models"].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) if text.is_empty() => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Models that hear.
pub(crate) const HEARS: &str = "speech to text";

/// What a model is for, by its capabilities.
pub(crate) fn kind(capabilities: &Value) -> &'static str {
    let can = |word: &str| {
        capabilities
            .as_array()
            .is_some_and(|all| all.iter().any(|capability| capability == word))
    };
    [
        ("chat", "chat"),
        ("completion", "completion"),
        ("rerank", "rerank"),
        ("embedding", "embedding"),
        ("transcription", HEARS),
        ("speech", "text to speech"),
    ]
    .into_iter()
    .find(|(word, _)| can(word))
    .map_or("–", |(_, kind)| kind)
}

/// `list`.
pub(crate) async fn list(server: &Client, output: Output) -> Result<ExitCode, Failure> {
    let state = server.get("/v1/state").await?;
    let models = models(&state);
    if output.json {
        output.document(&json!({ "models": models }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            vec![
                text(&model["key"]),
                kind(&model["capabilities"]).to_owned(),
                match model["size"].as_u64() {
                    Some(0) | None => "–".to_owned(),
                    Some(bytes) => size(bytes),
                },
                text(&model["quantization"]),
                count(model["parameters"].as_u64().unwrap_or(0)),
                text(&model["context_length"]),
                text(&model["state"]),
            ]
        })
        .collect();
    output.table(
        &["NAME", "TYPE", "SIZE", "QUANTIZATION", "PARAMETERS", "CONTEXT", "STATE"],
        &rows,
    )?;
    if rows.is_empty() {
        output
            .line("No models. Name a folder with GGUF files: \"models\": {\"dirs\": [\"…\"]} in the settings file.")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `ps`.
pub(crate) async fn ps(server: &Client, output: Output) -> Result<ExitCode, Failure> {
    let state = server.get("/v1/state").await?;
    let loaded: Vec<&Value> = models(&state)
        .iter()
        .filter(|model| model["instance"].is_object())
        .collect();
    if output.json {
        let instances: Vec<&Value> = loaded.iter().map(|model| &model["instance"]).collect();
        output.document(&json!({ "instances": instances, "requests": state["requests"] }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = now_ms();
    let rows: Vec<Vec<String>> = loaded
        .iter()
        .map(|model| {
            let instance = &model["instance"];
            let bytes = |key: &str| instance[key].as_u64().unwrap_or(0);
            vec![
                text(&model["key"]),
                text(&model["state"]),
                size(bytes("memory_bytes") + bytes("vram_bytes")),
                // Speech engines have none.
                match instance["launch"]["context"].as_u64() {
                    Some(0) | None => "–".to_owned(),
                    Some(tokens) => tokens.to_string(),
                },
                format!("{}/{}", bytes("active"), text(&instance["launch"]["parallel"])),
                text(&instance["pid"]),
                until(instance, now),
            ]
        })
        .collect();
    output.table(&["NAME", "STATE", "MEMORY", "CONTEXT", "BUSY", "PID", "UNLOADS"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn until(instance: &Value, now: i64) -> String {
    if instance["active"].as_u64().unwrap_or(0) > 0 {
        return "when idle".to_owned();
    }
    match instance["expires_at_ms"].as_i64() {
        Some(at) => format!("in {}", duration(at - now)),
        None if instance["keep_alive"] == json!(-1) => "never".to_owned(),
        None => "–".to_owned(),
    }
}

fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// `show`.
pub(crate) async fn show(server: &Client, name: &str, output: Output) -> Result<ExitCode, Failure> {
    let info = server.get(&format!("/v1/models/{}/info", segment(name))).await?;
    let state = server.get("/v1/state").await?;
    let summary = models(&state)
        .iter()
        .find(|model| is_named(model, name))
        .cloned()
        .unwrap_or_default();
    if output.json {
        output.document(&json!({ "info": info, "model": summary }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    let mut row = |label: &str, value: String| {
        if !value.is_empty() && value != "–" {
            rows.push(vec![label.to_owned(), value]);
        }
    };
    row("name", text(&info["id"]));
    row("title", text(&summary["display_name"]));
    row("about", text(&summary["description"]));
    row("state", text(&summary["state"]));
    row("reason", text(&summary["reason"]));
    row("file", text(&info["path"]));
    row("size", size(info["size"].as_u64().unwrap_or(0)));
    row("format", text(&info["format"]));
    row("architecture", text(&info["architecture"]));
    row("parameters", count(info["parameters"].as_u64().unwrap_or(0)));
    row("quantization", text(&summary["quantization"]));
    row("context", text(&info["context_length"]));
    row("capabilities", list_text(&summary["capabilities"]));
    row("also named", list_text(&summary["aliases"]));
    row("engine port", text(&info["port"]));
    output.table(&["MODEL", ""], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Is this one of the model's names?
fn is_named(model: &Value, name: &str) -> bool {
    let names = std::iter::once(&model["key"]).chain(model["aliases"].as_array().into_iter().flatten());
    let name = name.strip_suffix(":latest").unwrap_or(name);
    names
        .filter_map(Value::as_str)
        .any(|own| own.eq_ignore_ascii_case(name))
}

fn list_text(value: &Value) -> String {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `routes`: the route table, for tests and documentation.
pub(crate) fn routes(output: Output) -> Result<ExitCode, Failure> {
    let routes = app::ROUTES.iter();
    if output.json {
        let rows: Vec<Value> = routes
            .map(|route| {
                json!({
                    "method": route.method.as_str().to_uppercase(),
                    "path": route.path,
                    "dialect": route.dialect.as_str(),
                    "class": route.class.as_str(),
                    "summary": route.summary,
                })
            })
            .collect();
        output.document(&rows)?;
    } else {
        let rows: Vec<Vec<String>> = routes
            .map(|route| {
                vec![
                    route.method.as_str().to_uppercase(),
                    route.path.to_owned(),
                    route.summary.to_owned(),
                ]
            })
            .collect();
        output.table(&["METHOD", "PATH", "MEANING"], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (capabilities, wanted) in [
            (json!(["completion", "chat", "tools"]), "chat"),
            (json!(["completion"]), "completion"),
            (json!(["embedding"]), "embedding"),
            (json!(["transcription", "translation"]), HEARS),
            (json!(["speech"]), "text to speech"),
            (Value::Null, "–"),
        ] {
            assert_eq!(kind(&capabilities), wanted);
        }
    }

    #[test]
    fn unload_times() {
        let at = |instance: Value| until(&instance, 1_000);
        assert_eq!(at(json!({"active": 1, "expires_at_ms": 9})), "when idle");
        assert_eq!(at(json!({"active": 0, "expires_at_ms": 61_000})), "in 1 min 0 s");
        assert_eq!(at(json!({"active": 0, "keep_alive": -1})), "never");
        assert_eq!(at(json!({"active": 0, "keep_alive": "5m0s"})), "–");
    }
}
