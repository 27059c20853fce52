//! llama-server's own routes and those of its router mode: checks before a body is passed on, its errors, and what we say
//! ourselves where its router would (management contract 6.1, 7.1).

mod check;
mod error;
mod metrics;
mod router;

pub use check::{check_native, check_template};
pub use error::{error, error_value, passes};
pub use metrics::{EngineMetrics, Exposition, metrics};
pub use router::{
    ModelChanges, RouterFacts, conversation_ids, download_name, engine_props, load_reply, model_of_call, repository,
    router_props, success, unload_reply,
};
