//! Where a response body ends, and what in the bytes read is body (RFC 9112 6 and 7.1).

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of chunk extensions or trailer fields that are accepted in one response.
const MAX_EXTRA: usize = 16 * 1024;

/// The engine broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

#[derive(Debug)]
pub(crate) enum Framing {
    /// This many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
    /// The body ends with the connection.
    UntilClose,
}

impl Framing {
    /// Takes all body bytes out of `read`. True: the body is complete; bytes after it stay in `read`.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> Result<(Bytes, bool), Malformed> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= take as u64;
                Ok((read.split_to(take).freeze(), *left == 0))
            }
            Self::Chunked(chunked) => chunked.take(read),
            Self::UntilClose => Ok((read.split().freeze(), false)),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    extra: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    SizeStart,
    Size(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunked {
    /// Decodes in place: the data of the first chunk stays where it is, that of further chunks moves up to it, so that
    /// everything read comes out as one piece.
    fn take(&mut self, read: &mut BytesMut) -> Result<(Bytes, bool), Malformed> {
        let mut start = 0;
        let mut end = 0;
        let mut at = 0;
        while at < read.len() && self.state != State::End {
            if let State::Data(left) = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(read.len() - at);
                if start == end {
                    (start, end) = (at, at + take);
                } else {
                    read.copy_within(at..at + take, end);
                    end += take;
                }
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                continue;
            }
            self.state = self.step(read[at])?;
            at += 1;
        }
        let rest = at - end;
        read.advance(start);
        let data = read.split_to(end - start).freeze();
        read.advance(rest);
        Ok((data, self.state == State::End))
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = |byte: u8| (byte as char).to_digit(16).map(u64::from);
        Ok(match (self.state, byte) {
            (State::SizeStart, byte) => State::Size(digit(byte).ok_or(Malformed)?),
            (State::Size(size) | State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Size(size), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Size(size), byte) => {
                let digit = digit(byte).ok_or(Malformed)?;
                // 2^60 bytes are never sent; more digits would overflow.
                State::Size(if size < 1 << 56 {
                    size << 4 | digit
                } else {
                    return Err(Malformed);
                })
            }
            (State::Extension(size), byte) if byte != b'\n' => {
                self.count_extra()?;
                State::Extension(size)
            }
            (State::SizeLf(0) | State::TrailerLf, b'\n') => State::TrailerStart,
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, byte) if byte != b'\r' && byte != b'\n' => {
                self.count_extra()?;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Malformed),
        })
    }

    fn count_extra(&mut self) -> Result<(), Malformed> {
        self.extra += 1;
        if self.extra > MAX_EXTRA { Err(Malformed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let mut framing = Framing::Chunked(Chunked::default());
        let (mut all, mut done) = (Vec::new(), false);
        let mut read = BytesMut::new();
        for piece in pieces {
            read.extend_from_slice(piece);
            let (data, end) = framing.take(&mut read)?;
            all.extend_from_slice(&data);
            done = end;
        }
        Ok((all, done, read.to_vec()))
    }

    #[test]
    fn chunks() {
        let ok = |text: &[u8], data: &[u8], rest: &[u8]| {
            assert_eq!(decode(&[text]), Ok((data.to_vec(), true, rest.to_vec())));
        };
        ok(b"0\r\n\r\n", b"", b"");
        ok(b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"");
        ok(b"3\r\nabc\r\n2;x=y\r\nde\r\n00\r\nT: v\r\n\r\nHTTP", b"abcde", b"HTTP");
        ok(b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"");
        assert_eq!(decode(&[b"3\r\nab"]), Ok((b"ab".to_vec(), false, Vec::new())));
        for bad in [
            &b"\r\n"[..],
            b"x\r\n",
            b"3\nabc",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"fffffffffffffffff\r\n",
            b"0\r\n\n",
            b"-1\r\n",
        ] {
            assert_eq!(decode(&[bad]), Err(Malformed), "{bad:?}");
        }
        let long = [b"0;".to_vec(), vec![b'x'; MAX_EXTRA + 1]].concat();
        assert_eq!(decode(&[&long]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12), cut in 1..9usize) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            prop_assert_eq!(decode(&pieces), Ok((chunks.concat(), true, Vec::new())));
            prop_assert_eq!(decode(&[&wire]), Ok((chunks.concat(), true, Vec::new())));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
