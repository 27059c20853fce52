use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, RANGE};

/// Which of the two hosts was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginHost {
    /// The first: registry, hub, plain files.
    Origin,
    /// The second: the content network.
    Cdn,
}

/// A request as it arrived, and the status it got.
#[derive(Debug, Clone)]
pub struct OriginRequest {
    /// Who was asked.
    pub host: OriginHost,
    /// Method.
    pub method: String,
    /// Path with percent-encoding undone.
    pub path: String,
    /// Query, as sent.
    pub query: Option<String>,
    /// Headers.
    pub headers: HeaderMap,
    /// Status answered; 0 while there is none.
    pub status: u16,
}

impl OriginRequest {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `Range` header.
    pub fn range(&self) -> Option<&str> {
        self.header(RANGE.as_str())
    }

    /// Did a credential reach the host that must see none?
    pub fn is_leak(&self) -> bool {
        self.host == OriginHost::Cdn && (self.headers.contains_key(AUTHORIZATION) || self.headers.contains_key(COOKIE))
    }
}
