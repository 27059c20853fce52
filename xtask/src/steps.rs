//! Running commands with progress, and remembering what has been done.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The repository's root folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// `$XDG_CACHE_HOME/llama-runner`: what can be rebuilt (engine builds, Python environments).
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("llama-runner"))
}

/// Cargo's target folder of this checkout.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Says what is about to happen.
pub(crate) fn say(text: &str) {
    println!("\n\x1b[1m▸ {text}\x1b[0m");
}

/// Says a detail.
pub(crate) fn note(text: &str) {
    println!("  {text}");
}

/// A command run in the repository's root with its output on our terminal.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Cargo as it was called.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end; an exit status other than 0 is an error naming the command.
pub(crate) fn must(command: &mut Command) -> Result<()> {
    let text = describe(command);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("could not start {text}"))?;
    if !status.success() {
        bail!("{text} failed ({status})");
    }
    note(&format!("done in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Runs and returns stdout as text, if it worked.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    if text.len() > 160 {
        let cut = text.char_indices().nth(150).map_or(text.len(), |(i, _)| i);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Is this program on the PATH?
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// A fingerprint of the contents of files and folders (names, sizes and bytes; `skip` leaves folder names out).
pub(crate) fn fingerprint(paths: &[PathBuf], skip: &[&str]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        hash_path(path, skip, &mut hasher)?;
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn hash_path(path: &Path, skip: &[&str], hasher: &mut DefaultHasher) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    if skip.iter().any(|s| name == OsStr::new(s)) {
        return Ok(());
    }
    name.hash(hasher);
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            hash_path(&entry.path(), skip, hasher)?;
        }
    } else if path.is_file() {
        fs::read(path).with_context(|| path.display().to_string())?.hash(hasher);
    }
    Ok(())
}

/// Does work once per fingerprint: `stamp` holds the fingerprint of the last success.
pub(crate) fn once(stamp: &Path, fingerprint: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if fs::read_to_string(stamp).is_ok_and(|old| old == fingerprint) {
        note("up to date");
        return Ok(());
    }
    work()?;
    if let Some(parent) = stamp.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(stamp, fingerprint).with_context(|| stamp.display().to_string())
}
