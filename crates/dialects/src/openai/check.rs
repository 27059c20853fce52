//! What is looked at in a body before it is relayed: what the engine gets wrong, ignores or would be hurt by.

use std::borrow::Cow;

use domain::RunnerError;
use serde_json::Value;

use super::choice;
use super::fields::{invalid, missing, unsupported, wrong_type};
use super::media::check_addresses;
use super::messages;
use super::responses::{bad_effort, effort};
use crate::engine::check_schema_bytes;
use crate::peek::{Field, Key, Peeked};

/// Changes to make to a body before it is relayed; use with [`crate::peek::rewrite`].
pub type Edits = Vec<(Key, Vec<u8>)>;

/// Most answers of one request (OpenAI's limit).
const MAX_N: i64 = 128;
/// Most alternatives per token (OpenAI's limit; Ollama contract 4.1 has the same).
pub(crate) const MAX_TOP_LOGPROBS: i64 = 20;

/// Whose chat clients are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatRules {
    /// OpenAI's: the roles are the template's business.
    OpenAi,
    /// LM Studio's (contract 4.2): `preset` is taken, and has no effect since there are none; roles are checked, and
    /// `developer` is `system`.
    LmStudio,
}

/// Checks a chat body where the engine is wrong or would be hurt (promise H8; engine guide 8). Ok holds the changes to make:
/// clamps, and forms of a field that the engine does not know.
///
/// # Errors
/// `InvalidRequest` with `param` and `code` set; fields that would change the answer and cannot be honoured are named.
pub fn check_chat(peeked: &Peeked<'_>, rules: ChatRules) -> Result<Edits, RunnerError> {
    let Some(list) = peeked.get(Key::Messages) else {
        return Err(missing("messages"));
    };
    if !list.is_array() {
        return Err(wrong_type("messages", "an array"));
    }
    if list.is_empty() {
        return Err(invalid("messages", "[] is too short - 'messages'"));
    }
    refuse_chat(peeked, rules)?;
    let mut edits = common(peeked)?;
    sampling(peeked)?;
    if let Some(messages) = messages::check(list.raw, rules)? {
        edits.push((Key::Messages, messages));
    }
    choice::tool_choice(peeked, &mut edits)?;
    response_format(peeked)?;
    chat_logprobs(peeked, &mut edits)?;
    thinking(peeked, &mut edits)?;
    Ok(edits)
}

/// Checks what all forms of `/v1/completions` share; [`super::completion`] decides how it is served.
///
/// # Errors
/// As [`check_chat`].
pub fn check_completion(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    if peeked.get(Key::Prompt).is_none() {
        return Err(missing("prompt"));
    }
    sampling(peeked)?;
    common(peeked)
}

/// What the sampling fields must be. The engine takes its default for a value of another type, or answers in its parser's
/// words.
fn sampling(peeked: &Peeked<'_>) -> Result<(), RunnerError> {
    type Fits = fn(&Field<'_>) -> bool;
    let number: Fits = |field| field.as_f64().is_some();
    let integer: Fits = |field| field.as_i64().is_some();
    let texts: Fits = |field| field.is_string() || serde_json::from_slice::<Vec<Cow<'_, str>>>(field.raw).is_ok();
    // llama-server also takes a list of pairs.
    let bias: Fits = |field| field.is_object() || field.is_array();
    for (key, fits, wanted) in [
        (Key::Temperature, number, "a number"),
        (Key::TopP, number, "a number"),
        (Key::TopK, integer, "an integer"),
        (Key::MinP, number, "a number"),
        (Key::PresencePenalty, number, "a number"),
        (Key::FrequencyPenalty, number, "a number"),
        (Key::RepeatPenalty, number, "a number"),
        (Key::LogitBias, bias, "an object"),
        (Key::Seed, integer, "an integer"),
        (Key::Stop, texts, "a string or an array of strings"),
    ] {
        if peeked.get(key).is_some_and(|field| !fits(&field)) {
            return Err(wrong_type(key.as_str(), wanted));
        }
    }
    Ok(())
}

/// Checks a `/v1/embeddings` body.
///
/// # Errors
/// As [`check_chat`].
pub fn check_embeddings(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    match peeked.get(Key::Input) {
        None if peeked.is_null(Key::Input) => return Err(invalid("input", "invalid input")),
        None => return Err(missing("input")),
        Some(input) if input.is_array() && input.is_empty() => return Err(invalid("input", "invalid input")),
        // An object is llama-server's way to mix text and images in one input.
        Some(input) if !(input.is_array() || input.is_string() || input.is_object()) => {
            return Err(invalid("input", "invalid input"));
        }
        Some(input) => check_addresses(input.raw, "input")?,
    }
    if let Some(format) = peeked.get(Key::EncodingFormat)
        && !matches!(format.as_str().as_deref(), Some("float" | "base64"))
    {
        let given = format.as_str().unwrap_or_else(|| String::from_utf8_lossy(format.raw));
        return Err(invalid(
            "encoding_format",
            format!("Invalid value for 'encoding_format' = {given}. Supported values: ['float', 'base64']."),
        ));
    }
    Ok(Edits::new())
}

/// Checks a rerank body.
///
/// # Errors
/// As [`check_chat`].
pub fn check_rerank(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    match peeked.get(Key::Query) {
        None => return Err(missing("query")),
        Some(query) if !query.is_string() => return Err(wrong_type("query", "a string")),
        Some(_) => {}
    }
    // `texts` is what text-embeddings-inference calls them; its answers have another form too.
    match peeked.get(Key::Documents).or_else(|| peeked.get(Key::Texts)) {
        None => Err(missing("documents")),
        Some(documents) if !documents.is_array() || documents.is_empty() => {
            Err(invalid("documents", "'documents' must be a non-empty array"))
        }
        Some(_) => Ok(Edits::new()),
    }
}

/// How many answers a request wants.
///
/// # Errors
/// `InvalidRequest` for anything but a small whole number.
pub fn answers(peeked: &Peeked<'_>) -> Result<u32, RunnerError> {
    let Some(n) = peeked.get(Key::N) else { return Ok(1) };
    match n.as_i64() {
        Some(n @ 1..=MAX_N) => Ok(n as u32),
        Some(_) => Err(invalid("n", format!("'n' must be between 1 and {MAX_N}"))),
        None => Err(wrong_type("n", "an integer")),
    }
}

/// More answers than the model runs at a time cannot be had from one request.
pub fn too_many_answers(parallel: u32) -> RunnerError {
    unsupported(
        "n",
        format!("'n' may be at most {parallel} for this model: it answers {parallel} requests at a time."),
    )
}

/// Fields that change the answer and that nothing here can honour.
fn refuse_chat(peeked: &Peeked<'_>, rules: ChatRules) -> Result<(), RunnerError> {
    for (key, instead) in [
        (Key::Audio, "the models here answer in text"),
        (Key::Functions, "use 'tools'"),
        (Key::FunctionCall, "use 'tool_choice'"),
        (Key::WebSearchOptions, "there is no web search here"),
        (Key::Preset, "there are no presets here"),
    ] {
        let taken = key == Key::Preset && rules == ChatRules::LmStudio;
        if !taken && peeked.get(key).is_some_and(|field| !field.is_empty()) {
            let name = key.as_str();
            return Err(unsupported(name, format!("'{name}' is not supported here: {instead}.")));
        }
    }
    if let Some(modalities) = peeked.get(Key::Modalities) {
        let wanted: Vec<Cow<'_, str>> = serde_json::from_slice(modalities.raw).unwrap_or_default();
        if wanted.iter().any(|word| word != "text") {
            return Err(unsupported(
                "modalities",
                "'modalities' may only be ['text'] here: the models answer in text.",
            ));
        }
    }
    if let Some(verbosity) = peeked.get(Key::Verbosity)
        && verbosity.as_str().is_none_or(|word| word != "medium")
    {
        return Err(unsupported(
            "verbosity",
            "'verbosity' is not supported here; say it in a message.",
        ));
    }
    Ok(())
}

/// Numbers the engine must not see out of range: (key, lowest, highest).
const RANGES: [(Key, i64, i64); 6] = [
    (Key::MaxTokens, -1, i32::MAX as i64),
    (Key::MaxCompletionTokens, -1, i32::MAX as i64),
    (Key::NPredict, -1, i32::MAX as i64),
    (Key::NKeep, -1, i32::MAX as i64),
    (Key::NDiscard, 0, i32::MAX as i64),
    (Key::NProbs, 0, 100),
];

pub(crate) fn common(peeked: &Peeked<'_>) -> Result<Edits, RunnerError> {
    let mut edits = Edits::new();
    for (key, lowest, highest) in RANGES {
        let Some(field) = peeked.get(key) else { continue };
        let Some(number) = field.as_f64() else {
            return Err(wrong_type(key.as_str(), "an integer"));
        };
        let clamped = number.clamp(lowest as f64, highest as f64);
        if clamped.to_bits() != number.to_bits() {
            edits.push((key, (clamped as i64).to_string().into_bytes()));
        }
    }
    if peeked.get(Key::IdSlot).is_some() {
        // Slots belong to the router's queue, not to callers.
        edits.push((Key::IdSlot, b"-1".to_vec()));
    }
    for key in [Key::Grammar, Key::JsonSchema, Key::ResponseFormat, Key::Tools] {
        if let Some(field) = peeked.get(key) {
            check_schema_bytes(field.raw).map_err(|error| error.param(key.as_str()))?;
        }
    }
    answers(peeked)?;
    Ok(edits)
}

/// The engine takes an unknown type for free text.
fn response_format(peeked: &Peeked<'_>) -> Result<(), RunnerError> {
    let Some(field) = peeked.get(Key::ResponseFormat) else {
        return Ok(());
    };
    let format: Value = serde_json::from_slice(field.raw).unwrap_or_default();
    let kind = format.get("type").and_then(Value::as_str);
    match kind {
        Some("text" | "json_object") => Ok(()),
        Some("json_schema") if format.pointer("/json_schema/schema").is_some() => Ok(()),
        Some("json_schema") => Err(missing("response_format.json_schema.schema").param("response_format")),
        Some(other) => Err(unsupported(
            "response_format",
            format!("'response_format.type' '{other}' is not supported here; use text, json_object or json_schema."),
        )),
        None => Err(missing("response_format.type").param("response_format")),
    }
}

/// The engine's own default is twenty alternatives, and none for zero: nothing at all then.
fn chat_logprobs(peeked: &Peeked<'_>, edits: &mut Edits) -> Result<(), RunnerError> {
    let wanted = match peeked.get(Key::Logprobs) {
        None => false,
        Some(field) => field.as_bool().ok_or_else(|| wrong_type("logprobs", "a boolean"))?,
    };
    let top = match peeked.get(Key::TopLogprobs) {
        None => 0,
        Some(field) => match field.as_i64() {
            Some(top @ 0..=MAX_TOP_LOGPROBS) => top,
            Some(_) => return Err(invalid("top_logprobs", "top_logprobs must be between 0 and 20")),
            None => return Err(wrong_type("top_logprobs", "an integer")),
        },
    };
    if wanted && top == 0 {
        edits.push((Key::TopLogprobs, b"1".to_vec()));
    }
    Ok(())
}

/// `reasoning_effort`, its object form and Ollama's `think`, in the words that templates know (Ollama contract 7.2).
fn thinking(peeked: &Peeked<'_>, edits: &mut Edits) -> Result<(), RunnerError> {
    let parsed = |field: Field<'_>| serde_json::from_slice::<Value>(field.raw).unwrap_or_default();
    let (name, given) = if let Some(field) = peeked.get(Key::ReasoningEffort) {
        ("reasoning_effort", field.as_str().map(Cow::into_owned))
    } else if let Some(field) = peeked.get(Key::Reasoning) {
        let word = parsed(field).get("effort").and_then(Value::as_str).map(str::to_owned);
        let Some(word) = word else { return Ok(()) };
        ("reasoning.effort", Some(word))
    } else if let Some(field) = peeked.get(Key::Think) {
        match field.as_bool() {
            Some(true) => {
                if peeked.get(Key::ChatTemplateKwargs).is_none() {
                    edits.push((Key::ChatTemplateKwargs, br#"{"enable_thinking":true}"#.to_vec()));
                }
                return Ok(());
            }
            Some(false) => ("think", Some("none".to_owned())),
            None => ("think", field.as_str().map(Cow::into_owned)),
        }
    } else {
        return Ok(());
    };
    let given = given.ok_or_else(|| wrong_type(name, "a string"))?;
    let word = match given.as_str() {
        "none" => "none",
        other => effort(other).ok_or_else(|| bad_effort(name, other))?,
    };
    if name != "reasoning_effort" || word != given {
        edits.push((Key::ReasoningEffort, format!("\"{word}\"").into_bytes()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peek::{peek, rewrite};

    fn chat(body: &str) -> Result<String, RunnerError> {
        let peeked = peek(body.as_bytes())?;
        let edits = check_chat(&peeked, ChatRules::OpenAi)?;
        Ok(String::from_utf8(rewrite(body.as_bytes(), &peeked, &edits)).unwrap())
    }

    #[test]
    fn missing_and_empty() {
        for (body, words) in [
            (r#"{"model":"x"}"#, "'messages' field is required"),
            (r#"{"messages":null}"#, "'messages' field is required"),
            (r#"{"messages":[ ]}"#, "[] is too short - 'messages'"),
            (r#"{"messages":"hi"}"#, "'messages' must be an array"),
            (
                r#"{"messages":[1],"max_tokens":"x"}"#,
                "'max_tokens' must be an integer",
            ),
            (
                r#"{"messages":[1],"temperature":"hot"}"#,
                "'temperature' must be a number",
            ),
            (r#"{"messages":[1],"top_k":0.5}"#, "'top_k' must be an integer"),
            (r#"{"messages":[1],"seed":[]}"#, "'seed' must be an integer"),
            (r#"{"messages":[1],"stop":["a",1]}"#, "'stop' must be a string or"),
            (r#"{"messages":[1],"logit_bias":5}"#, "'logit_bias' must be an object"),
            (r#"{"messages":[1],"tool_choice":"maybe"}"#, "'tool_choice' must be"),
            (r#"{"messages":[1],"tool_choice":{"type":"function"}}"#, "function.name"),
            (
                r#"{"messages":[1],"tool_choice":{"function":{"name":"f"}},"tools":[]}"#,
                "not in 'tools'",
            ),
        ] {
            let error = chat(body).expect_err(body);
            assert!(error.message.contains(words), "{}", error.message);
            assert!(error.param.is_some() && error.code.is_some());
        }
    }

    #[test]
    fn sampling_values_of_every_right_type_pass() {
        let same = r#"{"messages":[1],"temperature":1,"top_p":0.9,"top_k":40.0,"min_p":null,"seed":-1,"stop":["a","\n"],"logit_bias":[[1,false]]}"#;
        assert_eq!(chat(same).unwrap(), same);
        assert_eq!(
            chat(r#"{"messages":[1],"stop":"a"}"#).unwrap(),
            r#"{"messages":[1],"stop":"a"}"#
        );
    }

    #[test]
    fn lm_studios_rules() {
        let chat = |body: &str| {
            let peeked = peek(body.as_bytes())?;
            let edits = check_chat(&peeked, ChatRules::LmStudio)?;
            Ok::<_, RunnerError>(String::from_utf8(rewrite(body.as_bytes(), &peeked, &edits)).unwrap())
        };
        let same = r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"},{"role":"assistant"},{"role":"tool"}],"preset":"x"}"#;
        assert_eq!(chat(same).unwrap(), same);
        assert_eq!(
            chat(r#"{"messages":[{"role":"developer","content":"a"}]}"#).unwrap(),
            r#"{"messages":[{"role":"system","content":"a"}]}"#
        );
        for (messages, got) in [
            (r#"[{"role":"ai","content":"a"}]"#, "'ai'"),
            (r#"[{"content":"a"}]"#, "'undefined'"),
            (r#"[{"role":5}]"#, "'5'"),
            (r#"["a"]"#, "'undefined'"),
        ] {
            let error = chat(&format!(r#"{{"messages":{messages}}}"#)).unwrap_err();
            assert!(
                error.message.starts_with("'messages' array must only contain objects")
                    && error.message.ends_with(&format!("Got {got}")),
                "{}",
                error.message
            );
            assert_eq!(
                (error.param.as_deref(), error.code.as_deref()),
                (Some("messages"), Some("invalid_value"))
            );
        }
    }

    #[test]
    fn clamps_and_choices() {
        let same = r#"{"messages":[1],"max_tokens":-1,"n_predict":5,"tool_choice":"auto"}"#;
        assert_eq!(chat(same).unwrap(), same);
        assert_eq!(
            chat(r#"{"messages":[1],"n_predict":1e18,"n_keep":-9,"n_discard":-3,"id_slot":7,"n_probs":100000}"#)
                .unwrap(),
            r#"{"messages":[1],"n_predict":2147483647,"n_keep":-1,"n_discard":0,"id_slot":-1,"n_probs":100}"#
        );
        assert_eq!(
            chat(r#"{"messages":[1],"tools":[{"function":{"name":"a"}},{"function":{"name":"b"}}],"tool_choice":{"type":"function","function":{"name":"b"}}}"#).unwrap(),
            r#"{"messages":[1],"tools":[{"function":{"name":"b"}}],"tool_choice":"required"}"#
        );
    }

    #[test]
    fn only_data_urls_reach_the_engine() {
        let with = |url: &str| {
            chat(&format!(
                r#"{{"messages":[{{"content":"image_url"}},{{"content":[{{"type":"text","text":"x"}},{{"image_url":{url}}}]}}]}}"#
            ))
        };
        for url in [
            r#"{"url":"data:image/png;base64,AA=="}"#,
            r#""data:image/png;base64,AA==""#,
            "null",
            "5",
        ] {
            assert!(with(url).is_ok(), "{url}");
        }
        for url in [
            r#"{"url":"http://10.0.0.1/a.png"}"#,
            r#"{"url":"file:\/\/\/etc\/passwd"}"#,
            r#""https://x""#,
        ] {
            assert!(
                with(url)
                    .unwrap_err()
                    .message
                    .contains("image URLs are not currently supported"),
                "{url}"
            );
        }
    }

    #[test]
    fn other_routes() {
        let check = |f: fn(&Peeked<'_>) -> Result<Edits, RunnerError>, body: &str| {
            f(&peek(body.as_bytes()).unwrap()).err().map(|e| e.message)
        };
        assert_eq!(check(check_completion, "{}").unwrap(), "'prompt' field is required");
        assert_eq!(check(check_completion, r#"{"prompt":""}"#), None);
        assert_eq!(check(check_embeddings, "{}").unwrap(), "'input' field is required");
        assert_eq!(check(check_embeddings, r#"{"input":[]}"#).unwrap(), "invalid input");
        assert_eq!(check(check_embeddings, r#"{"input":"a"}"#), None);
        assert_eq!(
            check(check_rerank, r#"{"documents":["a"]}"#).unwrap(),
            "'query' field is required"
        );
        assert_eq!(
            check(check_rerank, r#"{"query":"q","documents":[]}"#).unwrap(),
            "'documents' must be a non-empty array"
        );
        assert_eq!(check(check_rerank, r#"{"query":"q","documents":["a"]}"#), None);
    }
}
