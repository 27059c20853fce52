/// A finished answer: what a handler needs to build the HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// Seconds for `Retry-After`, when the answer has one.
    pub retry_after: Option<u64>,
}

impl Rendered {
    /// `application/json`, the form of `/v1/*` and management answers.
    pub const JSON: &'static str = "application/json";
    /// JSON as Ollama's `/api/*` routes label it.
    pub const JSON_UTF8: &'static str = "application/json; charset=utf-8";
    /// Plain text.
    pub const TEXT: &'static str = "text/plain; charset=utf-8";
    /// Newline-delimited JSON.
    pub const NDJSON: &'static str = "application/x-ndjson";
    /// Server-sent events.
    pub const SSE: &'static str = "text/event-stream; charset=utf-8";

    /// A JSON answer.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: Self::JSON,
            body,
            retry_after: None,
        }
    }

    /// A plain text answer.
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: Self::TEXT,
            body: body.as_bytes().to_vec(),
            retry_after: None,
        }
    }
}
