//! Finding a Python to make an environment with, and asking one what it is.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::EngineError;

/// Versions the packages have wheels for (audio contract 7.1).
pub const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// See [`OLDEST_PYTHON`].
pub const NEWEST_PYTHON: (u32, u32) = (3, 14);

/// How long an interpreter may take to say what it is; the first start after an update compiles its library.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// The same when it loads 200 MB of libraries from a slow disk for the first time.
pub(super) const IMPORT_LIMIT: Duration = Duration::from_mins(5);

/// Programs that make an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tools {
    /// Commands that may start a Python, in the order they are tried.
    pub pythons: Vec<Vec<OsString>>,
    /// `uv`, which is faster than Python's own tools.
    pub uv: Option<PathBuf>,
}

impl Tools {
    /// What `PATH` has: the Python of the system first, then the named versions, on Windows the launcher.
    pub fn here() -> Self {
        let mut pythons: Vec<Vec<OsString>> = Vec::new();
        if cfg!(windows) {
            pythons.push(vec!["py".into(), "-3".into()]);
            pythons.push(vec!["python".into()]);
        }
        pythons.push(vec!["python3".into()]);
        let newest_first = (OLDEST_PYTHON.1..=NEWEST_PYTHON.1).rev();
        pythons.extend(newest_first.map(|minor| vec![format!("python3.{minor}").into()]));
        Self {
            pythons,
            uv: search(&format!("uv{}", std::env::consts::EXE_SUFFIX)),
        }
    }
}

/// A program in the app's `PATH`. Relative entries are left out: they would depend on the folder the app was started in.
pub(super) fn search(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// A Python that an environment can be made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Python {
    pub(super) executable: PathBuf,
    pub(super) version: String,
}

#[derive(Deserialize)]
struct Answer {
    version: (u32, u32, u32),
    executable: PathBuf,
    venv: bool,
    tag: String,
    gil: bool,
}

const QUESTION: &str = "\
import json, sys, sysconfig
try:
    import venv, ensurepip
    made = True
except Exception:
    made = False
print(json.dumps({'version': list(sys.version_info[:3]), 'executable': sys.executable, 'venv': made,
    'tag': sysconfig.get_config_var('SOABI') or '', 'gil': not sysconfig.get_config_var('Py_GIL_DISABLED')}))";

/// The first Python that will do.
///
/// # Errors
/// [`EngineError::SpeechPython`] that says what was found instead and what to install.
pub(super) fn find(tools: &Tools) -> Result<Python, EngineError> {
    let mut seen: Vec<String> = Vec::new();
    let mut lacks_venv = None;
    for command in &tools.pythons {
        let Some(answer) = ask::<Answer>(command, QUESTION) else {
            continue;
        };
        let (major, minor, patch) = answer.version;
        let version = format!("{major}.{minor}.{patch}");
        if answer.tag.contains("musl") {
            return Err(EngineError::SpeechPython(
                "there are no ready-made packages for this system (musl, as in Alpine Linux). Run LlamaRunner on a system with \
                 glibc, such as Debian, or set `engines.faster_whisper.python` to a Python that has faster-whisper"
                    .into(),
            ));
        }
        if !(OLDEST_PYTHON..=NEWEST_PYTHON).contains(&(major, minor)) {
            seen.push(version);
        } else if !answer.gil {
            seen.push(format!("{version} without GIL"));
        } else if tools.uv.is_none() && !answer.venv {
            lacks_venv.get_or_insert((version, minor));
        } else {
            return Ok(Python {
                executable: answer.executable,
                version,
            });
        }
    }
    Err(EngineError::SpeechPython(match lacks_venv {
        Some((version, minor)) => {
            format!(
                "Python {version} was found without its venv module. {}",
                advice(&format!("python3-venv python3.{minor}-venv"))
            )
        }
        None if seen.is_empty() => format!("no Python was found. {}", advice("python3 python3-venv")),
        None => {
            seen.dedup();
            let found = seen.join(", ");
            format!(
                "Python {found} was found, and there are packages for {}.{} to {}.{} only. Install one of these; nothing else \
                 on this system changes by it",
                OLDEST_PYTHON.0, OLDEST_PYTHON.1, NEWEST_PYTHON.0, NEWEST_PYTHON.1
            )
        }
    }))
}

/// How to get what is missing.
fn advice(packages: &str) -> String {
    match std::env::consts::OS {
        "windows" => "Install Python from python.org or the Microsoft Store".into(),
        "macos" => "Install Python from python.org, or with: brew install python".into(),
        _ => format!("Install with: sudo apt-get install {packages}"),
    }
}

/// Runs `question` in the interpreter, apart from the user's own packages, and reads the JSON it prints. `None`: it is not
/// there or gave no such answer in time.
pub(super) fn ask<T: serde::de::DeserializeOwned>(command: &[OsString], question: &str) -> Option<T> {
    let answer = output(command, question, LIMIT, &AtomicBool::new(false)).ok()?;
    serde_json::from_slice(&answer).ok()
}

/// What the question printed; else its last words. Ended when `cancel` is set.
pub(super) fn output(
    command: &[OsString],
    question: &str,
    limit: Duration,
    cancel: &AtomicBool,
) -> Result<Vec<u8>, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("it has no name".into());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .args(["-I", "-c", question])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it cannot be started ({error})"))?;
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until && !cancel.load(Ordering::Relaxed) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not answer within {} s", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let mut text = Vec::new();
    if status.success() {
        // A few hundred bytes: the pipe holds them all.
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut text).map_err(|error| error.to_string())?;
        }
        return Ok(text);
    }
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    Err(line.unwrap_or("it said nothing").chars().take(200).collect())
}

/// The interpreter inside an environment.
pub(super) fn inside(environment: &Path) -> PathBuf {
    if cfg!(windows) {
        environment.join("Scripts").join("python.exe")
    } else {
        environment.join("bin").join("python")
    }
}
