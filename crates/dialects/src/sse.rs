//! Server-sent events (WHATWG HTML 9.2): incremental splitter for engine streams, and a frame writer.

/// Longest event kept while it is incomplete, in bytes. An engine that sends more is broken; the event is dropped.
const MAX_EVENT: usize = 16 << 20;

/// One event, valid until the splitter moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// `event:` field, empty when absent.
    pub event: &'a [u8],
    /// `data:` lines joined by line feeds.
    pub data: &'a [u8],
}

/// Splits a byte stream into events, whatever the chunking. Comments and unknown fields are skipped, all three line ends
/// are known. An event that lies in one chunk is handed out without being copied.
#[derive(Debug, Default)]
pub struct SseSplitter {
    /// Bytes of the incomplete event.
    pending: Vec<u8>,
    /// Joined `data:` lines of an event with several.
    joined: Vec<u8>,
    /// The last event ended with a CR that may be followed by its LF.
    skip_lf: bool,
    /// A first event was seen: no byte order mark may follow.
    started: bool,
    dropped: bool,
}

impl SseSplitter {
    /// An empty splitter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds bytes; calls `on_event` for every event that became complete.
    pub fn push(&mut self, chunk: &[u8], mut on_event: impl FnMut(SseEvent<'_>)) {
        if self.pending.is_empty() {
            let used = self.split(chunk, &mut on_event);
            self.keep(&chunk[used..]);
            return;
        }
        if memchr::memchr2(b'\n', b'\r', chunk).is_none() {
            self.keep(chunk);
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(chunk);
        let used = self.split(&pending, &mut on_event);
        if used > 0 {
            pending.drain(..used);
        }
        if pending.len() > MAX_EVENT {
            self.dropped = true;
            pending.clear();
        }
        self.pending = pending;
    }

    /// True when an event was too long and was dropped.
    pub fn overflowed(&self) -> bool {
        self.dropped
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() > MAX_EVENT {
            self.dropped = true;
            self.pending.clear();
            return;
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Hands out the complete events of `bytes`; returns where the incomplete rest starts.
    fn split(&mut self, bytes: &[u8], on_event: &mut impl FnMut(SseEvent<'_>)) -> usize {
        let mut event_start = 0;
        if self.skip_lf && !bytes.is_empty() {
            self.skip_lf = false;
            event_start = usize::from(bytes[0] == b'\n');
        }
        let mut at = event_start;
        let mut event: &[u8] = b"";
        let mut data: Option<&[u8]> = None;
        let mut several = false;
        while let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
            let mut line = &bytes[at..at + length];
            if !self.started && at == event_start {
                line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            }
            let end = at + length;
            let carriage_return = bytes[end] == b'\r';
            at = end + 1 + usize::from(carriage_return && bytes.get(end + 1) == Some(&b'\n'));
            if line.is_empty() {
                self.skip_lf = carriage_return && at == end + 1 && at == bytes.len();
                event_start = at;
                if let Some(first) = data.take() {
                    self.started = true;
                    let data = if several { self.joined.as_slice() } else { first };
                    on_event(SseEvent { event, data });
                }
                event = b"";
                several = false;
                continue;
            }
            match field(line) {
                (b"data", value) => match data {
                    None => data = Some(value),
                    Some(first) => {
                        if !several {
                            self.joined.clear();
                            self.joined.extend_from_slice(first);
                            several = true;
                        }
                        self.joined.push(b'\n');
                        self.joined.extend_from_slice(value);
                    }
                },
                (b"event", value) => event = value,
                // Builds of llama-server up to 2025 sent errors as `error: {…}`.
                (b"error", value) => (event, data) = (b"error", Some(value)),
                _ => {}
            }
        }
        event_start
    }
}

/// Name and value of a line; comments have an empty name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', line) {
        None => (line, b""),
        Some(colon) => {
            let value = &line[colon + 1..];
            (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

/// A comment between events: keeps a connection alive, is seen by no application.
pub const KEEP_ALIVE: &[u8] = b": waiting\n\n";

/// Appends one `data:` frame. `json` must hold no line breaks (compact JSON has none).
pub fn write_data(json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

/// Appends one frame with an event name.
pub fn write_event(event: &str, json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
    write_data(json, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut splitter = SseSplitter::new();
        let mut events = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |e| {
                events.push((
                    String::from_utf8_lossy(e.event).into_owned(),
                    String::from_utf8_lossy(e.data).into_owned(),
                ));
            });
        }
        events
    }

    #[test]
    fn lines_and_fields() {
        type Case = (&'static [u8], &'static [(&'static str, &'static str)]);
        let cases: &[Case] = &[
            (b"data: a\n\n", &[("", "a")]),
            (
                b"data:a\r\n\r\ndata: b\r\rdata: c\n\n",
                &[("", "a"), ("", "b"), ("", "c")],
            ),
            (b"\xef\xbb\xbfdata: a\n\n", &[("", "a")]),
            (b": ping\n\n\n:x\ndata: a\n:y\ndata: b\nid: 3\n\n", &[("", "a\nb")]),
            (b"event: error\ndata: {}\n\ndata: x\n\n", &[("error", "{}"), ("", "x")]),
            (b"error: {\"code\":1}\n\n", &[("error", "{\"code\":1}")]),
            (b"event: lonely\n\ndata\n\n", &[("", "")]),
            (b"data:  two spaces\n\n", &[("", " two spaces")]),
            (b"data: cut", &[]),
            (b"data: cut\n", &[]),
        ];
        for (input, expected) in cases {
            let got = split(&[input]);
            let got: Vec<(&str, &str)> = got.iter().map(|(e, d)| (e.as_str(), d.as_str())).collect();
            assert_eq!(&got, expected, "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_giant_event_is_dropped() {
        let mut splitter = SseSplitter::new();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            splitter.push(&chunk, |_| panic!("no event is complete"));
        }
        assert!(splitter.overflowed());
        assert!(splitter.pending.capacity() <= 2 * MAX_EVENT);
    }

    #[test]
    fn frames() {
        let mut out = Vec::new();
        write_event("error", b"{}", &mut out);
        write_data(b"1", &mut out);
        assert_eq!(out, b"event: error\ndata: {}\n\ndata: 1\n\n");
    }

    proptest! {
        #[test]
        fn any_chunking(text in "(data:? ?[ab]?|event: e|:|\u{e9}|x){0,1}((\r\n|\r|\n)(data:? ?[ab\u{e9}]?|event: e|:c|)){0,12}",
                        cuts in prop::collection::vec(0usize..64, 0..8)) {
            let bytes = text.as_bytes();
            let whole = split(&[bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(&whole, &split(&pieces));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&whole, &split(&single));
        }
    }
}
