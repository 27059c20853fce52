//! Listeners, guard, route table, handlers, OpenAPI and the window's files: everything between a socket and the router.
//!
//! A request passes: framing ([`framing`], promise H7) → hyper → match ([`routes`]) → host and origin ([`guard`], S2 and
//! S3) → access ([`access`], S8) → limits ([`limits`], H4) → handler → answer with accounting ([`settle`]).
//!
//! Must not know: how a model is loaded, llama-server's flags, the form of any dialect's JSON (that is `dialects`).

mod access;
mod body;
mod dispatch;
mod errors;
mod framing;
mod guard;
mod handlers;
mod inflate;
mod limits;
mod listener;
mod port_holder;
mod relay;
mod resumable;
mod rewake;
mod routes;
mod settings;
mod settle;
mod sockets;
mod state;
mod transcriptions;
mod uploads;
mod waiting;
mod wire;
mod written;

pub use listener::{Bound, ConnectionLimits, Flavour, ListenerProblem, ListenerSettings, bind, serve};
pub use port_holder::{Holder, port_holder};
pub use routes::{Class, Dialect, Operation, ROUTES, Route, Verb};
pub use settings::{ApiSettings, AudioRules, Limits, ListenerRules, LmStudioRules};
pub use state::{ApiParts, ApiState, ConfigView, ListenerView, ListenersView};
pub use uploads::Uploads;
pub use waiting::WaitingRules;

/// The route table, for documentation and coverage tests.
pub fn routes() -> &'static [Route] {
    ROUTES
}
