//! OpenAI routes: passed through to the engine, with our checks before, our error envelope, and the merged model object.
//!
//! Values follow the management contract 2, 6 and 7 and the Ollama contract 7 and 13.

mod check;
mod choice;
mod completion;
mod completion_stream;
mod defaults;
mod embeddings;
mod error;
pub(crate) mod fields;
mod media;
mod messages;
mod models;
mod reasoning;
mod relay;
mod rerank;
pub mod responses;
mod several;

pub use check::{
    ChatRules, Edits, answers, check_chat, check_completion, check_embeddings, check_rerank, too_many_answers,
};
pub(crate) use check::{MAX_TOP_LOGPROBS, common};
pub use completion::{CompletionPlan, CompletionShape, Prompt, completion_plan};
pub use completion_stream::{InfillHead, InfillStream, ShapedStream, shape_completion};
pub use defaults::{Additions, additions};
pub use embeddings::Cut;

pub use error::{error, error_value, status};
pub(crate) use media::{check_addresses, image as data_image};
pub use models::{Ids, ModelListOptions, listed_id, model_one, model_value, models_list};
pub use reasoning::{NamedReasoning, ReasoningName, name_reasoning};
pub use relay::{RelayTail, StreamErrorForm, stream_error};
pub use rerank::rerank_response;
pub use several::{Several, SeveralAnswers, SeveralStream};
