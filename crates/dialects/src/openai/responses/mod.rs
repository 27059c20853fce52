//! `/v1/responses`: requests to the domain form, engine streams to typed events, and the answers that are kept.
//!
//! Values follow LM Studio contract 4.5 and Ollama contract 7.3; both ports keep conversations.

mod events;
mod input;
mod output;
mod request;
mod stored;
mod stream;
mod tools;
mod waiting;

pub use request::{Defaults, ResponsesCall};
pub(in crate::openai) use request::{bad_effort, effort};
pub use stored::{Page, StoredResponse, deleted, not_found, previous_not_found};
pub use stream::{ReasoningForm, ResponseHead, ResponseStream};
pub use waiting::ResponseForm;
