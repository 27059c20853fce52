//! A name from outside never chooses a path (promise D4).

use std::path::{Component, Path, PathBuf};

use crate::DownloadError;

/// Longest accepted name of one file or folder, in bytes; file systems take 255, and `.partial.json` must fit.
const LONGEST: usize = 200;

/// Names that Windows gives to devices, whatever extension follows.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Checks one name of a file or folder: letters, digits and `._-+=@ ()[],` only, no leading or trailing dot or blank, no
/// device name.
pub fn file_name(name: &str) -> Result<&str, DownloadError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+=@ ()[],".contains(c);
    let bad_edge = |c: Option<char>| c.is_none_or(|c| c == '.' || c == ' ');
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_ascii_lowercase();
    let device = RESERVED.contains(&stem.as_str())
        || (stem.len() == 4
            && (stem.starts_with("com") || stem.starts_with("lpt"))
            && stem.ends_with(|c: char| c.is_ascii_digit()));
    if name.len() > LONGEST
        || !name.chars().all(allowed)
        || bad_edge(name.chars().next())
        || bad_edge(name.chars().next_back())
        || device
    {
        return Err(DownloadError::InvalidName(format!(
            "{name:?} cannot be used as a file name: use letters, digits and ._-+=@()[] only"
        )));
    }
    Ok(name)
}

/// Joins checked names (`owner/repo/file.gguf`, separated by `/`) to a root.
pub fn under(root: &Path, relative: &str) -> Result<PathBuf, DownloadError> {
    let mut path = root.to_owned();
    for part in relative.split('/') {
        path.push(file_name(part)?);
    }
    Ok(path)
}

/// Makes the folder of a file and checks that it lies under the root, links followed. Blocking.
pub(crate) fn prepare(root: &Path, file: &Path) -> Result<(), DownloadError> {
    let outside = || DownloadError::InvalidName("the name leads out of the folder for downloads".into());
    let failed = |error: &std::io::Error| DownloadError::io("the folder for downloads cannot be made", error);
    let relative = file.strip_prefix(root).map_err(|_| outside())?;
    let mut names = relative.components().peekable();
    std::fs::create_dir_all(root).map_err(|error| failed(&error))?;
    let real_root = root.canonicalize().map_err(|error| failed(&error))?;
    let mut at = real_root.clone();
    while let Some(name) = names.next() {
        let Component::Normal(name) = name else {
            return Err(outside());
        };
        if names.peek().is_none() {
            return Ok(());
        }
        at.push(name);
        match std::fs::create_dir(&at) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(&error)),
            _ => {}
        }
        // Each step on its own: a folder must not be made behind a link that leads away.
        at = at.canonicalize().map_err(|error| failed(&error))?;
        if !at.starts_with(&real_root) {
            return Err(outside());
        }
    }
    Err(outside())
}
