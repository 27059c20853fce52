//! The scan index: what was read from each file, so that an unchanged file is not opened again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record::{self, Record};
use crate::scan::Found;

/// Goes up whenever a record would come out differently for the same file. An index of another version is ignored.
const VERSION: u32 = 1;
/// A larger index is not ours.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    size: u64,
    modified_ns: i64,
    record: Record,
}

/// The file's form. Sorted, so that the same rows make the same file.
#[derive(Serialize, Deserialize)]
struct OnDisk<P: Ord, R> {
    version: u32,
    files: BTreeMap<P, R>,
}

/// Records by path, valid while size and modification time stay.
#[derive(Debug, Default)]
pub(crate) struct Index {
    rows: HashMap<PathBuf, Row>,
    path: PathBuf,
}

impl Index {
    /// Loads the index; one that is absent, damaged or of another version counts as empty.
    pub(crate) fn load(path: &Path) -> Self {
        let rows = match Self::read(path) {
            Ok(rows) => rows,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::info!(%error, "the scan index is unusable; all model files are read again");
                }
                HashMap::new()
            }
        };
        Self {
            rows,
            path: path.to_owned(),
        }
    }

    fn read(path: &Path) -> io::Result<HashMap<PathBuf, Row>> {
        if fs::metadata(path)?.len() > MAX_BYTES {
            return Err(io::Error::other("too large"));
        }
        let stored: OnDisk<PathBuf, Row> = serde_json::from_slice(&fs::read(path)?)?;
        if stored.version != VERSION {
            return Err(io::Error::other("of another version"));
        }
        Ok(stored.files.into_iter().collect())
    }

    /// The records of `files`, in order, and how many had to be read. Forgets all other files; saves when anything changed.
    pub(crate) fn records(&mut self, files: &[Found]) -> (Vec<Record>, usize) {
        let mut old = std::mem::take(&mut self.rows);
        let had = old.len();
        let mut rows: Vec<Option<Row>> = files
            .iter()
            .map(|file| {
                let row = old.get(&file.path)?;
                let same = row.size == file.size && row.modified_ns == file.modified_ns;
                same.then(|| old.remove(&file.path)).flatten()
            })
            .collect();
        let missing: Vec<&Found> = files
            .iter()
            .zip(&rows)
            .filter(|(_, row)| row.is_none())
            .map(|(file, _)| file)
            .collect();
        let read = missing.len();
        let mut fresh = record::read_all(&missing).into_iter();
        let mut records = Vec::with_capacity(files.len());
        for (file, row) in files.iter().zip(&mut rows) {
            let (row, keep) = if let Some(row) = row.take() {
                (row, true)
            } else {
                let unread = || {
                    (
                        Record::Bad {
                            reason: "was not read".to_owned(),
                        },
                        false,
                    )
                };
                let (record, keep) = fresh.next().unwrap_or_else(unread);
                (
                    Row {
                        size: file.size,
                        modified_ns: file.modified_ns,
                        record,
                    },
                    keep,
                )
            };
            records.push(row.record.clone());
            if keep {
                self.rows.insert(file.path.clone(), row);
            }
        }
        if (read > 0 || self.rows.len() != had)
            && let Err(error) = self.save()
        {
            tracing::warn!(%error, "the scan index could not be written; the next start reads all model files again");
        }
        (records, read)
    }

    /// Writes beside the old index and renames, so that a reader sees one or the other.
    fn save(&self) -> io::Result<()> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            private_folder(folder)?;
        }
        // A path that is not Unicode cannot be written as JSON; such a file is read again at every start.
        let files: BTreeMap<&str, &Row> = self
            .rows
            .iter()
            .filter_map(|(path, row)| Some((path.to_str()?, row)))
            .collect();
        let bytes = serde_json::to_vec(&OnDisk {
            version: VERSION,
            files,
        })?;
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let written = private_file(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    File::create(path)
}

#[cfg(unix)]
fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}
