use std::fmt;
mod copies;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;

use crate::atomic_file::{WriteError, replace};
use crate::document::{Document, pretty, segments, set_path};
use crate::error::ConfigError;
use crate::overrides::Overrides;
use crate::parse::{Parsed, build};
use crate::section::Config;
use crate::validate::EngineRules;
use crate::watch::FileWatch;

use copies::{back_up, document, keep_last_good, parse_bytes, read_or_make};

/// Names one state of the file; also the HTTP `ETag`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Revision(String);

impl Revision {
    fn of(contents: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        contents.hash(&mut hasher);
        Self(format!("{:016x}", hasher.finish()))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Revision {
    fn from(text: &str) -> Self {
        Self(text.trim_matches('"').to_owned())
    }
}

/// An accepted change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The settings until now.
    pub old: Arc<Config>,
    /// The settings from now on.
    pub new: Arc<Config>,
    /// Top-level sections that differ.
    pub sections: Vec<String>,
    /// Warnings about the new file.
    pub warnings: Vec<String>,
}

/// What a subscriber hears.
#[derive(Debug, Clone)]
pub enum Update {
    /// New settings are in effect.
    Applied(Change),
    /// The file on disk was refused; the old settings stay. The sentence says why.
    Refused(String),
}

/// How the file stands (promise C1: shown in log, window and status).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigStatus {
    /// The file.
    pub path: PathBuf,
    /// False: the file on disk was refused and older settings are in effect.
    pub ok: bool,
    /// Why it was refused.
    pub error: Option<String>,
    /// What the user should know about the settings in effect.
    pub warnings: Vec<String>,
    /// The state of the file in effect.
    pub revision: Revision,
}

type Callback = Arc<dyn Fn(&Update) + Send + Sync>;

/// The one owner of a `config.json`: gives out snapshots, takes changes, notices edits. Clones share it.
#[derive(Clone)]
pub struct ConfigStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    overrides: Overrides,
    rules: EngineRules,
    snapshot: ArcSwap<Config>,
    status: Mutex<ConfigStatus>,
    /// Held for the whole of a change: there is one writer at a time (promise C3). Holds the bytes seen last.
    writer: Mutex<Vec<u8>>,
    subscribers: Mutex<(u64, Vec<(u64, Callback)>)>,
    watch: Mutex<Option<FileWatch>>,
}

/// Keeps a subscription; dropping it ends it.
#[must_use = "dropping it ends the subscription"]
pub struct Subscription {
    store: Weak<Inner>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(inner) = self.store.upgrade() {
            lock(&inner.subscribers).1.retain(|(id, _)| *id != self.id);
        }
    }
}

impl fmt::Debug for ConfigStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl ConfigStore {
    /// Opens a file and watches it. A missing file is made with the defaults; an empty, zero-filled or unreadable one is
    /// replaced by the last good copy, with a warning in [`ConfigStore::status`].
    ///
    /// # Errors
    /// The file is invalid, damaged without a good copy, or cannot be read or made.
    pub fn open(path: impl Into<PathBuf>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::open_with(path, overrides, EngineRules::default())
    }

    /// As [`ConfigStore::open`], with the engine crate's checks.
    ///
    /// # Errors
    /// As [`ConfigStore::open`].
    pub fn open_with(path: impl Into<PathBuf>, overrides: Overrides, rules: EngineRules) -> Result<Self, ConfigError> {
        let path = path.into();
        let (contents, restored) = read_or_make(&path, &overrides, &rules)?;
        let mut parsed = parse_bytes(&path, &contents, &overrides, &rules)?;
        parsed.warnings.extend(restored);
        if let Err(error) = keep_last_good(&path, &contents) {
            parsed
                .warnings
                .push(format!("cannot keep a good copy of {}: {error}", path.display()));
        }
        let status = ConfigStatus {
            path: path.clone(),
            ok: true,
            error: None,
            warnings: parsed.warnings,
            revision: Revision::of(&contents),
        };
        let inner = Arc::new(Inner {
            path,
            overrides,
            rules,
            snapshot: ArcSwap::from_pointee(parsed.config),
            status: Mutex::new(status),
            writer: Mutex::new(contents),
            subscribers: Mutex::new((0, Vec::new())),
            watch: Mutex::new(None),
        });
        let weak = Arc::downgrade(&inner);
        let check = move || {
            weak.upgrade().is_some_and(|inner| {
                inner.reload();
                true
            })
        };
        match FileWatch::start(&inner.path, check) {
            Ok(watch) => *lock(&inner.watch) = Some(watch),
            Err(reason) => {
                let problem = ConfigError::Watch {
                    path: inner.path.clone(),
                    reason,
                };
                lock(&inner.status).warnings.push(problem.to_string());
            }
        }
        Ok(Self { inner })
    }

    /// The settings in effect. Cheap; keep it for the length of one request.
    pub fn snapshot(&self) -> Arc<Config> {
        self.inner.snapshot.load_full()
    }

    /// How the file stands.
    pub fn status(&self) -> ConfigStatus {
        lock(&self.inner.status).clone()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Calls back after every accepted change and every refused file. The call is made while the change is being
    /// recorded: keep it short and do not change settings from it.
    pub fn subscribe(&self, callback: impl Fn(&Update) + Send + Sync + 'static) -> Subscription {
        let mut subscribers = lock(&self.inner.subscribers);
        subscribers.0 += 1;
        let id = subscribers.0;
        subscribers.1.push((id, Arc::new(callback)));
        Subscription {
            store: Arc::downgrade(&self.inner),
            id,
        }
    }

    /// Reads the file again now (SIGHUP). True when the file on disk is in effect afterwards.
    pub fn reload(&self) -> bool {
        self.inner.reload()
    }

    /// Changes one setting, named by JSON pointer, in the file and in effect. Everything else in the file, known or not,
    /// stays as it is. With `if_match`, only if the file is still in that state.
    ///
    /// # Errors
    /// The value is not acceptable (nothing is written), the file changed ([`ConfigError::Stale`]), the file on disk has
    /// an error that must be fixed by hand first, or writing failed.
    pub fn set(&self, pointer: &str, value: &Value, if_match: Option<&Revision>) -> Result<Revision, ConfigError> {
        self.inner.edit(pointer, Some(value), if_match)
    }

    /// Removes one setting from the file: its default is in effect again.
    ///
    /// # Errors
    /// As [`ConfigStore::set`].
    pub fn remove(&self, pointer: &str, if_match: Option<&Revision>) -> Result<Revision, ConfigError> {
        self.inner.edit(pointer, None, if_match)
    }
}

impl Inner {
    fn reload(&self) -> bool {
        let mut seen = lock(&self.writer);
        if let Some(watch) = lock(&self.watch).as_mut() {
            // A link may point elsewhere now. What cannot be watched is read again at the next event.
            let _ = watch.follow(&self.path);
        }
        let contents = match fs::read(&self.path) {
            Ok(contents) => contents,
            Err(source) => {
                self.refuse(
                    &ConfigError::Read {
                        path: self.path.clone(),
                        source,
                    }
                    .to_string(),
                );
                return false;
            }
        };
        if contents == *seen && lock(&self.status).ok {
            return true;
        }
        match parse_bytes(&self.path, &contents, &self.overrides, &self.rules) {
            Ok(parsed) => {
                self.accept(&mut seen, contents, parsed);
                true
            }
            Err(error) => {
                self.refuse(&error.to_string());
                false
            }
        }
    }

    fn edit(&self, pointer: &str, value: Option<&Value>, if_match: Option<&Revision>) -> Result<Revision, ConfigError> {
        let wrong_place = || ConfigError::Pointer(pointer.to_owned());
        let place = segments(pointer).ok_or_else(wrong_place)?;
        let mut seen = lock(&self.writer);
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = |source| ConfigError::Write {
            path: self.path.clone(),
            source,
        };
        // An edit by hand between our reading and writing starts the change anew on the edited file.
        for _ in 0..16 {
            let before = fs::read(&target).map_err(|source| ConfigError::Read {
                path: self.path.clone(),
                source,
            })?;
            let now = Revision::of(&before);
            if if_match.is_some_and(|wanted| *wanted != now) {
                return Err(ConfigError::Stale(now.0));
            }
            let mut document = document(&self.path, &before)?;
            if !set_path(&mut document.value, &place, value.cloned()) {
                return Err(wrong_place());
            }
            let text = pretty(&document.value);
            let document = Document::read(&document.file, &text)?;
            let parsed = build(&document, &self.overrides, &self.rules)?;
            if text.as_bytes() == before {
                return Ok(now);
            }
            match replace(&target, text.as_bytes(), Some(&before), || back_up(&target, &before)) {
                Ok(()) => {
                    self.accept(&mut seen, text.into_bytes(), parsed);
                    return Ok(Revision::of(&seen));
                }
                Err(WriteError::Changed) => {}
                Err(WriteError::Io(source)) => return Err(failed(source)),
            }
        }
        Err(failed(io::Error::other("the file keeps changing")))
    }

    /// Puts settings into effect and tells the subscribers. The caller holds the writer lock.
    fn accept(&self, seen: &mut MutexGuard<'_, Vec<u8>>, contents: Vec<u8>, mut parsed: Parsed) {
        if let Err(error) = keep_last_good(&self.path, &contents) {
            parsed
                .warnings
                .push(format!("cannot keep a good copy of {}: {error}", self.path.display()));
        }
        let was_ok = {
            let mut status = lock(&self.status);
            let was_ok = status.ok;
            status.ok = true;
            status.error = None;
            status.warnings.clone_from(&parsed.warnings);
            status.revision = Revision::of(&contents);
            was_ok
        };
        **seen = contents;
        let old = self.snapshot.load_full();
        let sections = differing_sections(&old, &parsed.config);
        if sections.is_empty() && was_ok {
            return;
        }
        let new = Arc::new(parsed.config);
        self.snapshot.store(Arc::clone(&new));
        self.tell(&Update::Applied(Change {
            old,
            new,
            sections,
            warnings: parsed.warnings,
        }));
    }

    fn refuse(&self, reason: &str) {
        {
            let mut status = lock(&self.status);
            if status.error.as_deref() == Some(reason) {
                return;
            }
            status.ok = false;
            status.error = Some(reason.to_owned());
        }
        self.tell(&Update::Refused(reason.to_owned()));
    }

    fn tell(&self, update: &Update) {
        // Called without the lock, so that a callback may subscribe or unsubscribe.
        let callbacks: Vec<Callback> = lock(&self.subscribers).1.iter().map(|(_, c)| Arc::clone(c)).collect();
        for callback in callbacks {
            callback(update);
        }
    }
}

/// A panic while the lock was held leaves plain data that is still right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn differing_sections(old: &Config, new: &Config) -> Vec<String> {
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (old, new) = (value(old), value(new));
    let Some(members) = new.as_object() else {
        return Vec::new();
    };
    members
        .iter()
        .filter(|(key, value)| old.get(key.as_str()) != Some(*value))
        .map(|(key, _)| key.clone())
        .collect()
}

#[cfg(test)]
mod tests;
