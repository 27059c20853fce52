//! The core: resolve → lease → connect → stream → settle. Queues requests, starts and stops engines on demand, and
//! relays bytes between a dialect and the engine without touching them.
//!
//! [`Router::lease`] gives the right to one slot of a running engine; [`Lease::send`] relays one request; the
//! [`UpstreamBody`] streams the answer and frees the slot at its end or when it is dropped. Decisions are the
//! `scheduler` crate's; this crate carries them out. One task owns each engine process (`owner`).
//!
//! Must not know: any dialect's JSON, llama-server's flags, listeners.

mod announcer;
mod core;
mod fit;
mod further;
mod instance;
mod lease;
mod owner;
mod probe;
mod quantize;
mod requests;
mod router;
mod settings;
mod upstream;
mod views;

pub use further::{OpenInstance, Opening};
pub use lease::{Attached, Lease, LeaseRequest, UpstreamRequest};
pub use router::{Router, RouterDeps};
pub use settings::RouterSettings;
pub use upstream::UpstreamBody;
