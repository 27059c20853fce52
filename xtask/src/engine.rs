//! The engine: `llama-runner engine build` does the work; this only calls it when it is needed.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;

use crate::steps::{cache_dir, cargo, command, must, note, say, target_dir};

/// The path of the engine that `llama-runner engine build` makes. The name holds the pinned build.
pub(crate) fn built() -> Result<Option<PathBuf>> {
    let dir = cache_dir()?.join("engines").join("llama.cpp");
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(None);
    };
    Ok(entries
        .flatten()
        .map(|e| e.path().join("llama-server"))
        .find(|p| p.is_file()))
}

/// Makes sure a real llama-server is there.
pub(crate) fn ensure(profile: &str) -> Result<()> {
    say("Engine (llama-server)");
    if let Some(path) = std::env::var_os("LLAMARUNNER_LLAMA_SERVER") {
        note(&format!("LLAMARUNNER_LLAMA_SERVER names {}", path.to_string_lossy()));
        return Ok(());
    }
    if let Some(path) = built()? {
        note(&format!("built already: {}", path.display()));
        return Ok(());
    }
    note("building llama.cpp from its registry source package: about 8 minutes on two cores, once per machine");
    must(cargo().args(["build", "--profile", profile, "-p", "headless"]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    must(
        command(target_dir().join(folder).join("llama-runner"))
            .args(["engine", "build"])
            .stdin(Stdio::null()),
    )
}
