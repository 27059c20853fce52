use std::collections::BTreeMap;
use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::{EngineKind, ModelEntry};
use tokio::sync::Mutex;

use crate::build::BuildRecipe;
use crate::custom::{CustomProgram, CustomSettings};
use crate::probe::{self, Stamp};
use crate::speech::{Named, SpeechEngine, SpeechInfo, SpeechSettings};
use crate::{EngineBinary, EngineError, Program};

/// Names a program for this user, where the config names none.
const ENVIRONMENT: &str = "LLAMARUNNER_LLAMA_SERVER";

/// How long a program may take to say what it is. A first start with GPU drivers takes seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// What the product settings say about engines (`engines.*`) and where files lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineSettings {
    /// `engines.llama_server.path`: use this program (or the one in this folder) and no other.
    pub path: Option<PathBuf>,
    /// `engines.llama_server.args`: arguments for every model, checked with [`crate::reserved_flag`].
    pub args: Vec<String>,
    /// `engines.llama_server.env`: environment for every model, checked with [`crate::reserved_setting_env`].
    pub env: BTreeMap<String, String>,
    /// `$XDG_CACHE_HOME/llama-runner`.
    pub cache_dir: PathBuf,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `engines.faster_whisper`.
    pub speech: SpeechSettings,
    /// `engines.custom`, by name.
    pub custom: BTreeMap<String, CustomSettings>,
}

/// Where an engine program came from, in the order in which they are tried (engine guide 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `engines.llama_server.path`. A fault here is reported, never worked around.
    Config,
    /// `LLAMARUNNER_LLAMA_SERVER`. Likewise.
    Environment,
    /// A release in `<data>/engines/llama.cpp/<name>/`. Nothing puts one there yet: downloads come with a later issue.
    Downloaded,
    /// Built by [`crate::build`] in `<cache>/engines/llama.cpp/<name>/`.
    Built,
    /// The user's `PATH`.
    Path,
}

/// What the surroundings of the process say; apart from [`EngineSettings`] for tests.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    named: Option<OsString>,
    path: Option<OsString>,
}

impl Surroundings {
    fn here() -> Self {
        Self {
            named: std::env::var_os(ENVIRONMENT).filter(|v| !v.is_empty()),
            path: std::env::var_os("PATH"),
        }
    }
}

/// The engines of this machine. Clones share what was found.
#[derive(Debug, Clone)]
pub struct Engines {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: RwLock<Arc<EngineSettings>>,
    /// Held over a probe, so that concurrent callers share it.
    found: Mutex<Option<(Stamp, Arc<EngineBinary>)>>,
    speech: Arc<SpeechEngine>,
}

impl Engines {
    /// Nothing is looked up yet.
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: RwLock::new(Arc::new(settings)),
                found: Mutex::new(None),
                speech: Arc::default(),
            }),
        }
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<EngineSettings> {
        Arc::clone(&self.inner.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New settings, from the next [`Engines::llama_server`] on.
    pub fn apply(&self, settings: EngineSettings) {
        *self.inner.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The llama-server to use. Looked for at every call (some file checks), probed once per file state; concurrent
    /// callers share one probe, and the result is kept on disk.
    ///
    /// # Errors
    /// [`EngineError::Missing`] when there is none, [`EngineError::BadPath`] or [`EngineError::Probe`] when the one that
    /// was named, or every one that was found, cannot be used.
    pub async fn llama_server(&self) -> Result<Arc<EngineBinary>, EngineError> {
        self.llama_server_in(Surroundings::here()).await
    }

    /// What runs `entry`. A speech engine that is missing is installed first, where the settings want that: `progress`
    /// hears how far it is, 0 to 1. Callers share one installation, and it is cancelled when the last of them drops this
    /// future.
    ///
    /// # Errors
    /// As [`Engines::llama_server`]; the `Speech…` faults of [`EngineError`]; [`EngineError::Custom`].
    pub async fn program(&self, entry: &ModelEntry, progress: impl FnMut(f32) + Send) -> Result<Program, EngineError> {
        match entry.engine {
            EngineKind::LlamaServer => self.llama_server().await.map(Program::LlamaServer),
            EngineKind::FasterWhisper | EngineKind::Speech => {
                let settings = self.settings();
                let named = Named::of(&settings.speech);
                let speech = &self.inner.speech;
                let program = speech.program(entry, &settings.speech, &settings.cache_dir, named, progress);
                program.await.map(Program::Speech)
            }
            EngineKind::Custom => CustomProgram::of(entry, &self.settings().custom).map(Program::Custom),
        }
    }

    /// How the speech engine stands. `thorough`: also what would keep it from being installed, which starts a Python.
    pub async fn speech_info(&self, thorough: bool) -> SpeechInfo {
        let settings = self.settings();
        let named = Named::of(&settings.speech);
        let speech = &self.inner.speech;
        speech
            .info(&settings.speech, &settings.cache_dir, named, thorough)
            .await
    }

    async fn llama_server_in(&self, surroundings: Surroundings) -> Result<Arc<EngineBinary>, EngineError> {
        let settings = self.settings();
        let mut found = self.inner.found.lock().await;
        let looked = Arc::clone(&settings);
        let candidates = blocking(move || candidates(&looked, &surroundings)).await?;
        let mut fault = None;
        for (_, path) in candidates {
            let cache_dir = settings.cache_dir.clone();
            let known = found.clone();
            let lookup = path.clone();
            let (stamp, cached) = blocking(move || {
                let stamp = Stamp::of(&lookup).map_err(EngineError::io("Reading", &lookup))?;
                let cached = match known {
                    Some((known, binary)) if known == stamp => Some(binary),
                    _ => probe::cached(&cache_dir, &stamp).map(Arc::new),
                };
                Ok((stamp, cached))
            })
            .await?;
            let binary = match cached {
                Some(binary) => binary,
                None => match probe::probe(&path, PROBE_LIMIT).await {
                    Ok(binary) => {
                        let binary = Arc::new(binary);
                        let (kept, key, cache_dir) = (Arc::clone(&binary), stamp.clone(), settings.cache_dir.clone());
                        blocking(move || {
                            if let Err(error) = probe::remember(&cache_dir, &key, &kept) {
                                tracing::debug!(%error, "the engine probe could not be kept");
                            }
                            Ok(())
                        })
                        .await?;
                        binary
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an engine was passed over");
                        fault.get_or_insert(error);
                        continue;
                    }
                },
            };
            *found = Some((stamp, Arc::clone(&binary)));
            return Ok(binary);
        }
        Err(fault.unwrap_or(EngineError::Missing))
    }
}

/// File work away from the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::Io {
            action: "Looking for",
            path: PathBuf::from("llama-server"),
            source: Arc::new(std::io::Error::other(error)),
        }),
    }
}

/// Every program worth trying, best first. One that the user named is the only one.
fn candidates(settings: &EngineSettings, surroundings: &Surroundings) -> Result<Vec<(Source, PathBuf)>, EngineError> {
    let named = |path: &Path, source, origin| match program(path, surroundings) {
        Some(program) => Ok(vec![(source, program)]),
        None => Err(EngineError::BadPath {
            path: path.to_owned(),
            origin,
        }),
    };
    if let Some(path) = &settings.path {
        return named(path, Source::Config, "engines.llama_server.path");
    }
    if let Some(path) = &surroundings.named {
        return named(Path::new(path), Source::Environment, ENVIRONMENT);
    }
    let mut found = Vec::new();
    let folder = |base: &Path| base.join("engines").join("llama.cpp");
    found.extend(installed(&folder(&settings.data_dir), "current").map(|p| (Source::Downloaded, p)));
    found.extend(installed(&folder(&settings.cache_dir), &BuildRecipe::pinned().key).map(|p| (Source::Built, p)));
    found.extend(in_path(surroundings).into_iter().map(|p| (Source::Path, p)));
    Ok(found)
}

fn file_name() -> String {
    format!("llama-server{EXE_SUFFIX}")
}

/// A file, a folder holding one, or a bare name in `PATH`.
fn program(path: &Path, surroundings: &Surroundings) -> Option<PathBuf> {
    if path.components().count() == 1 && !path.is_absolute() && !path.exists() {
        return search(surroundings, path);
    }
    let path = std::path::absolute(path).ok()?;
    if path.is_dir() {
        return Some(path.join(file_name())).filter(|p| is_executable(p));
    }
    Some(path).filter(|p| is_executable(p))
}

/// `<folder>/<name>/llama-server`: the preferred name first, then the highest build number.
fn installed(folder: &Path, preferred: &str) -> impl Iterator<Item = PathBuf> {
    let mut names: Vec<(bool, u64, OsString)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .map(|name| {
            let text = name.to_string_lossy().into_owned();
            let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
            let digits = &digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())];
            (text == preferred, digits.parse().unwrap_or(0), name)
        })
        .collect();
    names.sort_by(|a, b| b.cmp(a));
    let folder = folder.to_owned();
    names
        .into_iter()
        .map(move |(_, _, name)| folder.join(name).join(file_name()))
        .filter(|path| is_executable(path))
}

fn in_path(surroundings: &Surroundings) -> Option<PathBuf> {
    search(surroundings, Path::new(&file_name()))
}

fn search(surroundings: &Surroundings, name: &Path) -> Option<PathBuf> {
    let path = surroundings.path.as_ref()?;
    // Relative entries would make the engine depend on the folder the app was started in.
    std::env::split_paths(path)
        .filter(|p| p.is_absolute())
        .map(|p| p.join(name))
        .find(|p| is_executable(p))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
