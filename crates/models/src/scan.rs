//! Finding model files. Only lists; headers are read by `record`.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use domain::ModelSource;

use crate::Problem;
use crate::speech::{self, Seen};
use crate::stored::{self, Stored};

/// Folders inside folders. Deeper trees are a mistake or a trap.
const MAX_DEPTH: u32 = 16;
/// Directory entries looked at in one scan, so that a folder named by mistake (`/`) cannot keep us busy for ever.
const MAX_ENTRIES: usize = 500_000;

/// A place where models may be, each kind with its own way of listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder, searched with its subfolders.
    Folder(PathBuf),
    /// The folder of downloaded speech models: as any other, but it need not be there.
    SpeechFolder(PathBuf),
    /// The demonstration model's file.
    BuiltIn(PathBuf),
    /// A store in Ollama's layout, and whose it is.
    OllamaStore(PathBuf, ModelSource),
}

/// A model file that a scan saw, or the folder of a speech model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Path as found.
    pub(crate) path: PathBuf,
    /// Path without symbolic links: the file's identity.
    pub(crate) real: PathBuf,
    /// Path below its place, with forward slashes.
    pub(crate) relative: String,
    /// Kind of place.
    pub(crate) source: ModelSource,
    /// Bytes.
    pub(crate) size: u64,
    /// Modification time, Unix nanoseconds.
    pub(crate) modified_ns: i64,
}

impl Found {
    /// File name without `.gguf`.
    pub(crate) fn stem(&self) -> String {
        self.path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The folder the file was found in.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// What the listing of all places gave.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Found>,
    /// Named models of stores; their files are among `files`.
    pub(crate) stored: Vec<Stored>,
    pub(crate) problems: Vec<Problem>,
    seen_folders: HashSet<PathBuf>,
    seen_files: HashSet<PathBuf>,
    seen_stored: HashSet<PathBuf>,
    entries: usize,
}

impl Listing {
    /// Lists one place; a file that an earlier place has is left out.
    pub(crate) fn add(&mut self, place: &Place) {
        match place {
            Place::BuiltIn(path) => match file(path, String::new(), ModelSource::BuiltIn) {
                Ok(Some(file)) => self.push(file),
                Ok(None) => self.problem(path, "is not a file"),
                Err(error) => self.problem(path, &error.to_string()),
            },
            Place::OllamaStore(root, source) => {
                let Self {
                    files,
                    stored,
                    problems,
                    seen_stored,
                    ..
                } = self;
                // By path, not by identity: a model's file is looked up by the path its manifest leads to.
                let mut add = |file: Found| {
                    if seen_stored.insert(file.path.clone()) {
                        files.push(file);
                    }
                };
                stored::list(root, *source, stored, &mut add, problems);
            }
            Place::Folder(path) | Place::SpeechFolder(path) => {
                let before = self.files.len();
                match fs::canonicalize(path) {
                    Ok(real) => self.walk(path, real),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        if matches!(place, Place::SpeechFolder(_)) {
                            return;
                        }
                        self.problem(path, "this models folder does not exist");
                    }
                    Err(error) => self.problem(path, &format!("this models folder cannot be read: {error}")),
                }
                if let Some(new) = self.files.get_mut(before..) {
                    new.sort_by(|a, b| a.path.cmp(&b.path));
                }
            }
        }
    }

    fn push(&mut self, file: Found) {
        if self.seen_files.insert(file.real.clone()) {
            self.files.push(file);
        }
    }

    fn problem(&mut self, path: &Path, reason: &str) {
        self.problems.push(Problem {
            path: Some(path.to_owned()),
            reason: reason.to_owned(),
        });
    }

    fn walk(&mut self, root: &Path, real: PathBuf) {
        if !self.seen_folders.insert(real.clone()) {
            return;
        }
        let mut open = vec![(root.to_owned(), real, 0_u32)];
        // Links are followed last, so that a file is known by its own path rather than by a link to it.
        let mut links = Vec::new();
        loop {
            let Some((folder, real, depth)) = open.pop() else {
                let Some((path, depth)) = links.pop() else { break };
                self.link(root, path, depth, &mut open);
                continue;
            };
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.problem(&folder, &format!("this folder cannot be read: {error}"));
                    continue;
                }
            };
            let mut seen = Seen::default();
            for entry in entries.flatten() {
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    self.problem(root, "this folder holds too many files; name the models folder itself");
                    return;
                }
                let name = entry.file_name();
                let text = name.to_string_lossy();
                if is_ignored(&text) {
                    continue;
                }
                let Ok(kind) = entry.file_type() else { continue };
                if !kind.is_dir() {
                    seen.see(&text);
                }
                if kind.is_symlink() {
                    links.push((entry.path(), depth));
                } else if kind.is_dir() {
                    let real = real.join(&name);
                    if depth < MAX_DEPTH && self.seen_folders.insert(real.clone()) {
                        open.push((entry.path(), real, depth + 1));
                    }
                } else if kind.is_file() && is_model_name(&text) {
                    let path = entry.path();
                    match entry.metadata() {
                        Ok(data) => {
                            let relative = relative(root, &path);
                            self.push(found(path, real.join(&name), relative, ModelSource::Folder, &data));
                        }
                        Err(error) => self.problem(&path, &error.to_string()),
                    }
                }
            }
            if seen.is_candidate() {
                let relative = relative(root, &folder);
                self.push(speech::found(folder, real, relative, ModelSource::Folder));
            }
        }
    }

    fn link(&mut self, root: &Path, path: PathBuf, depth: u32, open: &mut Vec<(PathBuf, PathBuf, u32)>) {
        let (data, real) = match (fs::metadata(&path), fs::canonicalize(&path)) {
            (Ok(data), Ok(real)) => (data, real),
            (Err(error), _) | (_, Err(error)) => {
                if is_model_name(&path.to_string_lossy()) {
                    self.problem(&path, &format!("this link leads nowhere: {error}"));
                }
                return;
            }
        };
        if data.is_dir() {
            if depth < MAX_DEPTH && self.seen_folders.insert(real.clone()) {
                open.push((path, real, depth + 1));
            }
        } else if data.is_file() && is_model_name(&path.to_string_lossy()) {
            let relative = relative(root, &path);
            self.push(found(path, real, relative, ModelSource::Folder, &data));
        }
    }
}

/// A model that the settings name by its path: a file, or the folder of a speech model, also by the name of its weights.
/// `Ok(None)`: neither.
pub(crate) fn named(path: &Path) -> std::io::Result<Option<Found>> {
    let folder = match path.parent() {
        Some(folder) if path.file_name().is_some_and(|name| name == speech::WEIGHTS) => folder,
        _ => path,
    };
    if !fs::metadata(folder)?.is_dir() {
        return file(path, String::new(), ModelSource::Config);
    }
    let real = fs::canonicalize(folder)?;
    Ok(Some(speech::found(
        folder.to_owned(),
        real,
        String::new(),
        ModelSource::Config,
    )))
}

/// One file by its path. `Ok(None)`: not a file.
pub(crate) fn file(path: &Path, relative: String, source: ModelSource) -> std::io::Result<Option<Found>> {
    let data = fs::metadata(path)?;
    let real = fs::canonicalize(path)?;
    Ok(data
        .is_file()
        .then(|| found(path.to_owned(), real, relative, source, &data)))
}

fn found(path: PathBuf, real: PathBuf, relative: String, source: ModelSource, data: &Metadata) -> Found {
    Found {
        path,
        real,
        relative,
        source,
        size: data.len(),
        modified_ns: modified_ns(data),
    }
}

/// Modification time in Unix nanoseconds; 0 when the file system has none.
pub(crate) fn modified_ns(data: &Metadata) -> i64 {
    let Ok(time) = data.modified() else { return 0 };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// Hidden files, and downloads that are under way (promise D1).
pub(crate) fn is_ignored(name: &str) -> bool {
    let lower = name.to_lowercase();
    let stem = lower.strip_suffix(".gguf").unwrap_or(&lower);
    name.starts_with('.')
        || [".partial", ".part", ".tmp", ".crdownload", ".download"]
            .iter()
            .any(|end| stem.ends_with(end))
}

fn is_model_name(name: &str) -> bool {
    name.len() > 5
        && name
            .get(name.len() - 5..)
            .is_some_and(|end| end.eq_ignore_ascii_case(".gguf"))
}
