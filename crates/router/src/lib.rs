//! The core: resolve → lease → connect → stream → settle. Queues requests, starts and stops engines on demand, and
//! relays bytes between a dialect and the engine without touching them.
//!
//! Must not know: any dialect's JSON, llama-server's flags, listeners.

mod settings;
mod skeleton;

pub use settings::RouterSettings;
pub use skeleton::{Lease, LeaseRequest, Router, RouterDeps, UpstreamBody, UpstreamRequest};
