//! OpenAI routes: passed through to the engine, with our checks before, our error envelope, and the merged model object.
//!
//! Values follow the management contract 2, 6 and 7 and the Ollama contract 7 and 13.

mod check;
mod error;
mod fields;
mod media;
mod models;
mod relay;
mod rerank;
pub mod responses;

pub(crate) use check::common;
pub use check::{Edits, check_chat, check_completion, check_embeddings, check_rerank};
pub use error::{error, error_value, status};
pub(crate) use media::image as data_image;
pub(crate) use models::listed_id;
pub use models::{Ids, ModelListOptions, model_one, model_value, models_list};
pub use relay::{RelayTail, StreamErrorForm, stream_error};
pub use rerank::rerank_response;
