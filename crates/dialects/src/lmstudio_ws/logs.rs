//! Events of `streamLogs` (contract 10.11).

use domain::Level;
use serde_json::{Value, json};

use super::Stats;

/// One message of the channel.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEvent {
    message: Value,
    prompt: bool,
}

impl LogEvent {
    fn of(timestamp_ms: i64, data: &Value) -> Self {
        Self {
            message: json!({"type": "log", "log": {"timestamp": timestamp_ms, "data": data}}),
            prompt: false,
        }
    }

    /// The prompt of a prediction: the only kind that older libraries know.
    pub fn is_prompt(&self) -> bool {
        self.prompt
    }

    /// As it is sent.
    pub fn message(&self) -> &Value {
        &self.message
    }
}

/// The prompt of a prediction, after templating.
pub fn input_log(timestamp_ms: i64, input: &str, model_path: &str, identifier: &str) -> LogEvent {
    let data =
        json!({"type": "llm.prediction.input", "input": input, "modelPath": model_path, "modelIdentifier": identifier});
    LogEvent {
        prompt: true,
        ..LogEvent::of(timestamp_ms, &data)
    }
}

/// The answer of a prediction.
pub fn output_log(timestamp_ms: i64, output: &str, stats: &Stats, identifier: &str) -> LogEvent {
    LogEvent::of(
        timestamp_ms,
        &json!({"type": "llm.prediction.output", "output": output, "stats": stats.value(), "modelIdentifier": identifier}),
    )
}

/// A line of our own log, or of an engine's: then with the model it runs.
pub fn log_line(timestamp_ms: i64, level: Level, text: &str, engine: Option<(&str, &str)>) -> LogEvent {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let data = match engine {
        None => json!({"type": "server.log", "content": text, "level": level}),
        Some((identifier, version)) => json!({
            "type": "runtime.log",
            "level": level,
            "message": text,
            "engineName": "llama.cpp",
            "engineVersion": version,
            "engineType": "llama.cpp",
            "modelIdentifier": identifier,
        }),
    };
    LogEvent::of(timestamp_ms, &data)
}
