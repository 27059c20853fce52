use std::io::{Read, Seek, SeekFrom};

use crate::GgufError;

/// Size of the first read: holds the whole header of small files, and the general keys of all.
const FIRST_READ: usize = 64 * 1024;
/// Size of further reads: large enough to make system calls rare, small enough to stay in the processor's cache.
const NEXT_READ: usize = 256 * 1024;
/// Bytes read (not skipped by seeking) before a header counts as endless. Real headers stay below 30 MiB.
const MAX_READ: u64 = 64 * 1024 * 1024;

/// A window on the file that knows the file's size, so that every length can be checked before it is believed.
pub(crate) struct Source<'r, R> {
    reader: &'r mut R,
    file_len: u64,
    /// File offset of the next unread byte.
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    read: u64,
    /// What is being read, for error texts.
    pub(crate) part: &'static str,
}

impl<'r, R: Read + Seek> Source<'r, R> {
    pub(crate) fn new(reader: &'r mut R, file_len: u64) -> Result<Self, GgufError> {
        reader.seek(SeekFrom::Start(0))?;
        let first = usize::try_from(file_len).unwrap_or(FIRST_READ).min(FIRST_READ);
        Ok(Self {
            reader,
            file_len,
            offset: 0,
            buffer: vec![0; first],
            start: 0,
            end: 0,
            read: 0,
            part: "header",
        })
    }

    /// File offset of the next unread byte.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Bytes of the file after the next unread byte.
    pub(crate) fn remaining(&self) -> u64 {
        self.file_len.saturating_sub(self.offset)
    }

    /// Bytes that can be looked at without reading.
    pub(crate) fn window(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves past `n` bytes of the window.
    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.offset += n as u64;
    }

    /// `count` elements of at least `each` bytes must still fit into the file.
    pub(crate) fn check_count(&self, what: &'static str, count: u64, each: u64) -> Result<(), GgufError> {
        let limit = self.remaining() / each.max(1);
        if count > limit {
            Err(GgufError::Limit {
                what,
                value: count,
                limit,
            })
        } else {
            Ok(())
        }
    }

    /// Makes at least `want` bytes (at most [`NEXT_READ`]) available in the window.
    fn fill(&mut self, want: usize) -> Result<(), GgufError> {
        if self.end - self.start >= want {
            return Ok(());
        }
        if want as u64 > self.remaining() {
            return Err(GgufError::Truncated(self.part));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.read > 0 || self.buffer.len() < want {
            let room = usize::try_from(self.remaining())
                .unwrap_or(NEXT_READ)
                .min(NEXT_READ)
                .max(want);
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
        }
        // Never read past the size that the limits were computed from, even if the file grows meanwhile.
        let room = usize::try_from(self.remaining())
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        while self.end < want {
            let Some(free) = self.buffer.get_mut(self.end..room) else {
                return Err(GgufError::Truncated(self.part));
            };
            let n = match self.reader.read(free) {
                Ok(n) => n.min(free.len()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if n == 0 {
                return Err(GgufError::Truncated(self.part));
            }
            self.end += n;
            self.read += n as u64;
            if self.read > MAX_READ {
                return Err(GgufError::Limit {
                    what: "bytes of header",
                    value: self.read,
                    limit: MAX_READ,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.fill(N)?;
        let bytes = self
            .window()
            .first_chunk::<N>()
            .copied()
            .ok_or(GgufError::Truncated(self.part))?;
        self.consume(N);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Moves past `n` bytes: inside the window by counting, outside by seeking.
    pub(crate) fn skip(&mut self, n: u64) -> Result<(), GgufError> {
        if n > self.remaining() {
            return Err(GgufError::Truncated(self.part));
        }
        let here = (self.end - self.start) as u64;
        if n <= here {
            self.consume(n as usize);
            return Ok(());
        }
        self.start = 0;
        self.end = 0;
        self.offset += n;
        self.reader.seek(SeekFrom::Start(self.offset))?;
        Ok(())
    }

    /// A length-prefixed string's length, checked against the file.
    pub(crate) fn string_len(&mut self) -> Result<u64, GgufError> {
        let len = self.u64()?;
        if len > self.remaining() {
            return Err(GgufError::Truncated(self.part));
        }
        Ok(len)
    }

    /// `len` bytes as text; the caller has charged `len` to its budget.
    pub(crate) fn text(&mut self, len: usize) -> Result<String, GgufError> {
        if len <= NEXT_READ {
            self.fill(len)?;
            let text = String::from_utf8_lossy(self.window().get(..len).unwrap_or_default()).into_owned();
            self.consume(len);
            return Ok(text);
        }
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let step = (len - bytes.len()).min(NEXT_READ);
            self.fill(step)?;
            bytes.extend_from_slice(self.window().get(..step).unwrap_or_default());
            self.consume(step);
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// Walks `count` strings without keeping them; `look` sees those that lie whole in the window.
    pub(crate) fn skip_strings(&mut self, count: u64, mut look: impl FnMut(&[u8])) -> Result<(), GgufError> {
        let mut left = count;
        while left > 0 {
            let window = self.buffer.get(self.start..self.end).unwrap_or_default();
            let mut at = 0;
            while left > 0 {
                let rest = window.get(at..).unwrap_or_default();
                let Some((head, rest)) = rest.split_first_chunk::<8>() else {
                    break;
                };
                let Ok(len) = usize::try_from(u64::from_le_bytes(*head)) else {
                    break;
                };
                let Some(text) = rest.get(..len) else { break };
                look(text);
                at += 8 + len;
                left -= 1;
            }
            self.consume(at);
            if left > 0 {
                // The next string crosses the end of the window (or of the file).
                let len = self.string_len()?;
                if len <= NEXT_READ as u64 / 4 {
                    self.fill(len as usize)?;
                    look(self.window().get(..len as usize).unwrap_or_default());
                }
                self.skip(len)?;
                left -= 1;
            }
        }
        Ok(())
    }
}
