//! The speech engine of this machine: one interpreter for everybody who asks, made at most once at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use domain::ModelEntry;
use serde::Serialize;
use tokio::sync::watch;

use super::environment::{self, EnvironmentRecipe, Installed, Standing};
use super::install::InstallProgress;
use super::{SpeechProgram, SpeechSettings, program_files, python};
use crate::EngineError;

/// Names an interpreter for this user, where the settings name none.
pub const PYTHON_VARIABLE: &str = "LLAMARUNNER_SPEECH_PYTHON";

/// How long lists show a fault of a named interpreter before it is asked again.
const FAULT_AGE: Duration = Duration::from_secs(10);

/// How the speech engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeechState {
    /// Not installed yet.
    Missing,
    /// Being installed.
    Installing,
    /// Can be used.
    Ready,
    /// Installed or named, and cannot be used.
    Broken,
}

/// The speech engine as lists and `doctor` show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeechInfo {
    /// How it stands.
    pub state: SpeechState,
    /// 0 to 1 while it is being installed.
    pub progress: Option<f32>,
    /// The interpreter.
    pub python: Option<PathBuf>,
    /// Its version.
    pub python_version: Option<String>,
    /// Version of faster-whisper.
    pub faster_whisper: Option<String>,
    /// Setting or variable that names the interpreter; none: our own environment.
    pub named_by: Option<&'static str>,
    /// The system's espeak-ng; without it the one in the environment speaks.
    pub espeak_ng: Option<PathBuf>,
    /// Why it cannot be used, and what to do.
    pub error: Option<String>,
}

/// Keeps installations under way and what was asked of a named interpreter.
#[derive(Debug, Default)]
pub(crate) struct SpeechEngine {
    flights: Mutex<HashMap<PathBuf, Arc<Flight>>>,
    /// What a named interpreter answered, for as long as the program is the same.
    asked: Mutex<Option<Asked>>,
}

#[derive(Debug)]
struct Asked {
    python: PathBuf,
    modified: SystemTime,
    at: Instant,
    answer: Result<Installed, String>,
}

/// An interpreter that somebody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    python: PathBuf,
    by: &'static str,
}

impl Named {
    /// The setting first, then the environment.
    pub(crate) fn of(settings: &SpeechSettings) -> Option<Self> {
        let by_setting = settings.python.as_deref().map(|python| Self {
            python: interpreter(python),
            by: "engines.faster_whisper.python",
        });
        by_setting.or_else(|| {
            Some(Self {
                python: interpreter(settings.python_by_variable.as_deref()?),
                by: PYTHON_VARIABLE,
            })
        })
    }
}

/// A program, a folder that is an environment, or a bare name in `PATH`.
fn interpreter(named: &Path) -> PathBuf {
    if named.is_dir() {
        return python::inside(named);
    }
    let is_bare = named.components().nth(1).is_none() && !named.exists();
    let found = is_bare.then(|| python::search(&named.to_string_lossy())).flatten();
    found.unwrap_or_else(|| named.to_owned())
}

/// An installation that runs, for everybody who waits for it.
#[derive(Debug)]
struct Flight {
    cancel: AtomicBool,
    waiting: AtomicUsize,
    progress: watch::Sender<f32>,
    outcome: watch::Sender<Option<Result<Installed, EngineError>>>,
}

/// Somebody who waits; when the last one leaves, the installation is cancelled.
struct Waiter(Arc<Flight>);

impl Waiter {
    fn on(flight: &Arc<Flight>) -> Self {
        flight.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(flight))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.cancel.store(true, Ordering::SeqCst);
        }
    }
}

impl SpeechEngine {
    /// What starts this model, installed first where that is missing and wanted.
    pub(crate) async fn program(
        self: &Arc<Self>,
        entry: &ModelEntry,
        settings: &SpeechSettings,
        cache_dir: &Path,
        named: Option<Named>,
        progress: impl FnMut(f32) + Send,
    ) -> Result<SpeechProgram, EngineError> {
        let recipe = EnvironmentRecipe {
            tools: settings.tools.clone(),
            ..EnvironmentRecipe::for_model(entry)
        };
        let (installed, installed_now) = if let Some(named) = named {
            let this = Arc::clone(self);
            let asked =
                blocking(move || Ok(this.ask_named(&named, &recipe, true).map_err(|reason| (named, reason)))).await?;
            let installed = asked.map_err(|(named, reason)| EngineError::SpeechNamed {
                origin: named.by,
                reason,
            })?;
            (installed, false)
        } else {
            let (look, cache) = (recipe.clone(), cache_dir.to_owned());
            let standing = blocking(move || Ok(environment::standing(&look, &cache))).await?;
            match standing {
                Standing::Ready(installed) => (installed, false),
                Standing::Missing | Standing::Broken(_) if settings.auto_install && recipe.automatic => {
                    (self.install(recipe, cache_dir, progress).await?, true)
                }
                Standing::Missing => return Err(EngineError::SpeechMissing { name: recipe.name }),
                Standing::Broken(reason) => {
                    return Err(EngineError::SpeechBroken {
                        name: recipe.name,
                        reason,
                    });
                }
            }
        };
        let root = environment::root(cache_dir);
        blocking(move || {
            Ok(SpeechProgram {
                script: program_files::write(&root)?,
                libraries: environment::library_folders(&installed.python),
                python: installed.python,
                installed_now,
            })
        })
        .await
    }

    /// Installs, or waits for the installation under way. Cancelled when the last who waits leaves.
    pub(crate) async fn install(
        self: &Arc<Self>,
        recipe: EnvironmentRecipe,
        cache_dir: &Path,
        mut progress: impl FnMut(f32) + Send,
    ) -> Result<Installed, EngineError> {
        let folder = recipe.folder(cache_dir);
        loop {
            let (waiter, is_new) = self.join(&folder);
            if is_new {
                let (this, flight, recipe) = (Arc::clone(self), Arc::clone(&waiter.0), recipe.clone());
                let (cache, folder) = (cache_dir.to_owned(), folder.clone());
                // Not awaited: it outlives this caller by the moment that cancelling takes.
                tokio::task::spawn_blocking(move || {
                    let told = |step: InstallProgress| {
                        flight.progress.send_replace(step.fraction);
                    };
                    let outcome = recipe.install(&cache, &flight.cancel, &told);
                    this.flights().remove(&folder);
                    flight.outcome.send_replace(Some(outcome));
                });
            }
            let mut fractions = waiter.0.progress.subscribe();
            let mut outcome = waiter.0.outcome.subscribe();
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = outcome.wait_for(Option::is_some) => {
                        break ended.ok().and_then(|outcome| outcome.clone());
                    }
                    changed = fractions.changed() => {
                        if changed.is_ok() {
                            progress(*fractions.borrow_and_update());
                        }
                    }
                }
            };
            match ended {
                // The flight that was joined had just been given up by everybody else.
                Some(Err(EngineError::Cancelled)) if !is_new => {}
                Some(outcome) => return outcome,
                None => return Err(EngineError::Cancelled),
            }
        }
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, folder: &Path) -> (Waiter, bool) {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(folder) {
            return (Waiter::on(flight), false);
        }
        let flight = Arc::new(Flight {
            cancel: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            progress: watch::Sender::new(0.0),
            outcome: watch::Sender::new(None),
        });
        let waiter = Waiter::on(&flight);
        flights.insert(folder.to_owned(), flight);
        (waiter, true)
    }

    /// How the speech engine stands. The first look at a named interpreter starts it once; with `thorough` also the one
    /// that an environment would be made with, to tell what is in the way.
    pub(crate) async fn info(
        self: &Arc<Self>,
        settings: &SpeechSettings,
        cache_dir: &Path,
        named: Option<Named>,
        thorough: bool,
    ) -> SpeechInfo {
        let recipe = EnvironmentRecipe {
            tools: settings.tools.clone(),
            ..EnvironmentRecipe::speech()
        };
        let flight = self.flights().get(&recipe.folder(cache_dir)).cloned();
        let (this, cache, by) = (
            Arc::clone(self),
            cache_dir.to_owned(),
            named.as_ref().map(|named| named.by),
        );
        let auto_install = settings.auto_install;
        let looked = blocking(move || {
            let standing = match &named {
                Some(named) => match this.ask_named(named, &recipe, false) {
                    Ok(installed) => Standing::Ready(installed),
                    Err(reason) => {
                        let origin = named.by;
                        Standing::Broken(EngineError::SpeechNamed { origin, reason }.to_string())
                    }
                },
                None => match environment::standing(&recipe, &cache) {
                    Standing::Broken(reason) => {
                        let name = recipe.name.clone();
                        Standing::Broken(EngineError::SpeechBroken { name, reason }.to_string())
                    }
                    other => other,
                },
            };
            let espeak_ng = python::search(&format!("espeak-ng{}", std::env::consts::EXE_SUFFIX));
            let fault = match standing {
                Standing::Missing if thorough => python::find(&recipe.tools).err().map(|error| error.to_string()),
                Standing::Missing | Standing::Ready(_) | Standing::Broken(_) => None,
            };
            Ok((standing, espeak_ng, fault))
        })
        .await;
        let mut info = SpeechInfo {
            state: SpeechState::Missing,
            progress: None,
            python: None,
            python_version: None,
            faster_whisper: None,
            named_by: by,
            espeak_ng: None,
            error: None,
        };
        match looked {
            Ok((standing, espeak_ng, fault)) => {
                info.espeak_ng = espeak_ng;
                match standing {
                    Standing::Missing => {
                        let how = || {
                            let name = EnvironmentRecipe::speech().name;
                            (!auto_install).then(|| EngineError::SpeechMissing { name }.to_string())
                        };
                        info.error = fault.or_else(how);
                    }
                    Standing::Ready(installed) => {
                        info.state = SpeechState::Ready;
                        info.python = Some(installed.python);
                        info.python_version = Some(installed.python_version);
                        info.faster_whisper = Some(installed.faster_whisper);
                    }
                    Standing::Broken(reason) => {
                        info.state = SpeechState::Broken;
                        info.error = Some(reason);
                    }
                }
            }
            Err(error) => info.error = Some(error.to_string()),
        }
        if let Some(flight) = flight.filter(|_| info.state != SpeechState::Ready) {
            info.state = SpeechState::Installing;
            info.progress = Some(*flight.progress.borrow());
            info.error = None;
        }
        info
    }

    /// Asks the interpreter that somebody named, once per state of the program. A fault may be mended without changing the
    /// interpreter, by installing a package: it is asked again every few seconds, with `fresh` at once.
    fn ask_named(&self, named: &Named, recipe: &EnvironmentRecipe, fresh: bool) -> Result<Installed, String> {
        let modified = std::fs::metadata(&named.python)
            .and_then(|meta| meta.modified())
            .map_err(|error| format!("it cannot be read ({})", error.kind()))?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*asked
            && (&known.python, known.modified) == (&named.python, modified)
            && (known.answer.is_ok() || !fresh && known.at.elapsed() < FAULT_AGE)
        {
            return known.answer.clone();
        }
        let answer = environment::ask(&named.python, recipe, false, &AtomicBool::new(false));
        *asked = Some(Asked {
            python: named.python.clone(),
            modified,
            at: Instant::now(),
            answer: answer.clone(),
        });
        answer
    }
}

/// File work and short programs away from the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::io("Looking for", "python3")(std::io::Error::other(error))),
    }
}

#[cfg(test)]
#[path = "info_tests.rs"]
mod tests;
