//! Contents: what becomes a blob, and what is read of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::{BlobWriter, Digest, Layer, Store, StoreError, blob, paths};

/// The longest text layer read, in bytes.
const MAX_TEXT: u64 = 16 << 20;

impl Store {
    /// Where a blob lies, or will lie.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let path = paths::blob(&self.root, digest);
        if path.is_file() {
            return path;
        }
        let old = paths::old_blob(&self.root, digest);
        if old.is_file() { old } else { path }
    }

    /// Is the blob there?
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// The blob's length in bytes, if it is there.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        let facts = fs::metadata(self.blob_path(digest)).ok()?;
        facts.is_file().then_some(facts.len())
    }

    /// The text of a small layer.
    ///
    /// # Errors
    /// [`StoreError::MissingBlob`]; [`StoreError::TooLarge`]; [`StoreError::Io`].
    pub fn read_text(&self, layer: &Layer) -> Result<String, StoreError> {
        let path = self.blob_path(&layer.digest);
        let size = self
            .blob_size(&layer.digest)
            .ok_or(StoreError::MissingBlob(layer.digest))?;
        if size > MAX_TEXT {
            return Err(StoreError::TooLarge {
                digest: layer.digest,
                size,
                limit: MAX_TEXT,
            });
        }
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn new_blob(&self) -> Result<BlobWriter, StoreError> {
        self.writable()?;
        BlobWriter::new(&self.root)
    }

    /// Stores small contents and gives the layer to put into a manifest.
    ///
    /// # Errors
    /// As [`Store::new_blob`].
    pub fn put_layer(&self, media_type: &str, contents: &[u8]) -> Result<Layer, StoreError> {
        let mut writer = self.new_blob()?;
        writer.write(contents)?;
        let digest = writer.finish(None)?;
        Ok(Layer {
            media_type: media_type.into(),
            digest,
            size: contents.len() as u64,
            from: None,
        })
    }

    /// Takes a file that lies elsewhere in as a blob without copying it: by a hard link, or by a symbolic one where that is
    /// not possible. `known`: its digest, from whoever vouches for it; else it is computed. Returns digest and length.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn adopt(&self, file: &Path, known: Option<Digest>) -> Result<(Digest, u64), StoreError> {
        self.writable()?;
        let real = fs::canonicalize(file).map_err(StoreError::io("read", file))?;
        let size = fs::metadata(&real).map_err(StoreError::io("read", file))?.len();
        let digest = match known {
            Some(digest) => digest,
            None => Digest::of_file(&real)?,
        };
        if !self.has_blob(&digest) {
            let target = paths::blob(&self.root, &digest);
            // What a lost link left.
            let _ = fs::remove_file(&target);
            fs::hard_link(&real, &target)
                .or_else(|_| link_elsewhere(&real, &target))
                .map_err(StoreError::io("link", &target))?;
            blob::sync_folder(&paths::blobs(&self.root))?;
        }
        Ok((digest, size))
    }

    /// A path for a file that a program writes, to be handed to [`Store::take_in`]. It is removed with its owner.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn scratch(&self) -> Result<TempPath, StoreError> {
        self.writable()?;
        let folder = paths::temporary(&self.root);
        let file = tempfile::Builder::new()
            .prefix("made-")
            .tempfile_in(&folder)
            .map_err(StoreError::io("create a file in", &folder))?;
        Ok(file.into_temp_path())
    }

    /// Makes a complete [`Store::scratch`] file a blob. Returns digest and length.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn take_in(&self, file: TempPath) -> Result<(Digest, u64), StoreError> {
        self.writable()?;
        let digest = Digest::of_file(&file)?;
        let size = fs::metadata(&file).map_err(StoreError::io("read", &file))?.len();
        let target = paths::blob(&self.root, &digest);
        if !target.is_file() {
            let opened = fs::File::open(&file).map_err(StoreError::io("read", &file))?;
            blob::place(NamedTempFile::from_parts(opened, file), &target)?;
        }
        Ok((digest, size))
    }
}

#[cfg(unix)]
fn link_elsewhere(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link_elsewhere(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}
