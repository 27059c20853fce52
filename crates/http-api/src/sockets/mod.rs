//! WebSockets.

pub(crate) mod lmstudio;
