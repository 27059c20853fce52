use std::time::Duration;

use domain::RunnerError;
use serde_json::{Map, Value, json};

use super::signature::{Signature, signed};
use crate::{ModelView, json::to_vec};

/// Facts for the three extra blocks of v0 results.
#[derive(Debug, Clone, Default)]
pub struct V0Facts {
    /// `model_info.arch`.
    pub arch: String,
    /// `model_info.quant`.
    pub quant: String,
    /// Context in effect.
    pub context_length: u32,
    /// `runtime.name`, for example `llama.cpp-linux-x86_64`.
    pub runtime_name: String,
    /// `runtime.version`.
    pub runtime_version: String,
}

impl V0Facts {
    /// From the view of a loaded model.
    pub fn new(model: &ModelView, runtime_name: &str, runtime_version: &str) -> Self {
        let facts = &model.entry.facts;
        let loaded = model.instance.as_ref().map(|instance| instance.launch.context);
        Self {
            arch: facts.architecture.clone(),
            quant: facts.quantization.clone(),
            context_length: loaded.or(facts.context_length).unwrap_or(0),
            runtime_name: runtime_name.to_owned(),
            runtime_version: runtime_version.to_owned(),
        }
    }

    /// Adds `stats`, `model_info` and `runtime` to a result or chunk. The engine's `timings` (in `counts` or in the result
    /// itself) give the numbers; `first` and `elapsed` are measured times, used where the engine gives none.
    pub(super) fn add(&self, result: &mut Map<String, Value>, counts: &Counts, first: Duration, elapsed: Duration) {
        let timing = |name: &str| {
            counts
                .timings
                .as_ref()
                .and_then(|t| t.get(name))
                .and_then(Value::as_f64)
        };
        let generation = timing("predicted_ms").map_or(elapsed.saturating_sub(first).as_secs_f64(), |ms| ms / 1e3);
        let predicted = timing("predicted_n").unwrap_or(0.0);
        let rate = match timing("predicted_per_second").filter(|rate| rate.is_finite()) {
            Some(rate) => rate,
            None if generation > 0.0 => predicted / generation,
            None => 0.0,
        };
        let stop_reason = match counts.finish.as_deref() {
            // The engine says "length" for both; the counts tell them apart.
            Some("length") if self.context_reached(&timing) => "contextLengthReached",
            Some("length") => "maxPredictedTokensReached",
            Some("tool_calls") => "toolCalls",
            _ => "eosFound",
        };
        let stats = json!({
            "tokens_per_second": rate,
            "time_to_first_token": first.as_secs_f64(),
            "generation_time": generation,
            "stop_reason": stop_reason,
        });
        result.insert("stats".into(), stats);
        let info =
            json!({"arch": self.arch, "quant": self.quant, "format": "gguf", "context_length": self.context_length});
        result.insert("model_info".into(), info);
        let runtime =
            json!({"name": self.runtime_name, "version": self.runtime_version, "supported_formats": ["gguf"]});
        result.insert("runtime".into(), runtime);
    }

    fn context_reached(&self, timing: &impl Fn(&str) -> Option<f64>) -> bool {
        let used: f64 = ["cache_n", "prompt_n", "predicted_n"]
            .iter()
            .filter_map(|name| timing(name))
            .sum();
        self.context_length > 0 && used + 1.0 >= f64::from(self.context_length)
    }
}

/// What the engine said about a result.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) timings: Option<Value>,
    pub(super) finish: Option<String>,
}

impl Counts {
    /// Takes over what this result or chunk knows.
    pub(super) fn read(&mut self, result: &Map<String, Value>) {
        if let Some(timings) = result.get("timings").filter(|t| t.is_object()) {
            self.timings = Some(timings.clone());
        }
        let choices = result.get("choices").and_then(Value::as_array);
        let finish = choices
            .and_then(|c| c.first())
            .and_then(|c| c.get("finish_reason"))
            .and_then(Value::as_str);
        if let Some(finish) = finish {
            self.finish = Some(finish.to_owned());
        }
    }
}

/// A non-stream chat or completion result in LM Studio's form with `stats`, `model_info`, `runtime` added (contract 6).
/// `elapsed`: request sent to answer; the time to the first token is what the engine's own times leave of it.
///
/// # Errors
/// `EngineFailed` when the engine's answer is not a JSON object.
pub fn add_stats(
    response: &[u8],
    signature: &Signature,
    facts: &V0Facts,
    elapsed: Duration,
) -> Result<Vec<u8>, RunnerError> {
    let mut result = signed(response, signature)?;
    let mut counts = Counts::default();
    counts.read(&result);
    let milliseconds = counts
        .timings
        .as_ref()
        .and_then(|t| t.get("predicted_ms"))
        .and_then(Value::as_f64);
    let generation = Duration::try_from_secs_f64(milliseconds.unwrap_or(0.0) / 1e3).unwrap_or_default();
    facts.add(&mut result, &counts, elapsed.saturating_sub(generation), elapsed);
    Ok(to_vec(&result))
}
