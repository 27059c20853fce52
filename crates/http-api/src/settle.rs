//! The end of a request: one log event and the release of what it held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode};

use crate::limits::Permit;
use crate::listener::Flavour;

/// Lives in the body of the answer; its drop is the end of the request, however it came.
pub(crate) struct Settle {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) flavour: Flavour,
    pub(crate) peer: SocketAddr,
    pub(crate) request_id: HeaderValue,
    pub(crate) arrived: Instant,
    pub(crate) status: StatusCode,
    /// Why the status is an error, in the product's words.
    pub(crate) reason: Option<String>,
    pub(crate) permit: Option<Arc<Permit>>,
    pub(crate) bytes: u64,
    pub(crate) end: End,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Not yet, or the client went away.
    Open,
    Complete,
    Broken,
}

impl Settle {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(crate) fn complete(&mut self) {
        self.end = End::Complete;
    }

    pub(crate) fn broken(&mut self) {
        self.end = End::Broken;
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        let end = match self.end {
            End::Complete => "complete",
            End::Broken => "broken",
            End::Open => "client gone",
        };
        let id = self.request_id.to_str().unwrap_or_default();
        let ms = self.arrived.elapsed().as_secs_f64() * 1e3;
        let reason = self.reason.as_deref().unwrap_or_default();
        let status = self.status.as_u16();
        if self.status.is_server_error() {
            tracing::warn!(id, method = %self.method, path = self.path, status, ms, bytes = self.bytes, end, reason, listener = self.flavour.as_str(), peer = %self.peer, "request");
        } else {
            tracing::debug!(id, method = %self.method, path = self.path, status, ms, bytes = self.bytes, end, reason, listener = self.flavour.as_str(), peer = %self.peer, "request");
        }
    }
}
