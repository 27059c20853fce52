//! `options` (contract 5): sampling fields by the engine's names, and launch wishes.

use domain::{LaunchOptions, RunnerError, chat::Sampling};
use serde_json::{Map, Value};

/// Ollama's defaults by the engine's names, always sent because the engine's own differ.
fn defaults() -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in [
        ("temperature", 0.8),
        ("top_p", 0.9),
        ("min_p", 0.0),
        ("typical_p", 1.0),
        ("repeat_penalty", 1.0),
    ] {
        fields.insert(name.into(), value.into());
    }
    for (name, value) in [("top_k", 40), ("repeat_last_n", 64), ("n_keep", 4)] {
        fields.insert(name.into(), value.into());
    }
    fields
}

/// Reads `options`; null values are skipped, unknown keys ignored.
///
/// # Errors
/// `InvalidRequest` for a wrong type, worded as Ollama does.
pub(super) fn parse(options: &Map<String, Value>, vision: bool) -> Result<(Sampling, LaunchOptions), RunnerError> {
    let sampling = Sampling {
        fields: defaults(),
        ..Sampling::default()
    };
    read(options, vision, sampling)
}

/// The same without Ollama's defaults.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_given(options: &Map<String, Value>) -> Result<(Sampling, LaunchOptions), RunnerError> {
    read(options, false, Sampling::default())
}

fn read(
    options: &Map<String, Value>,
    vision: bool,
    mut sampling: Sampling,
) -> Result<(Sampling, LaunchOptions), RunnerError> {
    let mut launch = LaunchOptions::default();
    for (name, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        let name = name.as_str();
        match name {
            "num_predict" => sampling.max_tokens = Some(integer(name, value)?),
            "seed" => sampling.seed = Some(integer(name, value)?),
            "stop" => sampling.stop = strings(name, value)?,
            "num_keep" => set(&mut sampling, "n_keep", integer(name, value)?.into()),
            "top_k" | "repeat_last_n" => set(&mut sampling, name, integer(name, value)?.into()),
            "mirostat" => set(&mut sampling, name, integer(name, value)?.clamp(0, 2).into()),
            "top_p" | "min_p" | "typical_p" | "temperature" | "repeat_penalty" | "presence_penalty"
            | "frequency_penalty" | "mirostat_tau" | "mirostat_eta" => {
                set(&mut sampling, name, float(name, value)?.into());
            }
            "num_ctx" => {
                let least = if vision { 2048 } else { 4 };
                launch.context = positive(integer(name, value)?).map(|context| context.max(least));
            }
            "num_batch" => launch.batch = positive(integer(name, value)?),
            // -1 is "auto": not a wish.
            "num_gpu" => launch.gpu_layers = u32::try_from(integer(name, value)?).ok(),
            "main_gpu" => launch.main_gpu = u32::try_from(integer(name, value)?).ok(),
            "num_thread" => launch.threads = positive(integer(name, value)?),
            "use_mmap" => launch.mmap = Some(boolean(name, value)?),
            "draft_num_predict" => drop(integer(name, value)?),
            // Options of old versions (`tfs_z`, `numa`, `low_vram`, …) and unknown ones alike are accepted and ignored.
            _ => {}
        }
    }
    Ok((sampling, launch))
}

fn set(sampling: &mut Sampling, name: &str, value: Value) {
    sampling.fields.insert(name.to_owned(), value);
}

fn positive(number: i64) -> Option<u32> {
    (number > 0).then(|| u32::try_from(number).unwrap_or(u32::MAX))
}

fn wrong(name: &str, what: &str) -> RunnerError {
    RunnerError::invalid(format!("option {name:?} must be of {what}")).param(format!("options.{name}"))
}

/// A fraction is cut off.
fn integer(name: &str, value: &Value) -> Result<i64, RunnerError> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|number| number as i64))
        .ok_or_else(|| wrong(name, "type integer"))
}

fn float(name: &str, value: &Value) -> Result<f64, RunnerError> {
    value.as_f64().ok_or_else(|| wrong(name, "type float32"))
}

fn boolean(name: &str, value: &Value) -> Result<bool, RunnerError> {
    value.as_bool().ok_or_else(|| wrong(name, "type boolean"))
}

fn strings(name: &str, value: &Value) -> Result<Vec<String>, RunnerError> {
    let items = value.as_array().ok_or_else(|| wrong(name, "type array"))?;
    let text = |item: &Value| {
        item.as_str()
            .map(str::to_owned)
            .ok_or_else(|| wrong(name, "an array of strings"))
    };
    items.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(options: &Value) -> Result<(Sampling, LaunchOptions), RunnerError> {
        parse(options.as_object().unwrap(), false)
    }

    #[test]
    fn maps_to_engine_and_launch() {
        let (sampling, launch) = given(&json!({
            "num_predict": 12, "seed": 7, "stop": ["a"], "num_keep": 9, "top_k": 3.9, "temperature": 0, "mirostat": 5,
            "num_ctx": 2, "num_batch": 64, "num_gpu": -1, "num_thread": 0, "use_mmap": false, "main_gpu": 1,
            "low_vram": true, "whatever": {}, "min_p": null
        }))
        .unwrap();
        assert_eq!(
            (sampling.max_tokens, sampling.seed, sampling.stop.len()),
            (Some(12), Some(7), 1)
        );
        assert_eq!(
            Value::Object(sampling.fields),
            json!({"temperature": 0.0, "top_p": 0.9, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "top_k": 3,
                "repeat_last_n": 64, "n_keep": 9, "mirostat": 2})
        );
        let expected = LaunchOptions {
            context: Some(4),
            batch: Some(64),
            mmap: Some(false),
            main_gpu: Some(1),
            ..Default::default()
        };
        assert_eq!(launch, expected);
    }

    #[test]
    fn type_errors() {
        for (options, words) in [
            (json!({"num_ctx": "x"}), "option \"num_ctx\" must be of type integer"),
            (
                json!({"temperature": "hot"}),
                "option \"temperature\" must be of type float32",
            ),
            (json!({"use_mmap": 1}), "option \"use_mmap\" must be of type boolean"),
            (json!({"stop": "x"}), "option \"stop\" must be of type array"),
            (json!({"stop": [1]}), "option \"stop\" must be of an array of strings"),
        ] {
            assert_eq!(given(&options).unwrap_err().message, words);
        }
    }
}
