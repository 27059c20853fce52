use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{Digest, StoreError, paths};

/// Receives the bytes of one blob. Nothing is visible until [`BlobWriter::finish`]; dropping it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    root: PathBuf,
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl BlobWriter {
    pub(crate) fn new(root: &Path) -> Result<Self, StoreError> {
        let folder = paths::temporary(root);
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&folder)
            .map_err(StoreError::io("create a file in", &folder))?;
        Ok(Self {
            root: root.to_owned(),
            file,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`], also for a full disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(StoreError::io("write", self.file.path()))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Checks the digest, when one was promised, and makes the blob visible; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`]: nothing was stored. [`StoreError::Io`].
    pub fn finish(self, promised: Option<&Digest>) -> Result<Digest, StoreError> {
        let got = Digest::finish(self.hasher);
        if let Some(expected) = promised
            && *expected != got
        {
            return Err(StoreError::DigestMismatch {
                expected: *expected,
                got,
            });
        }
        let target = paths::blob(&self.root, &got);
        if !target.is_file() {
            place(self.file, &target)?;
        }
        Ok(got)
    }
}

/// Gives a complete temporary file its name: contents on disk first, then the name, then the folder.
pub(crate) fn place(file: NamedTempFile, target: &Path) -> Result<(), StoreError> {
    file.as_file().sync_all().map_err(StoreError::io("write", target))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let readable = std::fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(readable)
            .map_err(StoreError::io("write", target))?;
    }
    file.persist(target)
        .map_err(|error| StoreError::io("write", target)(error.error))?;
    match target.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes a change of names in a folder last over a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // Other systems cannot open a folder as a file; their rename is as durable as it gets.
    if cfg!(unix) {
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(StoreError::io("write", folder))?;
    }
    Ok(())
}
