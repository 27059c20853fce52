use std::fmt::Write;

/// What this server says of itself.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    /// Product version.
    pub version: String,
    /// Unix seconds of the start.
    pub start_seconds: f64,
    /// Requests for models since the start.
    pub requests_total: u64,
    /// Requests now: running, queued, waiting for a load.
    pub requests: [(&'static str, usize); 3],
    /// Models in the library.
    pub models: usize,
    /// Loaded models.
    pub engines: Vec<EngineMetrics>,
}

/// One loaded model.
#[derive(Debug, Clone, Default)]
pub struct EngineMetrics {
    /// Its name.
    pub model: String,
    /// Resident and device memory, in bytes.
    pub memory_bytes: u64,
    /// Requests it can answer at once.
    pub slots: u32,
    /// Context of each, in tokens.
    pub context_tokens: u32,
    /// Seconds its start took.
    pub load_seconds: f64,
    /// What the engine says itself, in Prometheus' text form; empty when it did not answer.
    pub own: String,
}

impl EngineMetrics {
    /// A counter or gauge of the engine.
    fn own(&self, name: &str) -> Option<f64> {
        self.own.lines().find_map(|line| {
            let value = line.strip_prefix("llamacpp:")?.strip_prefix(name)?.strip_prefix(' ')?;
            value.trim().parse().ok()
        })
    }
}

/// Prometheus' text form: names begin with `llamarunner_` and end in a base unit. What the engine of the only loaded model
/// says comes after it under the engine's own names, for tools made for a single llama-server; with more models ask for one
/// by `?model=`.
pub fn metrics(facts: &Exposition) -> String {
    let mut out = String::with_capacity(2048);
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "# HELP llamarunner_{name} {help}\n# TYPE llamarunner_{name} {kind}"
        );
        for (labels, value) in samples {
            let _ = writeln!(out, "llamarunner_{name}{labels} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    family(
        "build_info",
        "gauge",
        "Version of the server.",
        &[(label("version", &facts.version), 1.0)],
    );
    family(
        "start_time_seconds",
        "gauge",
        "Start of the server since the Unix epoch.",
        &one(facts.start_seconds),
    );
    family(
        "requests_total",
        "counter",
        "Requests for models since the start.",
        &one(facts.requests_total as f64),
    );
    let phases: Vec<_> = facts
        .requests
        .iter()
        .map(|(phase, count)| (label("phase", phase), *count as f64))
        .collect();
    family("requests", "gauge", "Requests now, by where they stand.", &phases);
    family("models", "gauge", "Models in the library.", &one(facts.models as f64));
    family(
        "models_loaded",
        "gauge",
        "Models in memory.",
        &one(facts.engines.len() as f64),
    );

    let each = |value: &dyn Fn(&EngineMetrics) -> Option<f64>| -> Vec<(String, f64)> {
        let samples = facts.engines.iter();
        samples
            .filter_map(|engine| Some((label("model", &engine.model), value(engine)?)))
            .collect()
    };
    family(
        "model_memory_bytes",
        "gauge",
        "Memory of the model's engine.",
        &each(&|engine| Some(engine.memory_bytes as f64)),
    );
    family(
        "model_slots",
        "gauge",
        "Requests the model answers at once.",
        &each(&|engine| Some(engine.slots.into())),
    );
    family(
        "model_context_tokens",
        "gauge",
        "Context of a request.",
        &each(&|engine| Some(engine.context_tokens.into())),
    );
    family(
        "model_load_seconds",
        "gauge",
        "Time the model took to load.",
        &each(&|engine| Some(engine.load_seconds)),
    );
    for (name, help, own) in [
        (
            "model_prompt_tokens_total",
            "Prompt tokens read.",
            "prompt_tokens_total",
        ),
        (
            "model_prompt_seconds_total",
            "Time spent on prompts.",
            "prompt_seconds_total",
        ),
        (
            "model_generated_tokens_total",
            "Tokens generated.",
            "tokens_predicted_total",
        ),
        (
            "model_generation_seconds_total",
            "Time spent generating.",
            "tokens_predicted_seconds_total",
        ),
    ] {
        family(name, "counter", help, &each(&|engine| engine.own(own)));
    }
    if let [engine] = facts.engines.as_slice() {
        out.push_str(&engine.own);
    }
    out
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(model: &str) -> EngineMetrics {
        EngineMetrics {
            model: model.to_owned(),
            memory_bytes: 1 << 20,
            slots: 2,
            context_tokens: 4096,
            load_seconds: 0.25,
            own: "# HELP llamacpp:prompt_tokens_total x\n# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 7\n"
                .to_owned(),
        }
    }

    #[test]
    fn every_sample_has_a_type_and_an_escaped_label() {
        let mut facts = Exposition {
            version: "1.2.3".into(),
            engines: vec![engine("a\"b")],
            ..Exposition::default()
        };
        let text = metrics(&facts);
        assert!(
            text.contains("llamarunner_model_memory_bytes{model=\"a\\\"b\"} 1048576\n"),
            "{text}"
        );
        assert!(text.contains("llamarunner_model_prompt_tokens_total{model=\"a\\\"b\"} 7\n"));
        assert!(text.ends_with("\nllamacpp:prompt_tokens_total 7\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        facts.engines.push(engine("second"));
        assert!(!metrics(&facts).contains("llamacpp:"), "whose numbers would it be?");
    }
}
