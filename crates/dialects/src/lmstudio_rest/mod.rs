//! LM Studio's REST API, v0 and v1, and its error forms (contract `compat/lmstudio.md` 2, 3, 6 to 8).

mod error;
mod fields;
mod models;
mod signature;
mod stats;
mod stream;
pub mod v1;

pub(crate) use error::error_value;
pub use error::{error, unexpected_endpoint};
pub use models::{entry_id, has_type, model_id, model_key, model_one, models_list, openai_models};
pub use signature::{Signature, sign};
pub use stats::{V0Facts, add_stats};
pub use stream::V0Stream;
