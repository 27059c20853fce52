//! The JSON answers, in the shapes measured on build 11549.

use serde_json::{Value, json};

use crate::args::Options;

/// Unix seconds.
pub(crate) fn created() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn context(options: &Options) -> u32 {
    if options.context == 0 { 4096 } else { options.context }
}

pub(crate) fn model_info(options: &Options) -> Value {
    json!({"id": options.alias, "aliases": [options.alias], "tags": [], "object": "model",
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "created": created(), "owned_by": "llamacpp",
        "meta": {"vocab_type": 2, "n_vocab": 768, "n_ctx": context(options), "n_ctx_train": 4096, "n_embd": 128,
            "n_params": 885_888, "size": 1_774_080, "ftype": "F16"}})
}

pub(crate) fn models(options: &Options) -> Value {
    json!({"models": [{"name": options.alias, "model": options.alias, "modified_at": "", "size": "", "digest": "",
            "type": "model", "description": "", "tags": [""], "capabilities": ["completion"], "parameters": "",
            "details": {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
                "quantization_level": ""}}],
        "object": "list", "data": [model_info(options)]})
}

pub(crate) fn props(options: &Options) -> Value {
    json!({"default_generation_settings": {"params": {"temperature": 0.8, "n_predict": -1}, "n_ctx": context(options)},
        "total_slots": options.parallel, "model_alias": options.alias, "model_ftype": "F16",
        "model_path": options.model, "modalities": {"vision": false, "video": false, "audio": false},
        "endpoint_slots": options.slots, "endpoint_props": false, "endpoint_metrics": options.metrics, "ui": false,
        "chat_template": "{{ messages }}", "chat_template_caps": {"supports_tools": true, "supports_tool_calls": true},
        "bos_token": "", "eos_token": "<|im_end|>", "build_info": "b11549-stub", "is_sleeping": false})
}

pub(crate) fn slots(options: &Options, busy: usize) -> Value {
    (0..options.parallel)
        .map(|id| {
            json!({"id": id, "n_ctx": context(options), "speculative": false, "is_processing": (id as usize) < busy})
        })
        .collect()
}

pub(crate) fn metrics(busy: usize) -> String {
    format!(
        "# HELP llamacpp:requests_processing Number of requests processing\n\
         # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing {busy}\n\
         # HELP llamacpp:requests_deferred Number of requests deferred\n\
         # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n"
    )
}

/// About four bytes to a token.
pub(crate) fn prompt_tokens(request: &Value) -> u64 {
    let text = request
        .get("messages")
        .or_else(|| request.get("prompt"))
        .or_else(|| request.get("input"));
    text.map_or(1, |value| value.to_string().len() as u64 / 4 + 1)
}

pub(crate) fn usage(prompt: u64, completion: u64) -> Value {
    json!({"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0}})
}

pub(crate) fn timings(prompt: u64, predicted: u64, seconds: f64) -> Value {
    let ms = seconds * 1000.0;
    let (prompt_f, predicted_f) = (prompt as f64, predicted as f64);
    json!({"cache_n": 0, "prompt_n": prompt, "prompt_ms": 1.0, "prompt_per_token_ms": 1.0 / prompt_f.max(1.0),
        "prompt_per_second": prompt_f * 1000.0, "predicted_n": predicted, "predicted_ms": ms,
        "predicted_per_token_ms": ms / predicted_f.max(1.0), "predicted_per_second": predicted_f / seconds.max(1e-6)})
}

/// The texts of an `input` or `content` field: one string or a list of strings.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        Some(Value::String(text)) => vec![text.clone()],
        _ => vec![String::new()],
    }
}

/// Eight numbers that depend on the text alone, of length 1.
fn embedding(text: &str) -> Vec<f64> {
    let mut values = [1.0_f64; 8];
    for (n, byte) in text.bytes().enumerate() {
        values[n % 8] += f64::from(byte) / 64.0;
    }
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter().map(|value| value / length).collect()
}

pub(crate) fn embeddings(options: &Options, request: &Value) -> Value {
    let texts = texts(request.get("input").or_else(|| request.get("content")));
    let prompt: usize = texts.iter().map(|text| text.len() / 4 + 1).sum();
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"embedding": embedding(text), "index": index, "object": "embedding"}))
        .collect();
    let model = request.get("model").and_then(Value::as_str).unwrap_or(&options.alias);
    json!({"model": model, "object": "list", "usage": {"prompt_tokens": prompt, "total_tokens": prompt}, "data": data})
}

pub(crate) fn native_embedding(request: &Value) -> Value {
    texts(request.get("input").or_else(|| request.get("content")))
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"index": index, "embedding": [embedding(text)]}))
        .collect()
}

/// More letters in common score higher; best first, as the real one.
pub(crate) fn rerank(options: &Options, request: &Value) -> Value {
    let query = request.get("query").and_then(Value::as_str).unwrap_or_default();
    let documents = texts(request.get("documents"));
    let mut scored: Vec<(usize, usize)> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| (query.chars().filter(|c| document.contains(*c)).count(), index))
        .collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let results: Vec<Value> = scored
        .iter()
        .map(|(score, index)| json!({"index": index, "relevance_score": *score as f64 - 5.0}))
        .collect();
    let tokens: usize = documents
        .iter()
        .map(|document| (query.len() + document.len()) / 4 + 1)
        .sum();
    let model = request.get("model").and_then(Value::as_str).unwrap_or(&options.alias);
    json!({"model": model, "object": "list", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}, "results": results})
}

/// One token for each character; its number is the character's.
pub(crate) fn tokenize(request: &Value) -> Value {
    let text = request.get("content").and_then(Value::as_str).unwrap_or_default();
    json!({"tokens": text.chars().map(u32::from).collect::<Vec<_>>()})
}

pub(crate) fn detokenize(request: &Value) -> Value {
    let tokens = request
        .get("tokens")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text: String = tokens
        .iter()
        .filter_map(|token| char::from_u32(u32::try_from(token.as_u64()?).ok()?))
        .collect();
    json!({"content": text})
}

pub(crate) fn apply_template(request: &Value) -> Value {
    let messages = request
        .get("messages")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let turn = |message: &Value| {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        ["<|im_start|>", &text("role"), "\n", &text("content"), "<|im_end|>\n"].concat()
    };
    let prompt: String = messages.iter().map(turn).collect();
    json!({"prompt": prompt + "<|im_start|>assistant\n"})
}
