//! The last look at a complete file before it becomes visible (promise D1).

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use gguf::{Detail, GgufError, Header};
use ollama_store::Digest;
use sha1::{Digest as _, Sha1};

use crate::{DownloadError, PlannedFile};

/// True: the bytes are the published ones. False: no hash was published, size and structure are right. Blocking; `go_on` is
/// asked between blocks.
pub(super) fn verify(file: &PlannedFile, data: &File, go_on: &dyn Fn() -> bool) -> Result<bool, DownloadError> {
    let read = |error: &io::Error| DownloadError::io("the downloaded file could not be read", error);
    if let Some(want) = &file.git_sha1 {
        let got = git_name(data).map_err(|error| read(&error))?;
        return if got == *want {
            Ok(true)
        } else {
            Err(DownloadError::Digest {
                want: format!("git {want}"),
                got: format!("git {got}"),
            })
        };
    }
    let Some(want) = &file.sha256 else {
        if is_gguf(&file.path) {
            structure(data)?;
        }
        return Ok(false);
    };
    let got = hash(data, go_on)
        .map_err(|error| read(&error))?
        .ok_or(DownloadError::Paused)?;
    if got == *want {
        Ok(true)
    } else {
        Err(DownloadError::Digest {
            want: want.to_string(),
            got: got.to_string(),
        })
    }
}

/// What git calls these contents: a SHA-1 over `blob <length>`, a zero and the contents. For small files: it is not stopped.
pub(super) fn git_name(mut data: &File) -> io::Result<String> {
    data.seek(SeekFrom::Start(0))?;
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", data.metadata()?.len()));
    let mut block = vec![0; 64 << 10];
    loop {
        let read = data.read(&mut block)?;
        let Some(new) = block.get(..read).filter(|new| !new.is_empty()) else {
            break;
        };
        hash.update(new);
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        hex.extend([byte >> 4, byte & 15].map(|half| char::from_digit(u32::from(half), 16).unwrap_or('0')));
        hex
    }))
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The hash of a whole file; `None` when told to stop.
pub(super) fn hash(mut data: &File, go_on: &dyn Fn() -> bool) -> io::Result<Option<Digest>> {
    data.seek(SeekFrom::Start(0))?;
    match Digest::of_reader(Stoppable { data, go_on }) {
        Err(_) if !go_on() => Ok(None),
        digest => digest.map(Some),
    }
}

/// A file that breaks off when it is told to stop.
struct Stoppable<'a> {
    data: &'a File,
    go_on: &'a dyn Fn() -> bool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        if (self.go_on)() {
            self.data.read(block)
        } else {
            Err(io::Error::other("told to stop"))
        }
    }
}

fn structure(mut data: &File) -> Result<(), DownloadError> {
    let failed = |error: GgufError| match error {
        GgufError::Io(error) => DownloadError::io("the downloaded file could not be read", &error),
        other => DownloadError::Damaged(format!("the downloaded file is no sound model file: {other}")),
    };
    data.seek(SeekFrom::Start(0)).map_err(|error| failed(error.into()))?;
    let length = data.metadata().map_err(|error| failed(error.into()))?.len();
    Header::read(&mut BufReader::new(data), length, Detail::Tensors).map_err(failed)?;
    Ok(())
}
