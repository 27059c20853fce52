//! Writing a small file so that a kill or power cut at any moment leaves the old or the new contents (promise C2).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Ends the process here when a test asked for it; nothing in a released program.
macro_rules! failpoint {
    ($path:expr, $name:literal) => {
        #[cfg(test)]
        $crate::atomic_file::fail_here($path, $name);
    };
}

/// Set by a test once the store is open, so that only the write under test is cut.
#[cfg(test)]
pub(crate) static ARMED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[cfg(test)]
pub(crate) fn fail_here(path: &Path, name: &str) {
    let armed = ARMED.load(std::sync::atomic::Ordering::Relaxed) && path.ends_with("config.json");
    if armed && std::env::var("CONFIG_FAILPOINT").is_ok_and(|wanted| wanted == name) {
        std::process::abort();
    }
}

/// The steps at which a test kills the process.
#[cfg(test)]
pub(crate) const FAILPOINTS: [&str; 7] = [
    "created",
    "half-written",
    "written",
    "synced",
    "backed-up",
    "renamed",
    "folder-synced",
];

/// Why a guarded write did not happen.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Someone else changed the file since it was read; nothing was written.
    Changed,
    /// The system refused.
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Replaces a file. With `expected`, only if it still holds these bytes; its old contents are then kept beside it by
/// `keep_old`, after the new contents are safe on disk and before they take the name.
pub(crate) fn replace(
    path: &Path,
    contents: &[u8],
    expected: Option<&[u8]>,
    keep_old: impl FnOnce() -> io::Result<()>,
) -> Result<(), WriteError> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let temporary = Temporary::create(path)?;
    failpoint!(path, "created");
    let mut file = &temporary.file;
    let (head, tail) = contents.split_at(contents.len() / 2);
    file.write_all(head)?;
    failpoint!(path, "half-written");
    file.write_all(tail)?;
    failpoint!(path, "written");
    file.sync_all()?;
    failpoint!(path, "synced");
    keep_old()?;
    failpoint!(path, "backed-up");
    if let Some(expected) = expected
        && fs::read(path).map_or(true, |now| now != expected)
    {
        return Err(WriteError::Changed);
    }
    fs::rename(&temporary.path, path)?;
    temporary.keep();
    failpoint!(path, "renamed");
    sync_folder(folder)?;
    failpoint!(path, "folder-synced");
    Ok(())
}

/// Gives a small file these contents: whoever reads it meets the old or the new ones, whole, also after a power cut. Only
/// this user may read it.
///
/// # Errors
/// The system's.
pub fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace(path, contents, None, || Ok(())).map_err(|error| match error {
        // Nothing was expected.
        WriteError::Changed => io::ErrorKind::Interrupted.into(),
        WriteError::Io(error) => error,
    })
}

/// Makes a folder that only this user can enter.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A rename is safe only once the folder is on disk too. Windows has no such call.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// A file beside the target that goes away unless it took the target's name.
struct Temporary {
    path: PathBuf,
    file: File,
    kept: std::cell::Cell<bool>,
}

impl Temporary {
    fn create(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new.{}", std::process::id()));
        let path = target.with_file_name(name);
        // Left over from an earlier life with the same process id.
        let _ = fs::remove_file(&path);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok(Self {
            path,
            file,
            kept: false.into(),
        })
    }

    fn keep(&self) {
        self.kept.set(true);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept.get() {
            let _ = fs::remove_file(&self.path);
        }
    }
}
