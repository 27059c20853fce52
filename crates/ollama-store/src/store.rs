use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::listing::{names_below, read_both, read_bounded, read_manifest};
use crate::{Digest, Layer, Listing, Manifest, Name, StoreError, StoredModel, blob, media, paths};

/// Whether a store is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Another program's: every change is refused.
    Read,
    /// Ours.
    Write,
}

/// One store. Cheap to clone; clones share the lock and the holds.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) root: Arc<Path>,
    access: Access,
    /// Blobs that unfinished work needs, with the number of holders. Its lock also makes changes take turns.
    held: Arc<Mutex<HashMap<Digest, usize>>>,
}

/// Keeps blobs from being cleaned away until it is dropped.
#[derive(Debug)]
pub struct Hold {
    held: Arc<Mutex<HashMap<Digest, usize>>>,
    digests: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

impl Store {
    /// Opens a store. To write, its folders are made and left-over temporary files removed; to read, nothing is touched
    /// and the folder need not exist.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(root: impl Into<PathBuf>, access: Access) -> Result<Self, StoreError> {
        let root: PathBuf = root.into();
        if access == Access::Write {
            let temporary = paths::temporary(&root);
            if temporary.is_dir() {
                fs::remove_dir_all(&temporary).map_err(StoreError::io("empty", &temporary))?;
            }
            for folder in [paths::manifests(&root), paths::blobs(&root), temporary] {
                fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
            }
        }
        Ok(Self {
            root: root.into(),
            access,
            held: Arc::default(),
        })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// May it be changed?
    pub fn is_writable(&self) -> bool {
        self.access == Access::Write
    }

    /// Everything in it.
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        let root = paths::manifests(&self.root);
        for (path, parts) in names_below(&root, &mut listing.problems) {
            let [host, namespace, model, tag] = &parts;
            // What breaks the grammar was not written by a store: `.DS_Store`, editors' files.
            let Some(name) = Name::from_parts(host, namespace, model, tag) else {
                continue;
            };
            match read_manifest(&path, name) {
                Ok(model) => listing.models.push(model),
                Err(error) => listing.problems.push((path, error)),
            }
        }
        listing.models.sort_by(|a, b| a.name.cmp(&b.name));
        listing
    }

    /// The stored spelling of a name, upper and lower case aside.
    pub fn find(&self, name: &Name) -> Option<Name> {
        let exact = paths::manifest(&self.root, name).is_ok_and(|path| path.is_file());
        // A file system that ignores case finds the file under a spelling that is not the stored one.
        let names = self.names();
        if exact && names.contains(name) {
            return Some(name.clone());
        }
        names.into_iter().find(|stored| stored.same_as(name))
    }

    fn names(&self) -> Vec<Name> {
        names_below(&paths::manifests(&self.root), &mut Vec::new())
            .into_iter()
            .filter_map(|(_, [host, namespace, model, tag])| Name::from_parts(&host, &namespace, &model, &tag))
            .collect()
    }

    /// One model, by any spelling of its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InvalidManifest`]; [`StoreError::Io`].
    pub fn read(&self, name: &Name) -> Result<StoredModel, StoreError> {
        let stored = self.find(name).ok_or_else(|| StoreError::NotFound(name.clone()))?;
        read_manifest(&paths::manifest(&self.root, &stored)?, stored)
    }

    /// One model with its manifest's own bytes, by any spelling of its name.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_bytes(&self, name: &Name) -> Result<(StoredModel, Vec<u8>), StoreError> {
        let stored = self.find(name).ok_or_else(|| StoreError::NotFound(name.clone()))?;
        read_both(&paths::manifest(&self.root, &stored)?, stored)
    }

    /// The paths to give to the engine: the one blob, or the parts of a split model under names that show their numbers.
    /// Empty when the manifest has no weights.
    pub fn model_paths(&self, manifest: &Manifest) -> Vec<PathBuf> {
        self.paths_of(&weights(manifest))
    }

    /// The same for weights that no manifest names yet.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn part_paths(&self, parts: &[Layer]) -> Result<Vec<PathBuf>, StoreError> {
        self.writable()?;
        let parts: Vec<Digest> = parts.iter().map(|layer| layer.digest).collect();
        self.link_parts(&parts)?;
        Ok(self.paths_of(&parts))
    }

    fn paths_of(&self, parts: &[Digest]) -> Vec<PathBuf> {
        match parts {
            [] => Vec::new(),
            [one] => vec![self.blob_path(one)],
            several => {
                let folder = paths::link_folder(&self.root, several);
                (1..=several.len())
                    .map(|number| folder.join(paths::link_name(number, several.len())))
                    .collect()
            }
        }
    }

    /// Keeps blobs, there or still to come, from being cleaned away while work on them goes on.
    pub fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Hold {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut held = self.turn();
        for digest in &digests {
            *held.entry(*digest).or_default() += 1;
        }
        Hold {
            held: Arc::clone(&self.held),
            digests,
        }
    }

    /// Makes a model visible, last of all: every blob must be there. The bytes are kept exactly, since their digest is the
    /// model's. A name that differs from a stored one only in case takes the stored spelling, which is returned. Blobs of
    /// the model that had the name are removed when nothing else uses them; `true`: there were some.
    ///
    /// # Errors
    /// [`StoreError::MissingBlob`]; [`StoreError::InvalidManifest`]; [`StoreError::Unstorable`]; [`StoreError::ReadOnly`];
    /// [`StoreError::Io`].
    pub fn write_manifest(&self, name: &Name, bytes: &[u8]) -> Result<(Name, bool), StoreError> {
        self.writable()?;
        let manifest = Manifest::parse(bytes)?;
        let held = self.turn();
        if let Some(layer) = manifest.all().find(|layer| !self.has_blob(&layer.digest)) {
            return Err(StoreError::MissingBlob(layer.digest));
        }
        let name = self.stored_spelling(name);
        let path = paths::manifest(&self.root, &name)?;
        let before = read_manifest(&path, name.clone()).ok();
        self.link_parts(&weights(&manifest))?;
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        self.check_inside(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix("manifest-")
            .tempfile_in(paths::temporary(&self.root))
            .map_err(StoreError::io("write", &path))?;
        io::Write::write_all(&mut file, bytes).map_err(StoreError::io("write", &path))?;
        blob::place(file, &path)?;
        let removed = match before {
            Some(before) => self.remove_unused(&before.manifest, &held)?,
            None => false,
        };
        Ok((name, removed))
    }

    /// Gives a model a second name. Only the manifest is copied.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and those of [`Store::write_manifest`].
    pub fn copy(&self, source: &Name, destination: &Name) -> Result<Name, StoreError> {
        self.writable()?;
        let source = self.find(source).ok_or_else(|| StoreError::NotFound(source.clone()))?;
        let path = paths::manifest(&self.root, &source)?;
        let bytes = read_bounded(&path)?;
        let _hold = self.hold(Manifest::parse(&bytes)?.all().map(|layer| layer.digest));
        self.write_manifest(destination, &bytes).map(|(name, _)| name)
    }

    /// Removes a name, then the blobs that no other name uses.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn delete(&self, name: &Name) -> Result<(), StoreError> {
        self.writable()?;
        let held = self.turn();
        let name = self.find(name).ok_or_else(|| StoreError::NotFound(name.clone()))?;
        let path = paths::manifest(&self.root, &name)?;
        let before = read_manifest(&path, name);
        fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        let mut folder = path.parent();
        let top = paths::manifests(&self.root);
        while let Some(empty) = folder.filter(|folder| **folder != *top) {
            // Fails, as it should, as soon as another model is in it.
            if fs::remove_dir(empty).is_err() {
                break;
            }
            folder = empty.parent();
        }
        blob::sync_folder(folder.unwrap_or(&top))?;
        // A manifest nobody can read names no blobs.
        if let Ok(before) = before {
            self.remove_unused(&before.manifest, &held)?;
        }
        Ok(())
    }

    /// Removes blobs that no model uses and unfinished ones (`sha256-….partial` and what lies beside it), as far as nobody holds
    /// them and they are older than `age`: what cancelled uploads and downloads left. Returns the bytes freed. Nothing is
    /// removed while some manifest cannot be read.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]; [`StoreError::Io`].
    pub fn prune(&self, age: Duration) -> Result<u64, StoreError> {
        self.writable()?;
        let held = self.turn();
        let Some(used) = self.used() else {
            return Ok(0);
        };
        let folder = paths::blobs(&self.root);
        let mut freed = 0;
        for entry in fs::read_dir(&folder)
            .map_err(StoreError::io("read", &folder))?
            .flatten()
        {
            let name = entry.file_name();
            let Some((digest, unfinished)) = name.to_str().and_then(paths::blob_of) else {
                continue;
            };
            let Ok(facts) = entry.metadata() else { continue };
            let old = facts
                .modified()
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|since| since > age));
            let unused = unfinished || !used.contains(&digest);
            if old && unused && !held.contains_key(&digest) && fs::remove_file(entry.path()).is_ok() {
                freed += facts.len();
            }
        }
        Ok(freed)
    }

    /// The spelling a new name takes: folders that differ only in case are the same folder on some systems.
    fn stored_spelling(&self, name: &Name) -> Name {
        if let Some(stored) = self.find(name) {
            return stored;
        }
        let mut name = name.clone();
        let mut folder = paths::manifests(&self.root);
        for part in [&mut name.host, &mut name.namespace, &mut name.model] {
            let stored = fs::read_dir(&folder).ok().and_then(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .find(|stored| stored.eq_ignore_ascii_case(part))
            });
            let Some(stored) = stored else { break };
            folder.push(&stored);
            *part = stored;
        }
        name
    }

    /// Removes what `manifest` named and nothing else uses. A manifest that cannot be read might use anything: then
    /// everything stays.
    fn remove_unused(&self, manifest: &Manifest, held: &HashMap<Digest, usize>) -> Result<bool, StoreError> {
        let Some(used) = self.used() else {
            return Ok(false);
        };
        let parts = weights(manifest);
        let links = paths::link_folder(&self.root, &parts);
        let gone = parts
            .iter()
            .any(|part| !used.contains(part) && !held.contains_key(part));
        if gone && links.is_dir() {
            fs::remove_dir_all(&links).map_err(StoreError::io("remove", &links))?;
        }
        let mut removed = false;
        for digest in manifest.all().map(|layer| layer.digest).collect::<HashSet<_>>() {
            if used.contains(&digest) || held.contains_key(&digest) {
                continue;
            }
            let path = self.blob_path(&digest);
            match fs::remove_file(&path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("remove", &path)(error)),
            }
        }
        Ok(removed)
    }

    /// Every digest some manifest names; `None` when one cannot be read, or a folder that may hold one.
    fn used(&self) -> Option<HashSet<Digest>> {
        let listing = self.list();
        listing.problems.is_empty().then(|| {
            let layers = listing.models.iter().flat_map(|model| model.manifest.all());
            layers.map(|layer| layer.digest).collect()
        })
    }

    /// Puts the parts of a split model under names that show their numbers.
    fn link_parts(&self, parts: &[Digest]) -> Result<(), StoreError> {
        if parts.len() < 2 {
            return Ok(());
        }
        let folder = paths::link_folder(&self.root, parts);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        for (at, part) in parts.iter().enumerate() {
            let link = folder.join(paths::link_name(at + 1, parts.len()));
            // Another model may be using it.
            if link.is_file() {
                continue;
            }
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("replace", &link)(error));
                }
                _ => {}
            }
            make_link(&self.blob_path(part), &link).map_err(StoreError::io("link", &link))?;
        }
        blob::sync_folder(&folder)
    }

    /// The canonical path must lie below the root, whatever links stand in between.
    fn check_inside(&self, folder: &Path) -> Result<(), StoreError> {
        let canonical = |path: &Path| fs::canonicalize(path).map_err(StoreError::io("read", path));
        let inside = canonical(folder)?.starts_with(canonical(&self.root)?);
        inside.then_some(()).ok_or_else(|| {
            let outside = io::Error::new(io::ErrorKind::PermissionDenied, "it leads out of the model store");
            StoreError::io("write in", folder)(outside)
        })
    }

    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        self.is_writable().then_some(()).ok_or(StoreError::ReadOnly)
    }

    fn turn(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        // Nothing is half done while it is held: a panic elsewhere does not make the map wrong.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weights(manifest: &Manifest) -> Vec<Digest> {
    manifest.of_kind(media::MODEL).map(|layer| layer.digest).collect()
}

#[cfg(unix)]
fn make_link(target: &Path, link: &Path) -> io::Result<()> {
    // Relative, so that the store can be moved.
    let name = target.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
}

#[cfg(not(unix))]
fn make_link(target: &Path, link: &Path) -> io::Result<()> {
    // Symbolic links need rights that users of other systems do not have.
    fs::hard_link(target, link)
}
