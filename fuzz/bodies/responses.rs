use dialects::openai::responses::{Defaults, ResponsesCall};

/// Reads `data` as a request of `/v1/responses`. Must hold: no panic; what is accepted makes a chat.
pub(crate) fn run(data: &[u8]) {
    match ResponsesCall::parse(data, Defaults::default()) {
        Ok(call) => {
            let chat = call.chat(Vec::new());
            assert!(chat.messages.len() >= call.input.len());
        }
        Err(error) => assert!(!error.message.is_empty(), "a refusal without a word"),
    }
}
