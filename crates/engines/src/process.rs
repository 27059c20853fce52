//! Runs one tool of a build or an installation: output into the log file and line by line to the caller, ended on cancel.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::EngineError;

/// How often a wish to cancel is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// How long a tool may take to end politely: ninja ends its compilers first.
const GRACE: Duration = Duration::from_secs(5);

/// The count a tool begins a line of its output with, as (done, of): `[57/211] Building CXX object …`,
/// `[  12/ 291] blk.1.attn_q.weight …`. Never done more than there is.
pub(crate) fn count(line: &str) -> Option<(u32, u32)> {
    let (done, rest) = line.trim_start().strip_prefix('[')?.split_once('/')?;
    let (of, _) = rest.split_once(']')?;
    let (done, of) = (done.trim().parse().ok()?, of.trim().parse().ok()?);
    (of > 0 && done <= of).then_some((done, of))
}

pub(crate) fn check_cancel(cancel: &AtomicBool) -> Result<(), EngineError> {
    if cancel.load(Ordering::Relaxed) {
        Err(EngineError::Cancelled)
    } else {
        Ok(())
    }
}

/// Runs `command` to its end. `on_line` gets each line of its output, of both pipes in the order they were written.
///
/// `Ok(false)`: it ran and failed; its words are in the log.
pub(crate) fn run(
    command: &mut Command,
    log: &mut File,
    cancel: &AtomicBool,
    on_line: &mut dyn FnMut(&str),
) -> io::Result<Result<bool, EngineError>> {
    writeln!(log, "\n$ {command:?}")?;
    let (output, writer) = io::pipe()?;
    let spawned = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn();
    // The command keeps its ends of the pipe, which would never end then.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned?;
    // The pipe is read on a thread of its own, so that a silent tool can be cancelled. The thread is not joined: it ends
    // with the pipe, which a stray grandchild may keep open.
    let (lines, received) = mpsc::sync_channel::<Vec<u8>>(256);
    std::thread::Builder::new()
        .name("engine-tool-output".into())
        .spawn(move || {
            let mut reader = BufReader::new(output);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if lines.send(line).is_err() => return,
                    Ok(_) => {}
                }
            }
        })?;
    loop {
        match received.recv_timeout(POLL) {
            Ok(line) => {
                log.write_all(&line)?;
                on_line(String::from_utf8_lossy(&line).trim_end());
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Ok(child.wait()?.success())),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(cancelled) = check_cancel(cancel) {
            end(&mut child);
            return Ok(Err(cancelled));
        }
    }
}

/// SIGTERM first: ninja then ends its compilers, which a SIGKILL would leave running. The standard library has no
/// signals, so the `kill` program sends it.
fn end(child: &mut Child) {
    let asked = Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .stderr(Stdio::null())
        .status();
    let until = Instant::now() + GRACE;
    while asked.as_ref().is_ok_and(std::process::ExitStatus::success) && Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL / 4);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The last words in the log, for the error message.
pub(crate) fn last_words(log: &Path) -> String {
    let tail = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(8192)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = tail().unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with("$ "))
        .collect();
    let telling = lines.iter().rev().find(|line| line.to_lowercase().contains("error"));
    let line = telling.or(lines.last()).copied().unwrap_or("it said nothing");
    telemetry::clean_line(line.trim_end_matches('.').as_bytes())
        .chars()
        .take(300)
        .collect()
}

pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EngineError::io("Removing", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

pub(crate) fn quiet(program: &str) -> Command {
    let mut command = nice(program);
    // A virtual environment that is active in the user's shell must not leak into ours.
    command
        .env_remove("VIRTUAL_ENV")
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONPATH")
        .env("PYTHONNOUSERSITE", "1");
    command
}

/// At low priority where the system has `nice`: a build must not make the desktop stutter.
pub(crate) fn nice(program: &str) -> Command {
    if succeeds(Command::new("nice").arg("true")) {
        let mut command = Command::new("nice");
        command.args(["-n", "10", program]);
        command
    } else {
        Command::new(program)
    }
}

/// Waits for the lock; `waiting` is told at every look. Held until dropped; the system frees it when the process ends in any
/// way.
pub(crate) fn lock(path: &Path, cancel: &AtomicBool, waiting: &mut dyn FnMut()) -> Result<File, EngineError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(EngineError::io("Opening", path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                waiting();
                check_cancel(cancel)?;
                std::thread::sleep(POLL);
            }
            Err(fs::TryLockError::Error(error)) => return Err(EngineError::io("Locking", path)(error)),
        }
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        })
}
