//! The files of the speech program, carried inside this one and written beside its environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::EngineError;
use crate::process::{hex, remove_tree};

/// Name below the program's folder, and text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/speech_program.rs"));

/// Age at which the files of another version go.
const LEFT_OVER: Duration = Duration::from_hours(24);

/// The file that is started.
const FIRST: &str = "speech_engine.py";

/// Writes the files to `<folder>/program-<hash>/` unless they are there, and returns the first one's path. Another version of
/// this program has another hash and so another folder; those of older versions are removed.
pub(super) fn write(folder: &Path) -> Result<PathBuf, EngineError> {
    write_files(folder, FILES)
}

fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<PathBuf, EngineError> {
    let name = folder_name(files);
    let place = folder.join(&name);
    let first = place.join(FIRST);
    if first.is_file() {
        return Ok(first);
    }
    fs::create_dir_all(folder).map_err(EngineError::io("Creating", folder))?;
    // Another process may write the same at the same time: each has a folder of its own, and the first one stays.
    let scratch = folder.join(format!(".{name}.{}", std::process::id()));
    remove_tree(&scratch)?;
    for (name, text) in files {
        let path = scratch.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(EngineError::io("Creating", parent))?;
        }
        fs::write(&path, text).map_err(EngineError::io("Writing", &path))?;
    }
    match fs::rename(&scratch, &place) {
        Ok(()) => {}
        Err(_) if first.is_file() => remove_tree(&scratch)?,
        Err(error) => return Err(EngineError::io("Writing", &place)(error)),
    }
    remove_older(folder, &name);
    Ok(first)
}

/// Removes what older versions wrote. Not what was written lately: another version may be running, and about to start it.
fn remove_older(folder: &Path, current: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let other = name.to_string_lossy().starts_with("program-") && *name != *current;
        let modified = entry.metadata().and_then(|meta| meta.modified()).ok();
        let age = modified.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        if other && age > LEFT_OVER {
            // Only waste if it stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn folder_name(files: &[(&str, &str)]) -> String {
    let mut hash = Sha256::new();
    for (name, text) in files {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    format!("program-{}", &hex(&hash.finalize())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_carried() {
        assert!(FILES.iter().any(|(name, _)| *name == FIRST));
    }

    #[test]
    fn a_changed_program_replaces_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let old = write_files(folder, &[(FIRST, "one"), ("package/part.py", "two")]).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one");
        assert_eq!(
            fs::read_to_string(old.with_file_name("package").join("part.py")).unwrap(),
            "two"
        );
        // Nothing is written again.
        fs::write(&old, "touched").unwrap();
        assert_eq!(
            write_files(folder, &[(FIRST, "one"), ("package/part.py", "two")]).unwrap(),
            old
        );
        assert_eq!(fs::read_to_string(&old).unwrap(), "touched");
        let new = write_files(folder, &[(FIRST, "three")]).unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "three");
        assert!(old.exists(), "its version may be running");
        let yesterday = std::time::SystemTime::now() - LEFT_OVER - Duration::from_secs(9);
        let old_folder = fs::File::open(old.parent().unwrap()).unwrap();
        old_folder.set_modified(yesterday).unwrap();
        write_files(folder, &[(FIRST, "four")]).unwrap();
        assert!(!old.exists() && new.exists());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }
}
