//! A Python environment of ours on disk: which one, whether it is there, whether it still works.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use domain::{EngineKind, ModelEntry};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::python::{self, Tools};
use crate::EngineError;
use crate::process::hex;

/// What an environment is made of. The same lock gives the same packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRecipe {
    /// First part of its folder's name.
    pub name: String,
    /// Requirements with hashes, for every system and Python there are packages for.
    pub lock: String,
    /// Modules that must be importable in the end.
    pub imports: Vec<String>,
    /// Disk space it needs, the packages' archives included.
    pub need_bytes: u64,
    /// Made by itself when a model needs it. False: only on request, because somebody has to agree to a licence.
    pub automatic: bool,
    /// Programs to make it with.
    pub tools: Tools,
}

impl EnvironmentRecipe {
    /// What hears, and speaks with espeak-ng or the system's own voices: 43 packages, about 460 MB.
    pub fn speech() -> Self {
        Self::of("speech", include_str!("../../speech/requirements.txt"), &[], true)
    }

    /// The same with Kokoro voices (`kokoro-onnx`).
    pub fn kokoro() -> Self {
        Self::of(
            "kokoro",
            include_str!("../../speech/requirements-kokoro.txt"),
            &["kokoro_onnx"],
            false,
        )
    }

    /// The same with Piper voices (`piper-tts`, GPL-3.0-or-later).
    pub fn piper() -> Self {
        Self::of(
            "piper",
            include_str!("../../speech/requirements-piper.txt"),
            &["piper"],
            false,
        )
    }

    /// The one that a model's engine needs.
    pub fn for_model(entry: &ModelEntry) -> Self {
        match (entry.engine, entry.facts.architecture.as_str()) {
            (EngineKind::Speech, "kokoro") => Self::kokoro(),
            (EngineKind::Speech, "piper") => Self::piper(),
            _ => Self::speech(),
        }
    }

    fn of(name: &str, lock: &str, more: &[&str], automatic: bool) -> Self {
        let imports = ["faster_whisper", "ctranslate2", "av", "uvicorn"];
        Self {
            name: name.into(),
            lock: lock.into(),
            imports: imports.iter().chain(more).map(|name| (*name).to_owned()).collect(),
            need_bytes: 1 << 30,
            automatic,
            tools: Tools::here(),
        }
    }

    /// Where the finished environment lies. Another lock is another folder.
    pub fn folder(&self, cache_dir: &Path) -> PathBuf {
        let hash = hex(&Sha256::digest(self.lock.as_bytes()));
        root(cache_dir).join(format!("{}-{}", self.name, &hash[..16]))
    }

    /// Packages of the lock; some are for other systems only.
    pub(super) fn packages(&self) -> usize {
        let is_package = |line: &&str| !line.starts_with([' ', '#']) && line.contains("==");
        self.lock.lines().filter(is_package).count().max(1)
    }

    /// What the environment's interpreter is asked: versions, after importing everything where `import` is set.
    pub(super) fn question(&self, import: bool) -> String {
        let imports = if import { self.imports.as_slice() } else { &[] };
        let first = imports
            .iter()
            .fold(String::new(), |lines, name| lines + "import " + name + "\n");
        format!(
            "{first}import json, platform, importlib.metadata\n\
             print(json.dumps({{'python_version': platform.python_version(), \
             'faster_whisper': importlib.metadata.version('faster-whisper')}}))"
        )
    }
}

/// The folder of everything that is about Python.
pub(super) fn root(cache_dir: &Path) -> PathBuf {
    cache_dir.join("python")
}

/// An interpreter that has the packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The interpreter.
    pub python: PathBuf,
    /// Its version.
    pub python_version: String,
    /// Version of the package.
    pub faster_whisper: String,
}

#[derive(Deserialize)]
struct Versions {
    python_version: String,
    faster_whisper: String,
}

/// Asks an interpreter for the packages; `import` proves that they load, which takes a second.
pub(super) fn ask(
    python: &Path,
    recipe: &EnvironmentRecipe,
    import: bool,
    cancel: &AtomicBool,
) -> Result<Installed, String> {
    let limit = if import { python::IMPORT_LIMIT } else { python::LIMIT };
    let answer = python::output(&[python.into()], &recipe.question(import), limit, cancel)?;
    let versions: Versions = serde_json::from_slice(&answer).map_err(|_| "it gave no answer".to_owned())?;
    Ok(Installed {
        python: python.to_owned(),
        python_version: versions.python_version,
        faster_whisper: versions.faster_whisper,
    })
}

/// Written into an environment when it is complete, before it gets its name.
#[derive(Serialize, Deserialize)]
struct Marker {
    python_version: String,
    faster_whisper: String,
    /// The program its interpreter leads to, as it was then.
    base: Stamp,
}

const MARKER: &str = "llama-runner.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    size: u64,
    modified_ms: u64,
}

impl Stamp {
    /// A program that lies in the environment itself (a copy, as on Windows) moves with it.
    fn of(environment: &Path) -> std::io::Result<Self> {
        let path = fs::canonicalize(python::inside(environment))?;
        let meta = fs::metadata(&path)?;
        let inside = path.strip_prefix(fs::canonicalize(environment)?).map(Path::to_owned);
        let path = inside.unwrap_or(path);
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let modified_ms = modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Ok(Self {
            path,
            size: meta.len(),
            modified_ms,
        })
    }
}

pub(super) fn mark(environment: &Path, installed: &Installed) -> Result<(), EngineError> {
    let path = environment.join(MARKER);
    let write = || {
        let marker = Marker {
            python_version: installed.python_version.clone(),
            faster_whisper: installed.faster_whisper.clone(),
            base: Stamp::of(environment)?,
        };
        fs::write(&path, serde_json::to_vec(&marker)?)
    };
    write().map_err(EngineError::io("Writing", &path))
}

/// How an environment stands on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Missing,
    Ready(Installed),
    /// It was complete once; why it is not now.
    Broken(String),
}

/// Looks at the environment. An interpreter that changed since it was made (the system's Python was updated or removed) is
/// asked again; that takes a second, once.
pub(super) fn standing(recipe: &EnvironmentRecipe, cache_dir: &Path) -> Standing {
    let folder = recipe.folder(cache_dir);
    if !folder.exists() {
        return Standing::Missing;
    }
    let python = python::inside(&folder);
    let Ok(base) = Stamp::of(&folder) else {
        return Standing::Broken("the Python it was made with is gone".into());
    };
    let marker = fs::read(folder.join(MARKER)).ok();
    let Some(marker) = marker.and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok()) else {
        return Standing::Broken("it is not complete".into());
    };
    if marker.base == base {
        return Standing::Ready(Installed {
            python,
            python_version: marker.python_version,
            faster_whisper: marker.faster_whisper,
        });
    }
    match ask(&python, recipe, true, &AtomicBool::new(false)) {
        Ok(installed) => {
            if let Err(error) = mark(&folder, &installed) {
                tracing::debug!(%error, "the look at the speech environment could not be kept");
            }
            Standing::Ready(installed)
        }
        Err(reason) => Standing::Broken(format!("the Python it was made with has changed ({reason})")),
    }
}

/// GPU libraries that came as packages: their folders are not on the loader's path by themselves (audio contract 7.1).
pub(super) fn library_folders(python: &Path) -> Vec<PathBuf> {
    let Some(environment) = python.parent().and_then(Path::parent) else {
        return Vec::new();
    };
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|entry| {
            fs::read_dir(entry.path().join("site-packages").join("nvidia"))
                .into_iter()
                .flatten()
        })
        .flatten()
        .map(|package| package.path().join("lib"))
        .filter(|folder| folder.is_dir())
        .collect();
    folders.sort();
    folders
}
