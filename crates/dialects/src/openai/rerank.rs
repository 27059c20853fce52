use domain::{ErrorKind, RunnerError};
use serde_json::{Map, Value, json};

/// The engine's rerank answer with both `results[]` and `data[]` of equal items `{index, relevance_score, document}`
/// (management contract 6.1), best first, at most `top_n`; documents come from the request.
///
/// # Errors
/// `EngineFailed` when the engine's answer has another shape.
pub fn rerank_response(request: &[u8], response: &[u8]) -> Result<Vec<u8>, RunnerError> {
    let nonsense = || {
        RunnerError::new(
            ErrorKind::EngineFailed,
            "The model's engine sent a rerank answer of an unknown shape.",
        )
    };
    let request: Map<String, Value> = serde_json::from_slice(request).unwrap_or_default();
    let mut response: Map<String, Value> = serde_json::from_slice(response).map_err(|_| nonsense())?;
    let Some(Value::Array(scored)) = response.remove("results") else {
        return Err(nonsense());
    };
    let documents = request
        .get("documents")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();

    let mut items: Vec<(f64, Value)> = scored
        .into_iter()
        .map(|item| {
            let index = item.get("index").and_then(Value::as_u64).unwrap_or(0);
            let score = item
                .get("relevance_score")
                .and_then(Value::as_f64)
                .unwrap_or(f64::from(f32::MIN));
            let document = match usize::try_from(index).ok().and_then(|index| documents.get(index)) {
                Some(Value::String(text)) => json!({"text": text}),
                Some(other) => other.clone(),
                None => Value::Null,
            };
            (
                score,
                json!({"index": index, "relevance_score": score, "document": document}),
            )
        })
        .collect();
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    if let Some(top) = request.get("top_n").and_then(Value::as_u64) {
        items.truncate(usize::try_from(top).unwrap_or(usize::MAX));
    }
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();

    let model = request
        .get("model")
        .cloned()
        .or_else(|| response.remove("model"))
        .unwrap_or_default();
    let usage = response
        .remove("usage")
        .unwrap_or_else(|| json!({"prompt_tokens": 0, "total_tokens": 0}));
    let body = json!({"model": model, "object": "list", "results": items, "data": items, "usage": usage});
    Ok(crate::json::to_vec(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists() {
        let request = br#"{"model":"r","query":"q","documents":["a",{"text":"b"}],"top_n":5}"#;
        let response = br#"{"model":"/x.gguf","object":"list","usage":{"prompt_tokens":3,"total_tokens":3},
            "results":[{"index":1,"relevance_score":-1.5},{"index":0,"relevance_score":2.0}]}"#;
        let body: Value = serde_json::from_slice(&rerank_response(request, response).unwrap()).unwrap();
        assert_eq!(body["results"], body["data"]);
        assert_eq!(
            body["results"][0],
            json!({"index":0,"relevance_score":2.0,"document":{"text":"a"}})
        );
        assert_eq!(body["results"][1]["document"], json!({"text":"b"}));
        assert_eq!(body["model"], "r");
        assert!(rerank_response(request, b"{}").is_err());
    }
}
