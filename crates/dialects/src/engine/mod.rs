//! llama-server's wire form: requests rendered from the domain form, streams and answers decoded into it.
//!
//! Read from the engine at b11549 and recorded in `tests/golden/engine`. Generation is always asked for as a stream, also
//! for replies that are not streamed: only then does a client's disconnect stop it.

mod answer;
mod error;
mod guard;
mod replies;
mod request;
mod stream;
mod wire;

pub(crate) use answer::ToolCalls;
pub use answer::{Answer, AnswerCollector};
pub(crate) use error::error_from_value;
pub use error::{context_exceeded, error_from_response};
pub use guard::{check_schema, check_schema_bytes};
pub use replies::{
    Embeddings, detokenize_body, embeddings_body, parse_content, parse_embeddings, parse_input_tokens, parse_prompt,
    parse_tokens, tokenize_body,
};
pub(crate) use request::known_effort;
pub use request::{Limits, apply_template_body, chat_body, completion_body, drop_oldest, infill_body};
pub use stream::{GenerationDecoder, Wire};
pub(crate) use stream::{Piece, cut_error};

/// Path for [`chat_body`].
pub const CHAT: &str = "/v1/chat/completions";
/// Path for [`completion_body`].
pub const COMPLETION: &str = "/completion";
/// Path for [`infill_body`].
pub const INFILL: &str = "/infill";
/// Path for [`apply_template_body`].
pub const APPLY_TEMPLATE: &str = "/apply-template";
/// Path that counts the tokens of a chat; takes [`apply_template_body`], answers [`parse_input_tokens`].
pub const COUNT_CHAT: &str = "/v1/chat/completions/input_tokens";
/// Path for [`tokenize_body`].
pub const TOKENIZE: &str = "/tokenize";
/// Path for [`detokenize_body`].
pub const DETOKENIZE: &str = "/detokenize";
/// Path for [`embeddings_body`].
pub const EMBEDDINGS: &str = "/v1/embeddings";
