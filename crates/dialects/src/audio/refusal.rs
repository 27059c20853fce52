use domain::RunnerError;
use serde_json::Value;

use super::hearing::engine_error;

/// The error behind a status and body with which our speech program refuses: `{"error":{"code","message"}}`.
pub fn refusal(status: u16, body: &[u8]) -> RunnerError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |name: &str| value.get("error")?.get(name)?.as_str();
    let message = match word("message") {
        None => format!("The speech engine answered with status {status}."),
        // What it says of the request itself holds the caller's own words, which may look like a path.
        Some(words) if status < 500 => words.to_owned(),
        Some(words) => domain::without_paths(words),
    };
    engine_error(word("code").unwrap_or("engine_failed"), message)
}

#[cfg(test)]
mod tests {
    use domain::ErrorKind;

    use super::*;

    #[test]
    fn words_and_fields() {
        let body = br#"{"error":{"code":"voice_not_found","message":"There is no voice 'x'."}}"#;
        let error = refusal(400, body);
        assert_eq!(error.kind, ErrorKind::InvalidRequest);
        assert_eq!(
            (error.param.as_deref(), error.code.as_deref()),
            (Some("voice"), Some("voice_not_found"))
        );
        assert_eq!(error.message, "There is no voice 'x'.");
        let own_words = br#"{"error":{"code":"voice_not_found","message":"There is no voice 'x /y'. Use alloy."}}"#;
        assert_eq!(refusal(400, own_words).message, "There is no voice 'x /y'. Use alloy.");
        let path = br#"{"error":{"code":"engine_failed","message":"Cannot read /home/zoe/model.bin."}}"#;
        assert!(!refusal(500, path).message.contains("zoe"));
        let error = refusal(500, b"Traceback");
        assert_eq!(error.kind, ErrorKind::EngineFailed);
        assert_eq!(error.message, "The speech engine answered with status 500.");
    }
}
