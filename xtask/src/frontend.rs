//! The web UI: npm packages and the production build that `http-api` embeds.

use anyhow::{Result, bail};

use crate::steps::{command, fingerprint, must, on_path, once, root, say};

/// Builds `frontend/dist` when its sources changed.
pub(crate) fn build() -> Result<()> {
    say("Web UI");
    if !on_path("npm") {
        bail!("npm is not on the PATH. Install Node.js 20 or newer.");
    }
    let dir = root().join("frontend");
    let skip = ["node_modules", "dist", ".svelte-kit", "test-results"];
    let lock = fingerprint(&[dir.join("package-lock.json")], &[])?;
    once(&dir.join("node_modules/.xtask-stamp"), &lock, || {
        must(
            command("npm")
                .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
                .current_dir(&dir),
        )
    })?;
    let sources = fingerprint(std::slice::from_ref(&dir), &skip)?;
    once(&dir.join("dist/.xtask-stamp"), &sources, || {
        must(command("npm").args(["run", "--silent", "build"]).current_dir(&dir))
    })
}

/// Unit tests and type check of the UI.
pub(crate) fn test() -> Result<()> {
    say("Web UI: types and unit tests");
    must(
        command("npm")
            .args(["run", "--silent", "check"])
            .current_dir(root().join("frontend")),
    )?;
    must(
        command("npm")
            .args(["run", "--silent", "test"])
            .current_dir(root().join("frontend")),
    )
}
