//! Prediction configurations (contract 12): the settings of an answer in the domain form.

use domain::RunnerError;
use domain::chat::{ChatRequest, Format, Role, Sampling, Thinking, ToolChoice};
use serde_json::{Value, json};

use super::{KvConfig, KvStack};
use crate::engine::{check_schema_bytes, drop_oldest};

/// What happens with a conversation that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// An error.
    StopAtLimit,
    /// Messages in the middle are left out.
    #[default]
    TruncateMiddle,
    /// The oldest messages are left out.
    RollingWindow,
}

/// How to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Length, stop texts, samplers.
    pub sampling: Sampling,
    /// Form of the answer.
    pub format: Format,
    /// Tools, OpenAI form.
    pub tools: Vec<Value>,
    /// Whether they must be called.
    pub tool_choice: ToolChoice,
    /// Reasoning.
    pub thinking: Thinking,
    /// What stands before and after reasoning in what the client gets.
    pub tags: (String, String),
    /// Alternatives per token to report.
    pub logprobs: Option<u32>,
    /// The messages are a raw prompt: no template (`completeModeFormatting`).
    pub raw: bool,
    /// What happens with too long conversations.
    pub overflow: Overflow,
    /// Stop texts that mean a tool call.
    pub tool_stops: Vec<String>,
    /// The configuration to tell the client.
    pub echo: KvConfig,
}

const PREFIX: &str = "llm.prediction.";
/// Layer in which older libraries put the pass-through template of a text completion.
const COMPLETE_MODE: &str = "completeModeFormatting";

impl Prediction {
    /// Reads the layers.
    ///
    /// # Errors
    /// `InvalidRequest` for values of a wrong type or a grammar over a limit; `Unsupported` for a draft model, which the
    /// engine takes at its start only.
    pub fn parse(stack: &KvStack) -> Result<Self, RunnerError> {
        let config = stack.collapse();
        let keys = Keys(&config);
        let raw = stack.has_layer(COMPLETE_MODE);
        let tool_stops = keys.texts("toolCallStopStrings")?;
        let sampling = sampling(&keys, &tool_stops)?;
        let (format, grammar) = format(&keys)?;
        let (tools, tool_choice) = tools(&keys)?;
        if keys
            .text("speculativeDecoding.draftModel")?
            .is_some_and(|name| !name.is_empty())
        {
            return Err(RunnerError::new(
                domain::ErrorKind::Unsupported,
                "A draft model cannot be chosen per request; set it in the model's configuration.",
            )
            .param("draftModel"));
        }
        let parsing = keys.value("reasoning.parsing");
        let tag = |name: &str, standard: &str| {
            let text = parsing.and_then(|parsing| parsing.get(name)).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).unwrap_or(standard).to_owned()
        };
        let mut prediction = Self {
            sampling,
            format,
            tools,
            tool_choice,
            thinking: Thinking {
                enabled: keys.value("reasoning.enableThinking").and_then(Value::as_bool),
                effort: None,
            },
            tags: (tag("startString", "<think>"), tag("endString", "</think>")),
            logprobs: keys.number("logProbs")?.map(|count| count.clamp(0.0, 100.0) as u32),
            raw,
            overflow: match keys.text("contextOverflowPolicy")? {
                Some("stopAtLimit") => Overflow::StopAtLimit,
                Some("rollingWindow") => Overflow::RollingWindow,
                _ => Overflow::TruncateMiddle,
            },
            tool_stops,
            echo: KvConfig::default(),
        };
        let fields = &mut prediction.sampling.fields;
        if let Some(grammar) = grammar {
            fields.insert("grammar".into(), grammar.into());
        }
        if parsing.is_some_and(|parsing| parsing["enabled"] == false) {
            fields.insert("reasoning_format".into(), "none".into());
        }
        if let Some(budget) = keys.number("reasoning.budgetTokens")? {
            fields.insert("thinking_budget_tokens".into(), json!(budget.max(0.0) as u64));
        }
        // Asked for so that a client sees that the prompt is being read, and which stop text was met.
        fields.insert("return_progress".into(), true.into());
        if !prediction.sampling.stop.is_empty() {
            fields.insert("verbose".into(), true.into());
        }
        prediction.echo = echo(config);
        Ok(prediction)
    }
}

/// What the client is told: its own settings and the defaults in effect. Never the template, which older libraries cannot
/// read (contract 10.5).
fn echo(mut config: KvConfig) -> KvConfig {
    config.remove("llm.prediction.promptTemplate");
    for (name, value) in [
        ("temperature", json!(TEMPERATURE)),
        ("topKSampling", json!(TOP_K)),
        ("topPSampling", json!({"checked": true, "value": TOP_P})),
        ("minPSampling", json!({"checked": true, "value": MIN_P})),
        ("repeatPenalty", json!({"checked": true, "value": REPEAT_PENALTY})),
        ("contextOverflowPolicy", json!("truncateMiddle")),
    ] {
        config.default_to(&format!("{PREFIX}{name}"), value);
    }
    config
}

// LM Studio's defaults (contract 12).
const TEMPERATURE: f64 = 0.8;
const TOP_K: u64 = 40;
const TOP_P: f64 = 0.95;
const MIN_P: f64 = 0.05;
const REPEAT_PENALTY: f64 = 1.1;

struct Keys<'a>(&'a KvConfig);

impl<'a> Keys<'a> {
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(&format!("{PREFIX}{name}"))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, RunnerError> {
        self.value(name)
            .map(|value| value.as_str().ok_or_else(|| wrong(name, "text")))
            .transpose()
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, RunnerError> {
        let Some(value) = self.value(name) else {
            return Ok(Vec::new());
        };
        let texts = value.as_array().ok_or_else(|| wrong(name, "a list of texts"))?;
        texts
            .iter()
            .map(|text| {
                text.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong(name, "a list of texts"))
            })
            .collect()
    }

    /// A number, with or without a check box; `None`: absent or not ticked.
    fn number(&self, name: &str) -> Result<Option<f64>, RunnerError> {
        self.0
            .checked(&format!("{PREFIX}{name}"))
            .map(|value| value.as_f64().ok_or_else(|| wrong(name, "a number")))
            .transpose()
    }

    /// A number with a check box: what to send for a box that is not ticked, and for an absent one.
    fn sampler(&self, name: &str, off: f64, absent: Option<f64>) -> Result<Option<f64>, RunnerError> {
        match self.0.checkbox(&format!("{PREFIX}{name}")) {
            None => Ok(absent),
            Some(None) => Ok(Some(off)),
            Some(Some(value)) => value.as_f64().map(Some).ok_or_else(|| wrong(name, "a number")),
        }
    }
}

fn wrong(name: &str, expected: &str) -> RunnerError {
    RunnerError::invalid(format!("'{PREFIX}{name}' must be {expected}.")).param(name)
}

fn sampling(keys: &Keys<'_>, tool_stops: &[String]) -> Result<Sampling, RunnerError> {
    let mut stop = keys.texts("stopStrings")?;
    let template_stops = keys
        .value("promptTemplate")
        .and_then(|template| template.get("stopStrings"));
    let more = template_stops.and_then(Value::as_array).into_iter().flatten();
    for text in more
        .filter_map(Value::as_str)
        .chain(tool_stops.iter().map(String::as_str))
    {
        if !text.is_empty() && !stop.iter().any(|known| known == text) {
            stop.push(text.to_owned());
        }
    }
    let mut sampling = Sampling {
        max_tokens: keys
            .number("maxPredictedTokens")?
            .filter(|count| *count >= 0.0)
            .map(|count| count as i64),
        stop,
        seed: keys.number("seed")?.map(|seed| seed as i64),
        ..Sampling::default()
    };
    let mut set = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            sampling.fields.insert(name.into(), json!(value));
        }
    };
    set(
        "temperature",
        Some(keys.number("temperature")?.unwrap_or(TEMPERATURE).max(0.0)),
    );
    set("top_p", keys.sampler("topPSampling", 1.0, Some(TOP_P))?);
    set("min_p", keys.sampler("minPSampling", 0.0, Some(MIN_P))?);
    set(
        "repeat_penalty",
        keys.sampler("repeatPenalty", 1.0, Some(REPEAT_PENALTY))?,
    );
    set("presence_penalty", keys.sampler("llama.presencePenalty", 0.0, None)?);
    set("frequency_penalty", keys.sampler("llama.frequencyPenalty", 0.0, None)?);
    set("xtc_probability", keys.sampler("llama.xtcProbability", 0.0, None)?);
    set("xtc_threshold", keys.sampler("llama.xtcThreshold", 0.1, None)?);
    let top_k = keys.number("topKSampling")?.map_or(TOP_K, |k| k.max(0.0) as u64);
    sampling.fields.insert("top_k".into(), top_k.into());
    if let Some(bias) = keys.value("llama.logitBias").and_then(Value::as_array) {
        // `"-inf"` is `false` in the engine's words.
        let pairs = bias.iter().filter_map(|pair| {
            let (token, weight) = (pair.get(0)?, pair.get(1)?);
            Some(json!([
                token,
                if weight.is_number() {
                    weight.clone()
                } else {
                    Value::Bool(false)
                }
            ]))
        });
        sampling
            .fields
            .insert("logit_bias".into(), Value::Array(pairs.collect()));
    }
    if let Some(mirostat) = keys.0.checked(&format!("{PREFIX}llama.mirostatSampling")) {
        for (ours, engines) in [
            ("version", "mirostat"),
            ("targetEntropy", "mirostat_tau"),
            ("learningRate", "mirostat_eta"),
        ] {
            if let Some(value) = mirostat.get(ours).filter(|value| value.is_number()) {
                sampling.fields.insert(engines.into(), value.clone());
            }
        }
    }
    Ok(sampling)
}

/// The form of the answer, and a grammar where that is the form.
fn format(keys: &Keys<'_>) -> Result<(Format, Option<String>), RunnerError> {
    let Some(structured) = keys.value("structured") else {
        return Ok((Format::Text, None));
    };
    match structured.get("type").and_then(Value::as_str) {
        Some("none") => Ok((Format::Text, None)),
        Some("json") => Ok(match structured.get("jsonSchema").filter(|schema| !schema.is_null()) {
            Some(schema) => (Format::JsonSchema(schema.clone()), None),
            None => (Format::JsonObject, None),
        }),
        Some("gbnf") => {
            let grammar = structured.get("gbnfGrammar").and_then(Value::as_str);
            let grammar = grammar.ok_or_else(|| wrong("structured", "a grammar with 'gbnfGrammar'"))?;
            check_schema_bytes(grammar.as_bytes()).map_err(|error| error.param("structured"))?;
            Ok((Format::Text, Some(grammar.to_owned())))
        }
        _ => Err(wrong("structured", "of the type 'json', 'gbnf' or 'none'")),
    }
}

fn tools(keys: &Keys<'_>) -> Result<(Vec<Value>, ToolChoice), RunnerError> {
    let tools = match keys.value("tools") {
        Some(tools) if tools["type"] == "toolArray" => match tools.get("tools") {
            Some(Value::Array(list)) => list.clone(),
            None | Some(Value::Null) => Vec::new(),
            Some(_) => return Err(wrong("tools", "a list of tools")),
        },
        _ => Vec::new(),
    };
    let choice = match keys
        .value("toolChoice")
        .and_then(|choice| choice.get("mode"))
        .and_then(Value::as_str)
    {
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Required,
        _ => ToolChoice::Auto,
    };
    Ok((tools, choice))
}

/// Leaves messages out of a conversation that has `prompt` tokens where `context` are allowed. False: nothing is left that
/// could be left out. System messages and the last message stay; with [`Overflow::TruncateMiddle`] also the first.
pub fn drop_for_overflow(request: &mut ChatRequest, policy: Overflow, prompt: u64, context: u64) -> bool {
    let spoken = |request: &ChatRequest| request.messages.iter().filter(|m| m.role != Role::System).count();
    // In proportion to what is too much, so that a long conversation is not rendered once per message.
    let over = prompt.saturating_sub(context) as f64 / prompt.max(1) as f64;
    let wanted = ((spoken(request) as f64 * over) as usize).max(1);
    let before = request.messages.len();
    while before - request.messages.len() < wanted {
        let dropped = match policy {
            Overflow::StopAtLimit => false,
            Overflow::RollingWindow => drop_oldest(request),
            Overflow::TruncateMiddle => drop_middle(request) || drop_oldest(request),
        };
        if !dropped {
            break;
        }
    }
    request.messages.len() < before
}

/// Drops the oldest message after the first exchange.
fn drop_middle(request: &mut ChatRequest) -> bool {
    let first = request.messages.iter().position(|message| message.role != Role::System);
    let Some(first) = first.filter(|first| first + 2 < request.messages.len()) else {
        return false;
    };
    let mut kept: Vec<_> = request.messages.drain(..=first).collect();
    let dropped = drop_oldest(request);
    kept.append(&mut request.messages);
    request.messages = kept;
    dropped
}

#[cfg(test)]
mod tests {
    use domain::chat::Message;

    use super::*;

    fn parse(fields: &Value) -> Result<Prediction, RunnerError> {
        let stack = json!({"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]});
        Prediction::parse(&serde_json::from_value(stack).unwrap())
    }

    #[test]
    fn defaults_are_lm_studios() {
        let prediction = parse(&json!([])).unwrap();
        let expected = json!({
            "temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1, "top_k": 40, "return_progress": true,
        });
        assert_eq!(Value::Object(prediction.sampling.fields), expected);
        assert_eq!((prediction.raw, prediction.overflow), (false, Overflow::TruncateMiddle));
    }

    #[test]
    fn every_key() {
        let prediction = parse(&json!([
            {"key": "llm.prediction.temperature", "value": 0},
            {"key": "llm.prediction.maxPredictedTokens", "value": {"checked": true, "value": 5}},
            {"key": "llm.prediction.stopStrings", "value": ["a", "b"]},
            {"key": "llm.prediction.toolCallStopStrings", "value": ["b", "c"]},
            {"key": "llm.prediction.topKSampling", "value": 1},
            {"key": "llm.prediction.topPSampling", "value": {"checked": false, "value": 0.5}},
            {"key": "llm.prediction.minPSampling", "value": {"checked": true, "value": 0.1}},
            {"key": "llm.prediction.repeatPenalty", "value": {"checked": false}},
            {"key": "llm.prediction.llama.presencePenalty", "value": {"checked": true, "value": 0.3}},
            {"key": "llm.prediction.llama.logitBias", "value": [[5, 1.5], [6, "-inf"]]},
            {"key": "llm.prediction.llama.mirostatSampling", "value": {"checked": true, "value": {"version": 2, "learningRate": 0.1, "targetEntropy": 5}}},
            {"key": "llm.prediction.seed", "value": {"checked": true, "value": 7}},
            {"key": "llm.prediction.structured", "value": {"type": "json", "jsonSchema": {"type": "object"}}},
            {"key": "llm.prediction.tools", "value": {"type": "toolArray", "tools": [{"type": "function"}]}},
            {"key": "llm.prediction.toolChoice", "value": {"type": "generic", "mode": "required"}},
            {"key": "llm.prediction.contextOverflowPolicy", "value": "rollingWindow"},
            {"key": "llm.prediction.reasoning.parsing", "value": {"enabled": false, "startString": "<a>", "endString": "</a>"}},
            {"key": "llm.prediction.reasoning.enableThinking", "value": false},
            {"key": "llm.prediction.reasoning.budgetTokens", "value": {"checked": true, "value": 64}},
            {"key": "llm.prediction.logProbs", "value": {"checked": true, "value": 3}},
            {"key": "llm.prediction.promptTemplate", "value": {"type": "jinja", "stopStrings": ["d"]}},
            {"key": "some.other.key", "value": {"any": "thing"}},
        ]))
        .unwrap();
        let fields = Value::Object(prediction.sampling.fields);
        assert_eq!(
            fields,
            json!({
                "temperature": 0.0, "top_p": 1.0, "min_p": 0.1, "repeat_penalty": 1.0, "presence_penalty": 0.3, "top_k": 1,
                "logit_bias": [[5, 1.5], [6, false]], "mirostat": 2, "mirostat_tau": 5, "mirostat_eta": 0.1,
                "reasoning_format": "none", "thinking_budget_tokens": 64, "return_progress": true, "verbose": true,
            })
        );
        assert_eq!(prediction.sampling.stop, ["a", "b", "d", "c"]);
        assert_eq!(
            (prediction.sampling.max_tokens, prediction.sampling.seed),
            (Some(5), Some(7))
        );
        assert_eq!(prediction.format, Format::JsonSchema(json!({"type": "object"})));
        assert_eq!(
            (prediction.tools.len(), prediction.tool_choice),
            (1, ToolChoice::Required)
        );
        assert_eq!(prediction.thinking.enabled, Some(false));
        assert_eq!(prediction.tags, ("<a>".to_owned(), "</a>".to_owned()));
        assert_eq!(
            (prediction.logprobs, prediction.overflow),
            (Some(3), Overflow::RollingWindow)
        );
        assert_eq!(prediction.echo.get("llm.prediction.promptTemplate"), None);
    }

    #[test]
    fn refused_values() {
        for (key, value) in [
            ("temperature", json!("hot")),
            ("stopStrings", json!("a")),
            ("stopStrings", json!([1])),
            ("structured", json!({"type": "xml"})),
            ("structured", json!({"type": "gbnf"})),
            ("structured", json!({"type": "gbnf", "gbnfGrammar": "(".repeat(100)})),
            ("tools", json!({"type": "toolArray", "tools": 5})),
            ("speculativeDecoding.draftModel", json!("x")),
        ] {
            let key = format!("llm.prediction.{key}");
            assert!(parse(&json!([{"key": key, "value": value}])).is_err(), "{key}");
        }
    }

    fn conversation(count: usize) -> ChatRequest {
        let mut messages = vec![Message::text(Role::System, "s")];
        for n in 0..count {
            let role = if n % 2 == 0 { Role::User } else { Role::Assistant };
            messages.push(Message::text(role, n.to_string()));
        }
        ChatRequest {
            messages,
            ..ChatRequest::default()
        }
    }

    fn texts(request: &ChatRequest) -> Vec<String> {
        let text = |message: &Message| match message.parts.as_slice() {
            [domain::chat::Part::Text(text)] => text.clone(),
            _ => String::new(),
        };
        request.messages.iter().map(text).collect()
    }

    #[test]
    fn overflow_policies() {
        let mut request = conversation(7);
        assert!(!drop_for_overflow(&mut request, Overflow::StopAtLimit, 200, 100));
        assert!(drop_for_overflow(&mut request, Overflow::TruncateMiddle, 200, 100));
        assert_eq!(texts(&request), ["s", "0", "4", "5", "6"]);
        let mut request = conversation(7);
        assert!(drop_for_overflow(&mut request, Overflow::RollingWindow, 200, 100));
        assert_eq!(texts(&request), ["s", "3", "4", "5", "6"]);
        let mut request = conversation(3);
        assert!(drop_for_overflow(&mut request, Overflow::TruncateMiddle, 101, 100));
        assert_eq!(texts(&request), ["s", "0", "2"]);
        assert!(drop_for_overflow(&mut request, Overflow::TruncateMiddle, 101, 100));
        assert_eq!(texts(&request), ["s", "2"]);
        assert!(!drop_for_overflow(&mut request, Overflow::TruncateMiddle, 101, 100));
    }
}
