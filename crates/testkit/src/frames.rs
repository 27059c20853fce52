use serde::Deserialize;

/// The complete events of a server-sent-event stream, as the `data` field of each (lines of one event joined by `\n`).
/// Comments and other fields are skipped. What is behind the last blank line is not complete and not returned.
pub fn sse_events(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut events = Vec::new();
    let mut rest = text.as_str();
    while let Some((event, after)) = rest.split_once("\n\n") {
        rest = after;
        let data: Vec<&str> = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|value| value.strip_prefix(' ').unwrap_or(value))
            .collect();
        if !data.is_empty() {
            events.push(data.join("\n"));
        }
    }
    events
}

/// The complete lines of an NDJSON stream, parsed.
///
/// # Errors
/// The first line that is not JSON.
pub fn ndjson_lines(bytes: &[u8]) -> serde_json::Result<Vec<serde_json::Value>> {
    let complete = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    bytes[..complete]
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect()
}

/// What the stub engine writes into every streamed chunk beside the engine's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StubMark {
    /// Counts the chunks of one stream from 0; the last has the total.
    #[serde(rename = "stub_seq")]
    pub seq: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds when it was handed to the socket; comparable with any process of this machine.
    #[serde(rename = "stub_ns")]
    pub at_ns: u64,
}

/// The marks of an SSE stream of the stub engine, in order; chunks without one are left out.
pub fn stub_marks(bytes: &[u8]) -> Vec<StubMark> {
    sse_events(bytes)
        .iter()
        .filter_map(|event| serde_json::from_str(event).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sse_table() {
        for (input, expected) in [
            ("", &[][..]),
            ("data: a\n\n", &["a"]),
            ("data:a\n\ndata: b\n\n", &["a", "b"]),
            (": ping\n\ndata: a\r\n\r\n", &["a"]),
            ("event: x\nid: 1\ndata: a\ndata: b\n\n", &["a\nb"]),
            ("data: a\n\ndata: half", &["a"]),
        ] {
            assert_eq!(sse_events(input.as_bytes()), expected, "{input:?}");
        }
    }

    #[test]
    fn ndjson_needs_whole_lines() {
        assert_eq!(
            ndjson_lines(b"{\"a\":1}\n{\"b\"").unwrap(),
            [serde_json::json!({"a": 1})]
        );
        assert!(ndjson_lines(b"nope\n").is_err());
    }

    #[test]
    fn marks_are_read_from_any_chunk_shape() {
        let stream = b"data: {\"choices\":[],\"stub_seq\":0,\"stub_ns\":5}\n\ndata: [DONE]\n\n";
        assert_eq!(stub_marks(stream), [StubMark { seq: 0, at_ns: 5 }]);
    }
}
