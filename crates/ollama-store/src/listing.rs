//! Reading names and manifests.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Digest, Manifest, Name, StoreError};

/// The longest manifest read, in bytes; real ones have a few hundred.
const MAX_MANIFEST: u64 = 4 << 20;

/// A named model of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    /// Its name in the stored spelling.
    pub name: Name,
    /// What it consists of.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes: the model's digest.
    pub digest: Digest,
    /// When the manifest was written.
    pub modified: SystemTime,
}

/// Everything in a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// The models, ordered by name.
    pub models: Vec<StoredModel>,
    /// Files and folders that could not be read, with the reason.
    pub problems: Vec<(PathBuf, StoreError)>,
}

/// Every file four folders deep, with the four parts of its path; unreadable folders become problems.
pub(crate) fn names_below(root: &Path, problems: &mut Vec<(PathBuf, StoreError)>) -> Vec<(PathBuf, [String; 4])> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), Vec::<String>::new())];
    while let Some((folder, parts)) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Deleted just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                problems.push((folder.clone(), StoreError::io("read", &folder)(error)));
                continue;
            }
        };
        for entry in entries {
            // Where reading a folder breaks off, more may follow.
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    problems.push((folder.clone(), StoreError::io("read", &folder)(error)));
                    break;
                }
            };
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path();
            let kind = match fs::metadata(&path) {
                Ok(facts) => facts.file_type(),
                // Deleted just now, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    problems.push((path.clone(), StoreError::io("read", &path)(error)));
                    continue;
                }
            };
            let mut parts = parts.clone();
            parts.push(name);
            match <[String; 4]>::try_from(parts) {
                Ok(parts) if kind.is_file() => found.push((path, parts)),
                Err(parts) if kind.is_dir() => open.push((path, parts)),
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}

pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(StoreError::io("read", path))?;
    file.take(MAX_MANIFEST + 1)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(StoreError::InvalidManifest(format!("longer than {MAX_MANIFEST} bytes")));
    }
    Ok(bytes)
}

pub(crate) fn read_manifest(path: &Path, name: Name) -> Result<StoredModel, StoreError> {
    read_both(path, name).map(|(stored, _)| stored)
}

/// A manifest and the bytes it was read from.
pub(crate) fn read_both(path: &Path, name: Name) -> Result<(StoredModel, Vec<u8>), StoreError> {
    let bytes = read_bounded(path)?;
    let modified = fs::metadata(path)
        .and_then(|facts| facts.modified())
        .map_err(StoreError::io("read", path))?;
    let stored = StoredModel {
        name,
        manifest: Manifest::parse(&bytes)?,
        digest: Digest::of(&bytes),
        modified,
    };
    Ok((stored, bytes))
}
