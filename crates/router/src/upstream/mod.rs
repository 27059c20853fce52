//! The leg between us and an engine: HTTP/1.1 over loopback, written for this one use.
//!
//! The request's own task reads the socket: no task and no channel per connection, no copy of a chunk that came alone,
//! no buffer while a stream is silent. Everything the engine sends is bounded and checked (it is treated as hostile).

mod body;
mod connection;
mod framing;
mod head;
mod pool;

pub use body::UpstreamBody;
pub(crate) use connection::{Broken, Connection};
pub(crate) use framing::Framing;
pub(crate) use head::{Head, Prefix, request_head};
pub(crate) use pool::Pool;
