use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::{BlobWriter, Digest, Layer, Manifest, Name, StoreError, blob, media, paths};

/// The longest manifest read, in bytes; real ones have a few hundred.
const MAX_MANIFEST: u64 = 4 << 20;
/// The longest text layer read, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Whether a store is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Another program's: every change is refused.
    Read,
    /// Ours.
    Write,
}

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

/// One store. Cheap to clone; clones share the lock and the holds.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
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
        if !root.exists() {
            return listing;
        }
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
            [first, ..] => (1..=parts.len())
                .map(|number| paths::link(&self.root, first, number, parts.len()))
                .collect(),
        }
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
    pub fn scratch(&self) -> Result<tempfile::TempPath, StoreError> {
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
    pub fn take_in(&self, file: tempfile::TempPath) -> Result<(Digest, u64), StoreError> {
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

    /// Removes blobs that no model uses, nobody holds and that are older than `age`: what cancelled uploads and downloads
    /// left. Returns the bytes freed.
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
            let Some(digest) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                continue;
            };
            let Ok(facts) = entry.metadata() else { continue };
            let old = facts
                .modified()
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|since| since > age));
            if old && !used.contains(&digest) && !held.contains_key(&digest) && fs::remove_file(entry.path()).is_ok() {
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
        let mut removed = false;
        for digest in manifest.all().map(|layer| layer.digest).collect::<HashSet<_>>() {
            if used.contains(&digest) || held.contains_key(&digest) {
                continue;
            }
            let links = paths::links(&self.root).join(digest.hex());
            if links.is_dir() {
                fs::remove_dir_all(&links).map_err(StoreError::io("remove", &links))?;
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

    /// Every digest some manifest names; `None` when one cannot be read.
    fn used(&self) -> Option<HashSet<Digest>> {
        let listing = self.list();
        listing.problems.is_empty().then(|| {
            let layers = listing.models.iter().flat_map(|model| model.manifest.all());
            layers.map(|layer| layer.digest).collect()
        })
    }

    /// Puts the parts of a split model under names that show their numbers.
    fn link_parts(&self, parts: &[Digest]) -> Result<(), StoreError> {
        let [first, _, ..] = parts else {
            return Ok(());
        };
        for (at, part) in parts.iter().enumerate() {
            let link = paths::link(&self.root, first, at + 1, parts.len());
            let folder = link.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("replace", &link)(error));
                }
                _ => {}
            }
            make_link(&self.blob_path(part), &link).map_err(StoreError::io("link", &link))?;
        }
        Ok(())
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

    fn writable(&self) -> Result<(), StoreError> {
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

/// Every file four folders deep, with the four parts of its path; unreadable folders become problems.
fn names_below(root: &Path, problems: &mut Vec<(PathBuf, StoreError)>) -> Vec<(PathBuf, [String; 4])> {
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
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let mut parts = parts.clone();
            parts.push(name);
            match <[String; 4]>::try_from(parts) {
                Ok(parts) if entry.path().is_file() => found.push((entry.path(), parts)),
                Ok(_) => {}
                Err(parts) if entry.path().is_dir() => open.push((entry.path(), parts)),
                Err(_) => {}
            }
        }
    }
    found
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, StoreError> {
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

fn read_manifest(path: &Path, name: Name) -> Result<StoredModel, StoreError> {
    read_both(path, name).map(|(stored, _)| stored)
}

/// A manifest and the bytes it was read from.
fn read_both(path: &Path, name: Name) -> Result<(StoredModel, Vec<u8>), StoreError> {
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

#[cfg(unix)]
fn link_elsewhere(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link_elsewhere(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
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
