use dialects::ollama::{ChatCall, EmbedCall, GenerateCall, ShowCall, lookup_name};

/// Reads `data` as each of Ollama's requests. Must hold: no panic, and every accepted request names its model in a way that
/// can be looked up or refused.
pub(crate) fn run(data: &[u8]) {
    let names = [
        ChatCall::parse(data).map(|call| call.model),
        GenerateCall::parse(data).map(|call| call.model),
        EmbedCall::parse(data).map(|call| call.model),
        EmbedCall::parse_legacy(data).map(|call| call.model),
        ShowCall::parse(data).map(|call| call.model),
    ];
    for name in names {
        match name {
            Ok(name) => {
                let _ = lookup_name(&name);
            }
            Err(error) => assert!(!error.message.is_empty(), "a refusal without a word"),
        }
    }
}
