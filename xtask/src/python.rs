//! The Python environments of the tests: pinned, in the cache folder, each made once per list of requirements.

use std::path::PathBuf;

use anyhow::Result;

use crate::steps::{cache_dir, command, fingerprint, must, note, once, root, say};

/// The `python` of each environment.
pub(crate) struct Environments {
    /// Everything but the two below (`tests/requirements.txt`).
    pub(crate) main: PathBuf,
    /// The pre-release of LM Studio's client (`tests/requirements-lmstudio-beta.txt`).
    pub(crate) lmstudio_beta: PathBuf,
    /// litellm, which needs an older `openai` (`tests/requirements-litellm.txt`).
    pub(crate) litellm: PathBuf,
}

/// Makes them all.
pub(crate) fn environments() -> Result<Environments> {
    say("Python environments of the tests");
    Ok(Environments {
        main: environment("requirements.txt")?,
        lmstudio_beta: environment("requirements-lmstudio-beta.txt")?,
        litellm: environment("requirements-litellm.txt")?,
    })
}

fn environment(list: &str) -> Result<PathBuf> {
    note(list);
    let requirements = root().join("tests").join(list);
    let print = fingerprint(std::slice::from_ref(&requirements), &[])?;
    let dir = cache_dir()?.join("python").join(format!("tests-{print}"));
    let python = dir.join("bin/python");
    once(&dir.join(".xtask-stamp"), &print, || {
        note("installing the pinned clients and test tools");
        must(command("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
        // The list is complete: nothing is to be looked up or decided.
        must(
            command(&python)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-deps",
                    "-r",
                ])
                .arg(&requirements),
        )
    })?;
    Ok(python)
}
