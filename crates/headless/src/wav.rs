//! WAV files: several made one, and the length of a streamed one put right.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

use crate::failure::Failure;

/// What a streamed WAV says of its length (audio contract 4).
const ENDLESS: u32 = u32::MAX;
/// No head is longer.
const HEAD: usize = 1 << 16;

/// Where things lie in the head of a WAV file.
#[derive(Debug)]
struct Head {
    /// Rate, channels and the like.
    format: Range<usize>,
    /// The first byte of sound.
    sound: usize,
    /// Bytes of sound; `None`: up to the end of the file.
    length: Option<u64>,
}

impl Head {
    /// `None`: these bytes hold no whole head.
    fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
            return None;
        }
        let mut at = 12;
        let mut format = None;
        loop {
            let size = u32::from_le_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?);
            let body = at + 8;
            let end = body.checked_add(size as usize)?;
            match bytes.get(at..at + 4)? {
                b"data" => {
                    return Some(Self {
                        format: format?,
                        sound: body,
                        length: (size != ENDLESS && size != 0).then_some(size.into()),
                    });
                }
                b"fmt " => format = Some(body..end),
                _ => {}
            }
            // Chunks begin at even places.
            at = end + end % 2;
        }
    }
}

/// Makes one WAV file of unknown length out of several of the same rate.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// That of the first one.
    format: Option<Vec<u8>>,
    /// The head of the present one, as far as it came.
    head: Vec<u8>,
    /// Bytes of sound of the present one that are still to come; `None`: its head is not whole.
    left: Option<u64>,
}

impl Joined {
    /// The next bytes of the present file; returns what is written of them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        if let Some(left) = &mut self.left {
            return Ok(sound(left, bytes).to_vec());
        }
        self.head.extend_from_slice(bytes);
        let Some(head) = Head::of(&self.head) else {
            return if self.head.len() > HEAD {
                Err(no_wav())
            } else {
                Ok(Vec::new())
            };
        };
        let format = &self.head[head.format];
        let mut out = Vec::new();
        match &self.format {
            None => {
                out.extend_from_slice(b"RIFF");
                out.extend_from_slice(&ENDLESS.to_le_bytes());
                out.extend_from_slice(b"WAVEfmt ");
                out.extend_from_slice(&(format.len() as u32).to_le_bytes());
                out.extend_from_slice(format);
                out.extend_from_slice(b"data");
                out.extend_from_slice(&ENDLESS.to_le_bytes());
                self.format = Some(format.to_vec());
            }
            Some(first) if first != format => {
                return Err(Failure::new(
                    "the parts of the text came as sound of different kinds, which one WAV file cannot hold; try --format mp3",
                ));
            }
            Some(_) => {}
        }
        let left = self.left.insert(head.length.unwrap_or(u64::MAX));
        out.extend_from_slice(sound(left, &self.head[head.sound..]));
        Ok(out)
    }

    /// The present file is over.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.head.clear();
        self.left.take().map(|_| ()).ok_or_else(no_wav)
    }
}

/// As many of these bytes as are sound.
fn sound<'a>(left: &mut u64, bytes: &'a [u8]) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= count as u64;
    &bytes[..count]
}

fn no_wav() -> Failure {
    Failure::new("the server sent something else than WAV, which cannot be put together; try --format mp3")
}

/// A streamed WAV says that it has no end, which some players take for a damaged file. A file's length is known: both
/// sizes are put right.
pub(crate) fn end_of_wav(file: &mut File) -> std::io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::new();
    file.rewind()?;
    Read::by_ref(file).take(HEAD as u64).read_to_end(&mut bytes)?;
    let Some(head) = Head::of(&bytes) else {
        return Ok(());
    };
    for (at, size) in [(4, length - 8), (head.sound - 4, length - head.sound as u64)] {
        if bytes[at..at + 4] == ENDLESS.to_le_bytes() {
            file.seek(SeekFrom::Start(at as u64))?;
            file.write_all(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: [u8; 16] = [1, 0, 1, 0, 0xC0, 0x5D, 0, 0, 0x80, 0xBB, 0, 0, 2, 0, 16, 0];

    fn wav(size: u32, sound: &[u8]) -> Vec<u8> {
        let size = size.to_le_bytes();
        [
            b"RIFF",
            &size[..],
            b"WAVEfmt \x10\0\0\0",
            &FORMAT,
            b"data",
            &size,
            sound,
        ]
        .concat()
    }

    #[test]
    fn a_saved_wav_knows_its_length() {
        for endless in [wav(ENDLESS, &[1, 2, 3, 4]), wav(7, &[1, 2, 3, 4])] {
            let known = endless[40] == 7;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&endless).unwrap();
            end_of_wav(&mut file).unwrap();
            let mut fixed = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut fixed).unwrap();
            if known {
                assert_eq!(fixed, endless);
            } else {
                assert_eq!((&fixed[4..8], &fixed[40..44]), (&[40, 0, 0, 0][..], &[4, 0, 0, 0][..]));
                assert_eq!((&fixed[8..40], &fixed[44..]), (&endless[8..40], &endless[44..]));
            }
        }
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(b"x").unwrap();
        end_of_wav(&mut other).unwrap();
    }

    #[test]
    fn several_are_one_however_they_come() {
        let first = wav(ENDLESS, &[1, 2, 3, 4]);
        // With a length, and a title behind the sound.
        let second = [wav(2, &[5, 6]), b"LIST\x02\0\0\0xy".to_vec()].concat();
        for size in [1, 7, 1000] {
            let mut joined = Joined::default();
            let mut out = Vec::new();
            for file in [&first, &second, &first] {
                for piece in file.chunks(size) {
                    out.extend(joined.push(piece).unwrap());
                }
                joined.end().unwrap();
            }
            assert_eq!(out, wav(ENDLESS, &[1, 2, 3, 4, 5, 6, 1, 2, 3, 4]), "{size}");
        }
    }

    #[test]
    fn what_cannot_be_one_is_refused() {
        let mut joined = Joined::default();
        joined.push(b"ID3 something").unwrap();
        assert!(joined.end().is_err());
        joined.push(&wav(ENDLESS, &[1, 2])).unwrap();
        joined.end().unwrap();
        let mut other = wav(ENDLESS, &[1, 2]);
        other[24] = 1;
        assert!(joined.push(&other).is_err());
        assert!(Joined::default().push(&vec![0; HEAD + 1]).is_err());
    }
}
