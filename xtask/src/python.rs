//! The Python environment of the tests: pinned, in the cache folder, made once per requirements file.

use std::path::PathBuf;

use anyhow::Result;

use crate::steps::{cache_dir, command, fingerprint, must, note, once, root, say};

/// Makes the environment and returns its `python`.
pub(crate) fn environment() -> Result<PathBuf> {
    say("Python environment of the tests");
    let requirements = root().join("tests/requirements.txt");
    let print = fingerprint(std::slice::from_ref(&requirements), &[])?;
    let dir = cache_dir()?.join("python").join(format!("tests-{print}"));
    let python = dir.join("bin/python");
    once(&dir.join(".xtask-stamp"), &print, || {
        note("installing the pinned clients and test tools");
        must(command("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
        must(
            command(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(&requirements),
        )
    })?;
    Ok(python)
}
