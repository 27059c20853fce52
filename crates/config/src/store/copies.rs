//! The file and the copies beside it: the last good one, the ten newest older ones, and damaged ones put aside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::atomic_file::{WriteError, create_private_folder, replace};
use crate::document::Document;
use crate::error::ConfigError;
use crate::overrides::Overrides;
use crate::parse::{Parsed, build};
use crate::schema::default_text;
use crate::validate::EngineRules;

/// Older copies kept beside the file (management contract 1.7).
const BACKUPS: usize = 10;

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn document(path: &Path, contents: &[u8]) -> Result<Document, ConfigError> {
    if let Some(reason) = damage(contents) {
        return Err(ConfigError::Damaged {
            path: path.to_owned(),
            reason,
        });
    }
    Document::read(&file_name(path), &String::from_utf8_lossy(contents))
}

pub(super) fn parse_bytes(
    path: &Path,
    contents: &[u8],
    overrides: &Overrides,
    rules: &EngineRules,
) -> Result<Parsed, ConfigError> {
    build(&document(path, contents)?, overrides, rules)
}

/// What a power cut or a broken disk leaves; never what a person writes.
fn damage(contents: &[u8]) -> Option<&'static str> {
    if contents.iter().all(u8::is_ascii_whitespace) {
        Some("the file is empty")
    } else if contents.contains(&0) {
        Some("the file holds zero bytes")
    } else if std::str::from_utf8(contents).is_err() {
        Some("the file is not text")
    } else {
        None
    }
}

/// The contents to start with, and a warning when they had to be restored.
pub(super) fn read_or_make(
    path: &Path,
    overrides: &Overrides,
    rules: &EngineRules,
) -> Result<(Vec<u8>, Option<String>), ConfigError> {
    let read_failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let write_failed = |source| ConfigError::Write {
        path: path.to_owned(),
        source,
    };
    let put = |contents: &[u8]| {
        replace(path, contents, None, || Ok(())).map_err(|error| match error {
            WriteError::Io(source) => write_failed(source),
            WriteError::Changed => write_failed(io::Error::other("the file keeps changing")),
        })
    };
    match fs::read(path) {
        Ok(contents) => {
            let Some(reason) = damage(&contents) else {
                return Ok((contents, None));
            };
            let damaged = || ConfigError::Damaged {
                path: path.to_owned(),
                reason,
            };
            let good = fs::read(last_good(path)).map_err(|_| damaged())?;
            parse_bytes(path, &good, overrides, rules).map_err(|_| damaged())?;
            let aside = beside(path, &format!("broken.{}", jiff::Timestamp::now().as_second()));
            fs::write(&aside, &contents).map_err(write_failed)?;
            put(&good)?;
            let warning = format!(
                "{}: {reason}. The last good copy was restored; the damaged file is kept as {}.",
                path.display(),
                file_name(&aside)
            );
            Ok((good, Some(warning)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                create_private_folder(folder).map_err(write_failed)?;
            }
            let contents = default_text(None).into_bytes();
            put(&contents)?;
            Ok((contents, None))
        }
        Err(source) => Err(read_failed(source)),
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(format!("{}.{suffix}", file_name(path)))
}

fn last_good(path: &Path) -> PathBuf {
    beside(path, "last-good")
}

/// Keeps a copy of contents that were read, understood and put into effect.
pub(super) fn keep_last_good(path: &Path, contents: &[u8]) -> io::Result<()> {
    let copy = last_good(path);
    if fs::read(&copy).is_ok_and(|kept| kept == contents) {
        return Ok(());
    }
    replace(&copy, contents, None, || Ok(())).map_err(|error| match error {
        WriteError::Io(error) => error,
        WriteError::Changed => io::Error::other("changed"),
    })
}

/// Keeps the contents that are about to be replaced as `config.json.backup.<unix>`, the ten newest.
pub(super) fn back_up(path: &Path, contents: &[u8]) -> io::Result<()> {
    let copy = beside(path, &format!("backup.{}", jiff::Timestamp::now().as_second()));
    if !copy.exists() {
        replace(&copy, contents, None, || Ok(())).map_err(|error| match error {
            WriteError::Io(error) => error,
            WriteError::Changed => io::Error::other("changed"),
        })?;
    }
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let prefix = format!("{}.backup.", file_name(path));
    let mut copies: Vec<(u64, PathBuf)> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| {
            let time = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((time, entry.path()))
        })
        .collect();
    copies.sort();
    let surplus = copies.len().saturating_sub(BACKUPS);
    for (_, old) in copies.drain(..surplus) {
        fs::remove_file(old)?;
    }
    Ok(())
}
