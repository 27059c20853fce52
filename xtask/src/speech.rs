//! The speech engine's Python: installed by the product's own command, as its users have it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::steps::{cargo, command, must, note, output, say, target_dir};

/// Names the interpreter to tests and product.
pub(crate) const VARIABLE: &str = "LLAMARUNNER_SPEECH_PYTHON";

/// Makes sure that the speech engine is there; returns its interpreter.
pub(crate) fn ensure() -> Result<PathBuf> {
    say("Speech engine (faster-whisper)");
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        note(&format!("{VARIABLE} names {}", path.to_string_lossy()));
        return Ok(path.into());
    }
    note("Python packages of some 460 MB, once per machine");
    must(cargo().args(["build", "--quiet", "-p", "headless"]))?;
    let program = target_dir().join("debug/llama-runner");
    must(command(&program).args(["engine", "whisper", "install"]))?;
    let info = output(command(&program).args(["engine", "whisper", "info", "--json"]))
        .context("`llama-runner engine whisper info` failed")?;
    let info: serde_json::Value = serde_json::from_str(&info)?;
    let python = info["python"]
        .as_str()
        .context("the speech engine names no interpreter")?;
    Ok(python.into())
}
