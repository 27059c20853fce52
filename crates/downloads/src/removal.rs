//! Deleting what a download put on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{DownloadError, DownloadSettings};

/// Deletes files of the folder for downloads, and the folders that are empty then. `Ok(false)`: one of them lies elsewhere,
/// or is a link, and nothing was touched. Blocking.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_files(settings: &DownloadSettings, files: &[PathBuf]) -> Result<bool, DownloadError> {
    let failed = |error: std::io::Error| DownloadError::io("the model cannot be deleted", &error);
    let Ok(root) = settings.models_dir.canonicalize() else {
        return Ok(false);
    };
    if files.is_empty() || !files.iter().all(|file| is_ours(&root, file)) {
        return Ok(false);
    }
    for file in files {
        fs::remove_file(file).map_err(failed)?;
    }
    for file in files {
        for folder in file.ancestors().skip(1) {
            // The first one that is not empty, or the root, ends it.
            if folder.canonicalize().is_ok_and(|real| real == root) || fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
    Ok(true)
}

/// A file itself, not a link to one, whose folder is really below the root: what a link leads to was put there by somebody
/// else.
fn is_ours(root: &Path, file: &Path) -> bool {
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
    folder.is_some_and(|folder| folder.starts_with(root)) && file.symlink_metadata().is_ok_and(|data| data.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
        path.to_owned()
    }

    #[test]
    fn files_and_their_empty_folders_go_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let settings = DownloadSettings::below(home.path());
        let root = settings.models_dir.clone();
        let one = put(&root.join("acme/tiny/one-00001-of-00002.gguf"));
        let two = put(&root.join("acme/tiny/one-00002-of-00002.gguf"));
        let other = put(&root.join("acme/other/model.gguf"));
        assert!(remove_files(&settings, &[one.clone(), two]).unwrap());
        assert!(!one.exists() && !root.join("acme/tiny").exists() && other.exists());
        assert!(remove_files(&settings, &[other]).unwrap());
        assert!(root.exists() && !root.join("acme").exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_lies_elsewhere_is_not_touched() {
        use std::os::unix::fs::symlink;
        let home = tempfile::tempdir().unwrap();
        let settings = DownloadSettings::below(home.path());
        let root = settings.models_dir.clone();
        let own = put(&root.join("acme/tiny/model.gguf"));
        let foreign = put(&home.path().join("mine/model.gguf"));
        symlink(&foreign, root.join("acme/link.gguf")).unwrap();
        symlink(home.path().join("mine"), root.join("linked")).unwrap();
        for file in [
            foreign.clone(),
            root.join("acme/link.gguf"),
            root.join("linked/model.gguf"),
            root.join("../mine/model.gguf"),
            root.join("acme/tiny"),
            root.join("nothing.gguf"),
        ] {
            assert!(
                !remove_files(&settings, &[own.clone(), file.clone()]).unwrap(),
                "{}",
                file.display()
            );
        }
        assert!(!remove_files(&settings, &[]).unwrap());
        assert!(own.exists() && foreign.exists());
    }
}
