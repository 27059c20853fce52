//! Runs one tool of the build: output into the log file and line by line to the caller, ended on cancel.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::EngineError;

/// How often a wish to cancel is looked at.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// How long a tool may take to end politely: ninja ends its compilers first.
const GRACE: Duration = Duration::from_secs(5);

pub(super) fn check_cancel(cancel: &AtomicBool) -> Result<(), EngineError> {
    if cancel.load(Ordering::Relaxed) {
        Err(EngineError::Cancelled)
    } else {
        Ok(())
    }
}

/// Runs `command` to its end. `on_line` gets each line of its stdout.
///
/// `Ok(false)`: it ran and failed; its words are in the log.
pub(super) fn run(
    command: &mut Command,
    log: &mut File,
    cancel: &AtomicBool,
    on_line: &mut dyn FnMut(&str),
) -> std::io::Result<Result<bool, EngineError>> {
    writeln!(log, "\n$ {command:?}")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()?;
    let Some(stdout) = child.stdout.take() else {
        return Err(std::io::Error::other("no pipe"));
    };
    // The pipe is read on a thread of its own, so that a silent tool can be cancelled. The thread is not joined: it ends
    // with the pipe, which a stray grandchild may keep open.
    let (lines, received) = mpsc::sync_channel::<Vec<u8>>(256);
    std::thread::Builder::new()
        .name("engine-build-output".into())
        .spawn(move || {
            let mut reader = BufReader::new(stdout);
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
pub(super) fn last_words(log: &Path) -> String {
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
