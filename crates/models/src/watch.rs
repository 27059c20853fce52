//! Watching the model folders.
//!
//! Every folder is watched with its subfolders; its parent is watched too, to see the folder itself come and go. Of a
//! folder that does not exist, the nearest ancestor that does is watched. After every change the set of watches is
//! brought in line with what exists now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer};

use crate::Problem;
use crate::scan::is_ignored;

/// Changes closer together than this are one change: a copy or an unpacking makes hundreds.
const QUIET: Duration = Duration::from_millis(250);

/// The watches in effect.
pub(crate) struct Watches {
    debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
    dirs: Arc<Mutex<Vec<PathBuf>>>,
    watched: BTreeMap<PathBuf, (RecursiveMode, Identity)>,
}

/// Tells a folder from another one that took its place under the same path.
type Identity = (u64, u64);

impl Watches {
    /// Calls `changed` after changes in the folders given to [`Watches::follow`], from a thread of its own.
    pub(crate) fn start(changed: impl Fn() + Send + 'static) -> Result<Self, notify::Error> {
        let dirs: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let of_interest = Arc::clone(&dirs);
        let debouncer = new_debouncer(QUIET, None, move |result: DebounceEventResult| {
            let wake = match result {
                Ok(events) => {
                    let dirs = of_interest.lock().unwrap_or_else(PoisonError::into_inner);
                    events.iter().any(|event| matters(event, &dirs))
                }
                // Lost events: look for ourselves.
                Err(_) => true,
            };
            if wake {
                changed();
            }
        })?;
        Ok(Self {
            debouncer,
            dirs,
            watched: BTreeMap::new(),
        })
    }

    /// Watches these folders from now on. Returns what cannot be watched.
    pub(crate) fn follow(&mut self, dirs: &[PathBuf]) -> Vec<Problem> {
        dirs.clone_into(&mut self.dirs.lock().unwrap_or_else(PoisonError::into_inner));
        let wanted = wanted(dirs);
        let gone: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, have)| wanted.get(*path) != Some(have))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.watched.remove(&path);
            // Fails for a folder that was deleted: its watch ended with it.
            let _ = self.debouncer.unwatch(&path);
        }
        let mut problems = Vec::new();
        for (path, (mode, identity)) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match self.debouncer.watch(&path, mode) {
                Ok(()) => {
                    self.watched.insert(path, (mode, identity));
                }
                Err(error) => {
                    problems.push(Problem::of(
                        &path,
                        format!("this folder cannot be watched for changes: {error}"),
                    ));
                }
            }
        }
        problems
    }
}

/// The watches that these folders need.
fn wanted(dirs: &[PathBuf]) -> BTreeMap<PathBuf, (RecursiveMode, Identity)> {
    let mut wanted = BTreeMap::new();
    let inside = |path: &Path| {
        dirs.iter()
            .any(|dir| dir.is_dir() && path != dir && path.starts_with(dir))
    };
    for dir in dirs {
        // A folder inside another one is watched with it; a second watch would replace the first.
        if let Some(identity) = identity(dir)
            && !inside(dir)
        {
            wanted.insert(dir.clone(), (RecursiveMode::Recursive, identity));
        }
    }
    for dir in dirs {
        let ancestor = dir.ancestors().skip(1).find_map(|path| Some((path, identity(path)?)));
        if let Some((path, identity)) = ancestor
            && !wanted.contains_key(path)
            && !inside(path)
        {
            wanted.insert(path.to_owned(), (RecursiveMode::NonRecursive, identity));
        }
    }
    wanted
}

#[cfg(unix)]
fn identity(folder: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir)?;
    Some((data.dev(), data.ino()))
}

#[cfg(not(unix))]
fn identity(folder: &Path) -> Option<Identity> {
    folder.is_dir().then_some((0, 0))
}

/// Could this event have changed what a scan finds?
fn matters(event: &DebouncedEvent, dirs: &[PathBuf]) -> bool {
    let kind = match event.kind {
        // Our own scans open files: only the end of writing counts.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    kind && (event.need_rescan() || event.paths.iter().any(|path| concerns(path, dirs)))
}

fn concerns(path: &Path, dirs: &[PathBuf]) -> bool {
    dirs.iter().any(|dir| match path.strip_prefix(dir) {
        // Unfinished downloads are written all the time and change nothing.
        Ok(below) => !below.iter().any(|part| is_ignored(&part.to_string_lossy())),
        Err(_) => dir.starts_with(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_us() {
        let dirs = [PathBuf::from("/home/a/models"), PathBuf::from("/data")];
        for (path, wanted) in [
            ("/home/a/models/x.gguf", true),
            ("/home/a/models/pub/repo", true),
            ("/home/a/models", true),
            ("/home/a", true),
            ("/home/a/other", false),
            ("/home/a/models/x.gguf.partial", false),
            ("/home/a/models/.cache/x.gguf", false),
            ("/database", false),
        ] {
            assert_eq!(concerns(Path::new(path), &dirs), wanted, "{path}");
        }
    }

    #[test]
    fn watches_parents_and_nearest_ancestors() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("models/inner")).unwrap();
        let modes = |dirs: &[&str]| -> Vec<(PathBuf, RecursiveMode)> {
            let dirs: Vec<PathBuf> = dirs.iter().map(|dir| at(dir)).collect();
            wanted(&dirs)
                .into_iter()
                .map(|(path, (mode, _))| (path, mode))
                .collect()
        };
        let home = home.path().to_owned();
        use RecursiveMode::{NonRecursive, Recursive};
        assert_eq!(
            modes(&["models"]),
            [(home.clone(), NonRecursive), (at("models"), Recursive)]
        );
        assert_eq!(
            modes(&["models", "models/inner"]),
            [(home.clone(), NonRecursive), (at("models"), Recursive)]
        );
        assert_eq!(modes(&["not/yet/there"]), [(home.clone(), NonRecursive)]);
        assert_eq!(
            modes(&["models", "models/new"]),
            [(home.clone(), NonRecursive), (at("models"), Recursive)],
            "a folder to come inside a watched one needs no watch"
        );
    }
}
