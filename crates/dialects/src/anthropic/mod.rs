//! Anthropic's Messages API: requests into the domain form, answers and streams out of it, its errors and its model list.
//!
//! Values follow the Ollama contract 8 and the LM Studio contract 5; where those are silent, Anthropic's published API.

mod content;
mod error;
mod models;
mod reply;
mod request;
mod stream;
mod waiting;

pub use error::{error, error_body, stream_error};
pub use models::{model, models_list};
pub use reply::{ReplyHead, count_reply, reply};
pub use request::{Call, Job};
pub use stream::MessageStream;
pub use waiting::MessageForm;
