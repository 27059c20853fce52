//! An unfinished file: `<name>.partial` with the bytes and `<name>.partial.json` saying which of them count (promise D1).
//!
//! The bytes lie at their places, so a partial can be as long as the finished file; its name and the list of ranges say that
//! it is not finished, its length never says that it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ollama_store::Digest;
use serde::{Deserialize, Serialize};

use super::ranges::RangeSet;
use crate::{DownloadError, PlannedFile};

/// How long another holder of the lock is waited for, and how often is looked.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// What is known of an unfinished file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Where it comes from. A published hash outranks it: the same bytes may come from a mirror.
    url: String,
    /// The published hash.
    sha256: Option<String>,
    /// What the origin calls this version of the file, to be used in `If-Range`: a strong ETag or a date.
    pub(crate) validator: Option<String>,
    /// Its size, once known.
    pub(crate) size: Option<u64>,
    /// The bytes that are on disk.
    pub(crate) done: RangeSet,
    /// The origin does not serve ranges.
    #[serde(skip)]
    pub(crate) whole_only: bool,
    /// The origin's word for the version proved useless, the published hash decides alone.
    #[serde(skip)]
    pub(crate) ignore_validator: bool,
}

impl Ledger {
    fn new(file: &PlannedFile) -> Self {
        Self {
            url: file.url.to_string(),
            sha256: file.sha256.as_ref().map(Digest::hex),
            size: file.size,
            ..Self::default()
        }
    }

    /// May what this (older) ledger says be used for the file as it is planned now?
    fn continues(&self, file: &PlannedFile) -> bool {
        let same_bytes = match (&self.sha256, &file.sha256) {
            (Some(old), Some(new)) => *old == new.hex(),
            // Without a hash only the origin's own word says that it is still the same file.
            (None, None) => self.url == file.url.as_str() && self.validator.is_some(),
            _ => false,
        };
        let size = self.size.or(file.size);
        same_bytes && (file.size.is_none() || file.size == size) && self.done.is_sound(size.unwrap_or(u64::MAX))
    }

    /// All bytes are there.
    pub(crate) fn complete(&self) -> bool {
        self.size.is_some_and(|size| self.done.bytes() == size)
    }

    /// Bytes still to come, when the size is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        Some(self.size?.saturating_sub(self.done.bytes()))
    }

    /// Whether bytes that are there may be completed by asking for the others.
    pub(crate) fn resumable(&self) -> bool {
        !self.whole_only && (self.validator.is_some() || self.sha256.is_some())
    }
}

/// The two files of an unfinished download, open and locked.
#[derive(Debug)]
pub(crate) struct Partial {
    data: Arc<File>,
    data_path: PathBuf,
    sidecar: PathBuf,
    planned_size: Option<u64>,
    ledger: Mutex<Ledger>,
}

/// `<name>.partial` beside the final path.
pub(crate) fn data_path(file: &Path) -> PathBuf {
    suffixed(file, ".partial")
}

fn sidecar_path(file: &Path) -> PathBuf {
    suffixed(file, ".partial.json")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Bytes of a file that an earlier try left and that still count. Blocking.
pub(crate) fn noted(file: &PlannedFile) -> u64 {
    let length = std::fs::metadata(data_path(&file.path)).map_or(0, |meta| meta.len());
    read_ledger(&sidecar_path(&file.path), file, length).map_or(0, |ledger| ledger.done.bytes())
}

/// What an earlier try noted, if it is of the same file and the data is there. Ranges beyond the end of the data were
/// promised but never written.
fn read_ledger(sidecar: &Path, file: &PlannedFile, length: u64) -> Option<Ledger> {
    let ledger: Ledger = serde_json::from_slice(&std::fs::read(sidecar).ok()?).ok()?;
    (ledger.continues(file) && ledger.done.end() <= length).then_some(ledger)
}

/// False: another program has it. A child that is just being started holds for a moment what we have let go, so one refusal
/// says nothing. File systems without locks have no other program to fear.
fn lock(data: &File) -> bool {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match data.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_LOOK),
            Err(TryLockError::WouldBlock) => return false,
            Ok(()) | Err(TryLockError::Error(_)) => return true,
        }
    }
}

/// The next sidecar, until it is whole.
fn next_sidecar(sidecar: &Path) -> PathBuf {
    suffixed(sidecar, ".new")
}

/// Removes what there is of an unfinished file. Blocking.
pub(crate) fn discard(file: &Path) -> io::Result<()> {
    remove(&data_path(file))?;
    remove_notes(&sidecar_path(file))
}

/// Removes the sidecar, and a half-written one that an earlier life left.
fn remove_notes(sidecar: &Path) -> io::Result<()> {
    remove(&next_sidecar(sidecar))?;
    remove(sidecar)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Partial {
    /// Opens or begins the partial of a file. What an earlier try left is used if it is of the same file. Blocking.
    pub(crate) fn open(file: &PlannedFile) -> Result<Self, DownloadError> {
        let failed = |error: io::Error| write_error(&error);
        let (data_path, sidecar) = (data_path(&file.path), sidecar_path(&file.path));
        if std::fs::symlink_metadata(&data_path).is_ok_and(|meta| !meta.is_file()) {
            return Err(DownloadError::Io(
                "something that is no file is in the place of the partial file".into(),
            ));
        }
        let data = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&data_path)
            .map_err(failed)?;
        if !lock(&data) {
            return Err(DownloadError::Io("another program is downloading this file".into()));
        }
        let length = data.metadata().map_err(failed)?.len();
        let earlier = read_ledger(&sidecar, file, length);
        let fresh = earlier.is_none();
        let mut ledger = earlier.unwrap_or_else(|| Ledger::new(file));
        ledger.size = ledger.size.or(file.size);
        let partial = Self {
            data: Arc::new(data),
            data_path,
            sidecar,
            planned_size: file.size,
            ledger: Mutex::new(ledger),
        };
        if fresh {
            partial.data.set_len(0).map_err(failed)?;
            // Now, so that the sidecar has its place on a disk that fills up.
            partial.save().map_err(failed)?;
        }
        Ok(partial)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open data file.
    pub(crate) fn data(&self) -> Arc<File> {
        Arc::clone(&self.data)
    }

    /// Writes bytes at their place and counts them. Blocking.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_all_at(&self.data, bytes, at)?;
        self.ledger().done.insert(at..at + bytes.len() as u64);
        Ok(())
    }

    /// Bytes that cannot be trusted after all.
    pub(crate) fn forget(&self, range: Range<u64>) {
        self.ledger().done.remove(range);
    }

    /// Begins again from nothing. Blocking.
    pub(crate) fn reset(&self) -> io::Result<()> {
        {
            let mut ledger = self.ledger();
            ledger.done = RangeSet::default();
            ledger.validator = None;
            ledger.size = self.planned_size;
        }
        self.data.set_len(0)?;
        self.save()
    }

    /// Notes durably what is there: first the bytes, then the word about them. Blocking.
    pub(crate) fn save(&self) -> io::Result<()> {
        let ledger = self.ledger().clone();
        self.data.sync_data()?;
        let text = serde_json::to_vec(&ledger).map_err(io::Error::other)?;
        let fresh = next_sidecar(&self.sidecar);
        let replaced = write_private(&fresh, &text).and_then(|()| std::fs::rename(&fresh, &self.sidecar));
        match replaced {
            Err(error) if matches!(write_error(&error), DownloadError::DiskFull { .. }) => {
                // On a full disk it is written over in its place. A half-written one is not believed, so the worst is a new
                // start; without it, that would be certain.
                remove(&fresh)?;
                let mut file = OpenOptions::new().write(true).open(&self.sidecar)?;
                file.write_all(&text)?;
                file.set_len(text.len() as u64)?;
                file.sync_data()
            }
            other => other,
        }
    }

    /// Gives the finished, verified file its name. Blocking.
    pub(crate) fn land(self, target: &Path) -> io::Result<()> {
        let Self {
            data,
            data_path,
            sidecar,
            ledger,
            ..
        } = self;
        let size = ledger.into_inner().unwrap_or_else(PoisonError::into_inner).size;
        if let Some(size) = size {
            data.set_len(size)?;
        }
        data.sync_all()?;
        // Windows renames no open file.
        drop(data);
        std::fs::rename(&data_path, target)?;
        if let Some(folder) = target.parent() {
            sync_folder(folder);
        }
        remove_notes(&sidecar)
    }
}

/// Addresses may carry signatures: only this user may read the sidecar (promise S7).
fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    // Before it takes the place of the one that is on disk: a power cut must not leave an empty one.
    file.sync_data()
}

/// Makes the new name durable where the system can; where it cannot, the rename is as durable as it gets.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// A failed write in our words. How much is missing on a full disk is filled in by who knows the rest.
pub(crate) fn write_error(error: &io::Error) -> DownloadError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DownloadError::DiskFull { missing: 0 }
        }
        _ => DownloadError::io("the file could not be written", error),
    }
}
