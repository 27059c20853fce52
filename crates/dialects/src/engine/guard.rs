//! What the engine cannot survive does not reach it (promise H8): grammars, schemas and patterns over a size or nesting limit.

use domain::RunnerError;
use serde_json::Value;

/// Deepest nesting of a schema. The engine turns schemas into grammars recursively.
const MAX_NESTING: usize = 64;
/// Most values in a schema.
const MAX_VALUES: usize = 50_000;
/// Longest `pattern`, in bytes, and deepest groups in it: the engine's translation of patterns recurses and backtracks.
const MAX_PATTERN: usize = 1024;
const MAX_GROUPS: usize = 16;
/// Longest grammar or schema text, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Checks a schema or a list of tool definitions.
///
/// # Errors
/// `InvalidRequest` naming the limit.
pub fn check_schema(schema: &Value) -> Result<(), RunnerError> {
    let mut stack = vec![(schema, 1usize)];
    let mut values = 0usize;
    while let Some((value, depth)) = stack.pop() {
        values += 1;
        if depth > MAX_NESTING {
            return Err(refused(&format!("is nested deeper than {MAX_NESTING} levels")));
        }
        if values > MAX_VALUES {
            return Err(refused(&format!("holds more than {MAX_VALUES} values")));
        }
        match value {
            Value::Object(members) => {
                if let Some(Value::String(pattern)) = members.get("pattern") {
                    check_pattern(pattern)?;
                }
                stack.extend(members.values().map(|v| (v, depth + 1)));
            }
            Value::Array(items) => stack.extend(items.iter().map(|v| (v, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

/// [`check_schema`] for raw JSON or grammar text of a body that is relayed.
///
/// # Errors
/// `InvalidRequest` naming the limit.
pub fn check_schema_bytes(raw: &[u8]) -> Result<(), RunnerError> {
    if raw.len() > MAX_BYTES {
        return Err(refused("is longer than 1 MiB"));
    }
    match raw.first() {
        // A body that does not parse here is the engine's to refuse; our own scanner has seen its grammar already.
        Some(b'{' | b'[') => serde_json::from_slice(raw).map_or(Ok(()), |value| check_schema(&value)),
        _ => check_grammar(raw),
    }
}

/// A grammar in GBNF: bounds the nesting of its groups.
fn check_grammar(text: &[u8]) -> Result<(), RunnerError> {
    let mut depth = 0usize;
    for byte in text {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(refused(&format!("is nested deeper than {MAX_NESTING} groups")));
        }
    }
    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), RunnerError> {
    if pattern.len() > MAX_PATTERN {
        return Err(refused(&format!("holds a pattern longer than {MAX_PATTERN} bytes")));
    }
    let mut depth = 0usize;
    for byte in pattern.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_GROUPS {
            return Err(refused(&format!(
                "holds a pattern with more than {MAX_GROUPS} nested groups"
            )));
        }
    }
    Ok(())
}

fn refused(why: &str) -> RunnerError {
    RunnerError::invalid(format!("The grammar or schema {why}; simplify it.")).code("invalid_value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn killers_are_refused() {
        let mut deep = json!({});
        for _ in 0..100 {
            deep = json!({"items": deep});
        }
        let wide = Value::Array(vec![Value::Null; MAX_VALUES + 1]);
        let killers = [
            deep,
            wide,
            json!({"properties": {"a": {"pattern": "(".repeat(20)}}}),
            json!({"pattern": "a".repeat(2000)}),
        ];
        for killer in killers {
            assert!(check_schema(&killer).is_err());
            assert!(check_schema_bytes(&serde_json::to_vec(&killer).unwrap()).is_err());
        }
        assert!(check_schema_bytes(format!("\"root ::= {}\"", "(".repeat(100)).as_bytes()).is_err());
        assert!(check_schema_bytes(&vec![b'x'; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn ordinary_schemas_pass() {
        let schema = json!({"type":"object","properties":{"d":{"type":"string","pattern":"^(19|20)\\d\\d$"}}});
        assert!(check_schema(&schema).is_ok());
        assert!(check_schema_bytes(br#""root ::= (\"a\" | \"b\")*""#).is_ok());
    }
}
