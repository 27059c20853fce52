//! WebSockets: the handshake on our own accept loop, and the dialects spoken over it.

pub(crate) mod lmstudio;
mod upgrade;
