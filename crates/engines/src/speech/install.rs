//! Making an environment: a folder beside the final one, packages by the lock, an import as proof, one rename.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use hardware::Hardware;

use super::environment::{self, EnvironmentRecipe, Installed, Standing};
use super::python::{self, Python};
use crate::EngineError;
use crate::process::{self, check_cancel, quiet, remove_tree};

/// A step of the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstallStep {
    /// Another process installs; waiting for it.
    Waiting,
    /// Looking for Python and disk space.
    Python,
    /// Making an empty environment.
    Environment,
    /// Fetching and unpacking packages.
    Packages,
    /// Loading them once.
    Check,
    /// Moving it into place.
    Install,
}

impl InstallStep {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for another installation",
            Self::Python => "looking for Python",
            Self::Environment => "making the environment",
            Self::Packages => "fetching packages",
            Self::Check => "testing the result",
            Self::Install => "installing",
        }
    }

    fn starts_at(self) -> f32 {
        match self {
            Self::Waiting | Self::Python => 0.0,
            Self::Environment => 0.01,
            Self::Packages => PACKAGES_START,
            Self::Check => PACKAGES_END,
            Self::Install => 0.99,
        }
    }
}

const PACKAGES_START: f32 = 0.05;
/// When the last package has been fetched, and unpacking begins.
const FETCHED: f32 = 0.75;
const PACKAGES_END: f32 = 0.93;

/// How far an installation is.
#[derive(Debug, Clone, PartialEq)]
pub struct InstallProgress {
    /// The step that runs.
    pub step: InstallStep,
    /// Share of the whole work done, 0 to 1; never falls.
    pub fraction: f32,
    /// One line for people, for example `fetching packages (av, 38 MB)`.
    pub message: String,
}

impl EnvironmentRecipe {
    /// Makes the environment below `cache_dir` unless it is there and works. Blocking: a minute, or as long as fetching
    /// 150 MB takes. Two processes make it once (file lock). Setting `cancel` from another thread ends the running tool
    /// within a moment; what was fetched stays in the tool's own cache.
    ///
    /// # Errors
    /// [`EngineError::SpeechPython`], [`EngineError::SpeechDisk`], [`EngineError::SpeechInstall`] with what to do,
    /// [`EngineError::Cancelled`], or [`EngineError::Io`].
    pub fn install(
        &self,
        cache_dir: &Path,
        cancel: &AtomicBool,
        progress: &dyn Fn(InstallProgress),
    ) -> Result<Installed, EngineError> {
        if let Standing::Ready(installed) = environment::standing(self, cache_dir) {
            return Ok(installed);
        }
        let root = environment::root(cache_dir);
        fs::create_dir_all(&root).map_err(EngineError::io("Creating", &root))?;
        let _lock = process::lock(&root.join(format!(".{}.lock", self.name)), cancel, &mut || {
            progress(InstallProgress {
                step: InstallStep::Waiting,
                fraction: 0.0,
                message: "waiting for another process that installs the speech engine".into(),
            });
        })?;
        // The process that held the lock may have made it.
        if let Standing::Ready(installed) = environment::standing(self, cache_dir) {
            return Ok(installed);
        }
        Installer::new(self, cache_dir, cancel, progress)?.run()
    }
}

struct Installer<'a> {
    recipe: &'a EnvironmentRecipe,
    root: PathBuf,
    folder: PathBuf,
    /// Beside the final folder, so that the last rename stays on one disk.
    work: PathBuf,
    log_path: PathBuf,
    log: File,
    cancel: &'a AtomicBool,
    progress: &'a dyn Fn(InstallProgress),
    done: Cell<f32>,
}

/// Which program fills the environment.
#[derive(Clone, Copy)]
enum With<'a> {
    Uv(&'a Path),
    Pip,
}

impl<'a> Installer<'a> {
    fn new(
        recipe: &'a EnvironmentRecipe,
        cache_dir: &Path,
        cancel: &'a AtomicBool,
        progress: &'a dyn Fn(InstallProgress),
    ) -> Result<Self, EngineError> {
        let root = environment::root(cache_dir);
        let folder = recipe.folder(cache_dir);
        let log_path = root.join(format!("{}.log", recipe.name));
        let log = File::create(&log_path).map_err(EngineError::io("Creating", &log_path))?;
        Ok(Self {
            recipe,
            work: folder.with_extension("new"),
            folder,
            root,
            log_path,
            log,
            cancel,
            progress,
            done: Cell::new(0.0),
        })
    }

    fn run(mut self) -> Result<Installed, EngineError> {
        self.say(InstallStep::Python, None);
        let python = python::find(&self.recipe.tools)?;
        self.check_disk()?;
        let made = self.make(&python);
        if made.is_err() {
            // Half an environment is of no use to the next try; the archives are in the tool's own cache.
            let _ = remove_tree(&self.work);
        }
        made
    }

    fn make(&mut self, python: &Python) -> Result<Installed, EngineError> {
        let uv = self.recipe.tools.uv.clone();
        match &uv {
            None => self.fill(python, With::Pip)?,
            Some(uv) => match self.fill(python, With::Uv(uv)) {
                // A broken `uv` must not be in the way where Python's own tools would do.
                Err(EngineError::SpeechInstall { reason, .. }) if !is_final(&reason) => {
                    tracing::warn!(reason, "uv failed, trying pip");
                    self.fill(python, With::Pip)?;
                }
                other => other?,
            },
        }
        self.say(InstallStep::Check, None);
        check_cancel(self.cancel)?;
        let asked = environment::ask(&python::inside(&self.work), self.recipe, true, self.cancel);
        check_cancel(self.cancel)?;
        let installed = asked.map_err(|reason| {
            // Best effort: the reason is told in any case.
            let _ = writeln!(self.log, "the packages do not load: {reason}");
            self.fault(format!("the packages do not load: {reason}"))
        })?;
        environment::mark(&self.work, &installed)?;
        self.say(InstallStep::Install, None);
        remove_tree(&self.folder)?;
        fs::rename(&self.work, &self.folder).map_err(EngineError::io("Installing into", &self.folder))?;
        self.remove_older();
        self.done.set(1.0);
        self.say(InstallStep::Install, None);
        tracing::info!(
            name = self.recipe.name,
            python = python.version,
            "the speech engine is installed"
        );
        Ok(Installed {
            python: python::inside(&self.folder),
            ..installed
        })
    }

    fn say(&self, step: InstallStep, detail: Option<(f32, String)>) {
        let (fraction, message) = match detail {
            Some((fraction, text)) => (fraction, format!("{} ({text})", step.title())),
            None => (step.starts_at(), step.title().to_owned()),
        };
        let fraction = fraction.max(self.done.get());
        self.done.set(fraction);
        (self.progress)(InstallProgress {
            step,
            fraction,
            message,
        });
    }

    fn fault(&self, reason: impl Into<String>) -> EngineError {
        EngineError::SpeechInstall {
            reason: reason.into(),
            log: self.log_path.clone(),
        }
    }

    fn check_disk(&self) -> Result<(), EngineError> {
        match Hardware::new().disk_free(&self.root) {
            Some(free) if free < self.recipe.need_bytes => Err(EngineError::SpeechDisk {
                folder: self.root.clone(),
                need_mib: self.recipe.need_bytes >> 20,
                free_mib: free >> 20,
            }),
            _ => Ok(()),
        }
    }

    fn tool(&mut self, mut command: Command, on_line: &mut dyn FnMut(&str)) -> Result<(), EngineError> {
        check_cancel(self.cancel)?;
        match process::run(&mut command, &mut self.log, self.cancel, on_line) {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(self.fault(self.reason())),
            Ok(Err(cancelled)) => Err(cancelled),
            Err(error) => {
                let name = command.get_program().to_string_lossy().into_owned();
                Err(self.fault(format!("{name} could not be run ({error})")))
            }
        }
    }

    /// Why the tool failed, from its output.
    fn reason(&self) -> String {
        let output = fs::read_to_string(&self.log_path).unwrap_or_default().to_lowercase();
        known_reason(&output).map_or_else(|| process::last_words(&self.log_path), str::to_owned)
    }

    fn fill(&mut self, python: &Python, with: With<'_>) -> Result<(), EngineError> {
        self.say(InstallStep::Environment, None);
        remove_tree(&self.work)?;
        let mut create = match with {
            With::Uv(uv) => {
                let mut create = tool(uv);
                create
                    .args(["venv", "--no-project", "--python"])
                    .arg(&python.executable);
                create
            }
            With::Pip => {
                let mut create = tool(&python.executable);
                // Isolated: the folder that the app was started in may hold modules of its own.
                create.args(["-I", "-m", "venv"]);
                create
            }
        };
        create.arg(&self.work);
        self.tool(create, &mut |_| {})?;
        let lock = self.work.join("requirements.txt");
        fs::write(&lock, &self.recipe.lock).map_err(EngineError::io("Writing", &lock))?;

        self.say(InstallStep::Packages, None);
        let inside = python::inside(&self.work);
        let mut install = match with {
            With::Uv(uv) => {
                let mut install = tool(uv);
                install.args(["pip", "install", "--python"]).arg(&inside);
                install
            }
            With::Pip => {
                let mut install = tool(&inside);
                install.args([
                    "-I",
                    "-m",
                    "pip",
                    "install",
                    "--disable-pip-version-check",
                    "--no-input",
                ]);
                install.args(["--progress-bar", "off"]);
                install
            }
        };
        // Wheels only: a source package would run its own code and want a compiler.
        install
            .args(["--require-hashes", "--only-binary", ":all:", "-r"])
            .arg(&lock);
        let (progress, done) = (self.progress, Cell::new(self.done.get()));
        let mut counter = Counter::new(self.recipe.packages());
        self.tool(install, &mut |line| {
            let Some((fraction, text)) = counter.line(line) else {
                return;
            };
            done.set(fraction.max(done.get()));
            progress(InstallProgress {
                step: InstallStep::Packages,
                fraction: done.get(),
                message: format!("{} ({text})", InstallStep::Packages.title()),
            });
        })?;
        self.done.set(done.get());
        Ok(())
    }

    /// Removes environments of older locks.
    fn remove_older(&self) {
        // Folders with another ending are somebody's own.
        let is_ours = |name: &str| {
            let hash = name
                .strip_prefix(&self.recipe.name)
                .and_then(|rest| rest.strip_prefix('-'));
            hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            let older = is_ours(&entry.file_name().to_string_lossy()) && path != self.folder;
            if older && let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(%error, "an older speech environment could not be removed");
            }
        }
    }
}

/// A tool of the installation. What a user has set for environments of their own must not lead it elsewhere; mirrors,
/// proxies and certificates count.
fn tool(program: &Path) -> Command {
    let mut command = quiet(&program.to_string_lossy());
    for name in [
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_USER",
        "PIP_REQUIREMENT",
        "UV_PROJECT",
        "UV_SYSTEM_PYTHON",
    ] {
        command.env_remove(name);
    }
    command
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONUTF8", "1")
        .env("UV_PYTHON_DOWNLOADS", "never")
        .env("UV_NO_PROGRESS", "1")
        .env("NO_COLOR", "1");
    command
}

const OFFLINE: &str = "the package index could not be reached. Connect to the internet, or set a mirror in pip's settings, and \
                       try again";
const OTHER_FILES: &str = "a package is not the expected one (its SHA-256 differs), so nothing was installed. Try again; if it \
                           stays so, the mirror or proxy in use changes files";
const NO_PACKAGE: &str = "the package index has no ready-made package for this system and Python. Install Python \
                          3.12 in place of it, or set `engines.faster_whisper.python` to one that has faster-whisper";
const DISK_FULL: &str = "the disk is full. Make room and try again";

/// Words of pip and uv, in lower case, and what they mean; the first that matches.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["do not match the hashes", "hash mismatch", "hashes are required"],
        OTHER_FILES,
    ),
    (&["no space left on device"], DISK_FULL),
    (
        &[
            "failed to establish a new connection",
            "temporary failure in name resolution",
            "name or service not known",
            "nodename nor servname",
            "getaddrinfo failed",
            "dns error",
            "error sending request",
            "failed to lookup address",
            "network is unreachable",
            "connection refused",
            "connection timed out",
            "read timed out",
            "could not fetch url",
            "max retries exceeded",
        ],
        OFFLINE,
    ),
    (
        &[
            "no matching distribution found",
            "no solution found",
            "is not a supported wheel on this platform",
            "doesn't have a source distribution or wheel",
            "has no usable wheels",
            "has no wheels with a matching",
        ],
        NO_PACKAGE,
    ),
];

fn known_reason(output: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|(phrases, _)| phrases.iter().any(|phrase| output.contains(phrase)))
        .map(|(_, reason)| *reason)
}

/// Another tool would fail the same way.
fn is_final(reason: &str) -> bool {
    [OFFLINE, OTHER_FILES, DISK_FULL].contains(&reason)
}

/// Follows the output of pip or uv.
struct Counter {
    packages: usize,
    fetched: usize,
}

impl Counter {
    fn new(packages: usize) -> Self {
        Self { packages, fetched: 0 }
    }

    /// How far the whole installation is after this line, and what the line says; `None`: it says nothing.
    fn line(&mut self, line: &str) -> Option<(f32, String)> {
        let line = line.trim();
        let at = |counter: &Self| {
            let share = (counter.fetched as f32 / counter.packages as f32).min(1.0);
            PACKAGES_START + (FETCHED - PACKAGES_START) * share
        };
        if let Some(rest) = line.strip_prefix("Collecting ") {
            self.fetched += 1;
            let name = rest.split(['=', ' ', '<', '>', ';', '[']).next().unwrap_or_default();
            return Some((at(self), name.to_owned()));
        }
        // pip: `Downloading av-17.1.0-cp311-….whl (38.2 MB)`; uv: `Downloading av (38.2MiB)`.
        if let Some(rest) = line.strip_prefix("Downloading ") {
            let (name, size) = rest.split_once(" (")?;
            let name = name.split('-').next().unwrap_or_default();
            return Some((at(self), format!("{name}, {}", size.trim_end_matches(')'))));
        }
        if let Some(rest) = line.strip_prefix("Downloaded ") {
            // uv tells it of the large ones only, of which there are about ten.
            self.fetched += self.packages.div_ceil(10);
            return Some((at(self), rest.split(' ').next().unwrap_or_default().to_owned()));
        }
        let unpacking = line.starts_with("Installing collected packages") || line.starts_with("Prepared ");
        if unpacking {
            return Some((FETCHED, "unpacking".into()));
        }
        let unpacked = line.starts_with("Successfully installed") || line.starts_with("Installed ");
        unpacked.then(|| (PACKAGES_END, "done".into()))
    }
}

#[cfg(test)]
#[path = "install_tests.rs"]
pub(super) mod tests;
