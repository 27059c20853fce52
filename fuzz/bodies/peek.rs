use dialects::peek::{peek, rewrite_model};
use serde_json::Value;

/// Looks into `data` as the body of a request. Must hold: no panic; what is accepted is one JSON object to a full parser
/// too (numbers out of range and lone surrogates apart: the engine refuses those); another model name changes nothing else.
pub(crate) fn run(data: &[u8]) {
    let Ok(peeked) = peek(data) else { return };
    let _ = (peeked.model(), peeked.stream(), peeked.ttl(), peeked.keep_alive());
    let renamed = rewrite_model(data, &peeked, "né\"w");
    let before = match serde_json::from_slice::<Value>(data) {
        Ok(value) => value,
        Err(error) => {
            let words = error.to_string();
            assert!(
                ["out of range", "surrogate", "escape"]
                    .iter()
                    .any(|known| words.contains(known)),
                "more lenient than a parser: {words}"
            );
            return;
        }
    };
    let Value::Object(mut before) = before else {
        panic!("accepted something that is no object")
    };
    let after: Value = serde_json::from_slice(&renamed).expect("the new body is JSON");
    before.insert("model".into(), "né\"w".into());
    assert_eq!(after, Value::Object(before));
}
