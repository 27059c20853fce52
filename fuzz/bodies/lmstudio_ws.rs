use dialects::lmstudio_ws::{ClientFrame, parse_auth};

/// Reads `data` as a frame of LM Studio's libraries. Must hold: no panic; a refused frame is refused in words.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse_auth(text);
    if let Err(words) = ClientFrame::parse(text) {
        assert!(!words.is_empty(), "a refusal without a word");
    }
}
