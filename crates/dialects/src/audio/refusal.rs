use domain::RunnerError;
use serde_json::Value;

use super::hearing::engine_error;

/// The error behind a status and body with which our speech program refuses: `{"error":{"code","message"}}`.
pub fn refusal(status: u16, body: &[u8]) -> RunnerError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |name: &str| value.get("error")?.get(name)?.as_str();
    let message = word("message").map_or_else(
        || format!("The speech engine answered with status {status}."),
        domain::without_paths,
    );
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
        let error = refusal(500, b"Traceback");
        assert_eq!(error.kind, ErrorKind::EngineFailed);
        assert_eq!(error.message, "The speech engine answered with status 500.");
    }
}
