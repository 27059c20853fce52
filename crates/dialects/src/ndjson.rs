//! Newline-delimited JSON: one compact object per line, no blank lines (Ollama contract 1).

use serde::Serialize;

/// Appends one compact line.
pub fn write_line<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        return;
    }
    out.push(b'\n');
}

/// Appends `{"error":"text"}` as a line.
pub fn write_error(message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":");
    crate::json::write_str(message, out);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut out = Vec::new();
        write_line(&serde_json::json!({"a": "x\ny"}), &mut out);
        write_error("no \"luck\"", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"a\":\"x\\ny\"}\n{\"error\":\"no \\\"luck\\\"\"}\n"
        );
    }
}
