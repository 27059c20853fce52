//! Unambiguous request framing below hyper (promise H7): what two HTTP programs could read differently is refused.
//!
//! hyper accepts some things that RFC 9112 lets a server accept but that smuggling attacks are made of: `Content-Length`
//! beside `Transfer-Encoding`, two lengths, bare LF. By the time its header map exists the evidence is gone, so the bytes
//! are looked at before hyper sees them. An offence is replaced by a NUL, which hyper answers with 400 and a close.

use memchr::{memchr_iter, memchr2, memmem};

/// What was found in the next piece of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This many bytes are in order; the rest is an incomplete head and must be shown again with what follows.
    Pass(usize),
    /// A head is larger than allowed: hand everything over, hyper answers 431.
    TooLarge,
    /// This many bytes are in order; what follows is refused: answer 400 and close.
    Refuse(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Head,
    Body { left: u64 },
    ChunkSize { size: u64, digits: u8 },
    ChunkExtension { size: u64, length: u16 },
    ChunkSizeLf { size: u64 },
    ChunkData { left: u64 },
    ChunkCr,
    ChunkLf,
    Trailer { length: u32, line: u32, cr: bool },
}

/// Follows one connection's requests from head to head.
#[derive(Debug)]
pub(crate) struct Framing {
    expect: Expect,
    /// Bytes of the incomplete head already searched for its end.
    searched: usize,
    max_head: usize,
}

/// Longest chunk extension and trailer block; neither has an honest use here.
const MAX_EXTENSION: u16 = 256;
const MAX_TRAILERS: u32 = 8 * 1024;

impl Framing {
    pub(crate) fn new(max_head: usize) -> Self {
        Self {
            expect: Expect::Head,
            searched: 0,
            max_head,
        }
    }

    /// Between requests, or inside a head.
    #[cfg(test)]
    fn in_head(&self) -> bool {
        self.expect == Expect::Head
    }

    /// Looks at the next bytes. What was not passed must come again at the front of the next call.
    pub(crate) fn accept(&mut self, bytes: &[u8]) -> Verdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.expect {
                Expect::Head => match self.head(rest) {
                    Ok(Some(length)) => at += length,
                    Ok(None) if rest.len() > self.max_head => return Verdict::TooLarge,
                    Ok(None) => return Verdict::Pass(at),
                    Err(()) => return Verdict::Refuse(at),
                },
                Expect::Body { left } => {
                    let skip = left.min(rest.len() as u64);
                    at += skip as usize;
                    self.expect = if left == skip {
                        Expect::Head
                    } else {
                        Expect::Body { left: left - skip }
                    };
                }
                Expect::ChunkData { left } => {
                    let skip = left.min(rest.len() as u64);
                    at += skip as usize;
                    self.expect = if left == skip {
                        Expect::ChunkCr
                    } else {
                        Expect::ChunkData { left: left - skip }
                    };
                }
                state => {
                    let Some(next) = chunk_step(state, rest[0]) else {
                        return Verdict::Refuse(at);
                    };
                    self.expect = next;
                    at += 1;
                }
            }
        }
        Verdict::Pass(at)
    }

    /// Finds the end of a head and judges it.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ()> {
        // An empty line before the request line is tolerated by RFC 9112 2.2.
        if bytes.starts_with(b"\r\n") {
            self.searched = 0;
            return Ok(Some(2));
        }
        let from = self.searched.saturating_sub(3).min(bytes.len());
        let Some(end) = memmem::find(&bytes[from..], b"\r\n\r\n") else {
            // A lone LF must not wait for the time-out of a head that never ends.
            if memchr_iter(b'\n', &bytes[from..]).any(|i| from + i == 0 || bytes[from + i - 1] != b'\r') {
                return Err(());
            }
            self.searched = bytes.len();
            return Ok(None);
        };
        self.searched = 0;
        let length = from + end + 4;
        if length > self.max_head {
            return Ok(None);
        }
        self.expect = body_of(&bytes[..length - 2])?;
        Ok(Some(length))
    }
}

/// What follows this head (each line ends in CRLF, the empty one is cut off).
fn body_of(head: &[u8]) -> Result<Expect, ()> {
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut http_1_0 = false;
    let mut start = 0;
    for lf in memchr_iter(b'\n', head) {
        if lf == 0 || head[lf - 1] != b'\r' {
            return Err(());
        }
        let line = &head[start..lf - 1];
        if memchr2(b'\r', 0, line).is_some() {
            return Err(());
        }
        if start == 0 {
            http_1_0 = line.ends_with(b"HTTP/1.0");
        } else if line.first().is_none_or(|b| matches!(b, b' ' | b'\t')) {
            return Err(()); // obsolete line folding
        } else if line.len() >= 15 {
            if is_field(line, b"content-length") {
                let digits = line[15..].trim_ascii();
                if length.is_some() || digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit)
                {
                    return Err(());
                }
                length = Some(digits.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')));
            } else if is_field(line, b"transfer-encoding") {
                if chunked || !line[18..].trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(());
                }
                chunked = true;
            }
        }
        start = lf + 1;
    }
    match (length, chunked) {
        (Some(_), true) => Err(()),
        (None, true) if http_1_0 => Err(()),
        (None, true) => Ok(Expect::ChunkSize { size: 0, digits: 0 }),
        (Some(left), false) if left > 0 => Ok(Expect::Body { left }),
        _ => Ok(Expect::Head),
    }
}

/// Is the name of this field `name`? White space before the colon is hyper's to refuse, but must not hide a name here.
fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name)
}

fn chunk_step(state: Expect, byte: u8) -> Option<Expect> {
    Some(match (state, byte) {
        (Expect::ChunkSize { size, digits }, byte) if byte.is_ascii_hexdigit() && digits < 15 => {
            let digit = (byte as char).to_digit(16)?;
            Expect::ChunkSize {
                size: size << 4 | u64::from(digit),
                digits: digits + 1,
            }
        }
        (Expect::ChunkSize { size, digits: 1.. }, b';') => Expect::ChunkExtension { size, length: 0 },
        (Expect::ChunkSize { size, digits: 1.. } | Expect::ChunkExtension { size, .. }, b'\r') => {
            Expect::ChunkSizeLf { size }
        }
        (Expect::ChunkExtension { size, length }, b'\t' | 0x20..=0x7e) if length < MAX_EXTENSION => {
            Expect::ChunkExtension {
                size,
                length: length + 1,
            }
        }
        (Expect::ChunkSizeLf { size: 0 }, b'\n') => Expect::Trailer {
            length: 0,
            line: 0,
            cr: false,
        },
        (Expect::ChunkSizeLf { size }, b'\n') => Expect::ChunkData { left: size },
        (Expect::ChunkCr, b'\r') => Expect::ChunkLf,
        (Expect::ChunkLf, b'\n') => Expect::ChunkSize { size: 0, digits: 0 },
        (Expect::Trailer { line: 0, cr: true, .. }, b'\n') => Expect::Head,
        (Expect::Trailer { length, cr: true, .. }, b'\n') => Expect::Trailer {
            length,
            line: 0,
            cr: false,
        },
        (
            Expect::Trailer {
                length,
                line,
                cr: false,
            },
            b'\r',
        ) => Expect::Trailer { length, line, cr: true },
        (Expect::Trailer { line: 0, .. }, b' ' | b'\t') => return None,
        (
            Expect::Trailer {
                length,
                line,
                cr: false,
            },
            b'\t' | 0x20..=0x7e | 0x80..,
        ) if length < MAX_TRAILERS => Expect::Trailer {
            length: length + 1,
            line: line + 1,
            cr: false,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(input: &[u8]) -> Verdict {
        Framing::new(64 * 1024).accept(input)
    }

    #[test]
    fn table() {
        let ok = |input: &str| assert_eq!(verdict(input.as_bytes()), Verdict::Pass(input.len()), "{input:?}");
        let bad = |input: &str| assert!(matches!(verdict(input.as_bytes()), Verdict::Refuse(_)), "{input:?}");
        ok("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        ok("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        ok("\r\nGET / HTTP/1.1\r\n\r\n");
        ok("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
        ok("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        ok("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        ok("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n");
        bad("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        bad("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n");
        bad("GET / HTTP/1.1\r\n Host: a\r\n\r\n");
        bad("GET / HTTP/1.1\nHost: a\r\n\r\n");
        bad("GET / HTTP/1.1\r\nHost: a\n\n");
        bad("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n");
        bad("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n");
        bad("\nGET / HTTP/1.1\r\n\r\n");
        for chunks in [
            "g\r\n",
            "\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "fffffffffffffffff\r\n",
            "0\r\n x\r\n",
            "5;\0\r\n",
        ] {
            bad(&format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ));
        }
    }

    #[test]
    fn a_good_request_before_a_bad_one_is_passed() {
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let input = [&good[..], b"GET / HTTP/1.1\nHost: a\r\n\r\n"].concat();
        assert_eq!(verdict(&input), Verdict::Refuse(good.len()));
    }

    #[test]
    fn any_split_gives_the_same_end() {
        let input = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        for step in 1..input.len() {
            let mut framing = Framing::new(1024);
            let mut held = Vec::new();
            let mut passed = 0;
            for piece in input.chunks(step) {
                held.extend_from_slice(piece);
                let Verdict::Pass(n) = framing.accept(&held) else {
                    panic!("step {step}: refused")
                };
                held.drain(..n);
                passed += n;
            }
            assert_eq!(
                (passed, held.len(), framing.in_head()),
                (input.len(), 0, true),
                "step {step}"
            );
        }
    }

    #[test]
    fn large_heads() {
        let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(5000));
        assert_eq!(Framing::new(1024).accept(head.as_bytes()), Verdict::TooLarge);
        assert_eq!(Framing::new(1024).accept(&head.as_bytes()[..1000]), Verdict::Pass(0));
    }

    /// Wherever the input is cut, the same bytes pass and the same are refused; and nothing panics.
    fn passes(input: &[u8], cuts: &[usize]) -> (usize, bool) {
        let mut framing = Framing::new(64 * 1024);
        let mut held = Vec::new();
        let (mut passed, mut from) = (0, 0);
        for to in cuts.iter().copied().chain([input.len()]) {
            held.extend_from_slice(&input[from..to]);
            from = to;
            match framing.accept(&held) {
                Verdict::Pass(n) => {
                    held.drain(..n);
                    passed += n;
                }
                Verdict::Refuse(n) => return (passed + n, true),
                Verdict::TooLarge => unreachable!("inputs are small"),
            }
        }
        (passed, false)
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(
            words in proptest::collection::vec(proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n", "POST /x HTTP/1.0\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "A: b\r\n",
                "\r\n", "\n", "\r", " ", "abc", "3\r\n", "0\r\n", "3;x\r\nabc\r\n", "0\r\n\r\n", "\0", ":",
            ]), 0..24),
            cuts in proptest::collection::vec(0usize..400, 0..12),
        ) {
            let input = words.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.sort_unstable();
            proptest::prop_assert_eq!(passes(&input, &[]), passes(&input, &cuts));
        }
    }
}
