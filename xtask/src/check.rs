//! Formatting, lints, dependency rules.

use std::process::ExitCode;

use anyhow::Result;

use crate::steps::{cargo, must, note, on_path, say};

/// All static checks. The desktop shell is linted with the rest: its packages are installed by the set-up.
pub(crate) fn check() -> Result<ExitCode> {
    say("Formatting");
    let formatted = must(cargo().args(["fmt", "--all", "--check"]));
    say("Lints (clippy, warnings are errors)");
    let linted = must(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]));
    // Both are told before either stops the run.
    formatted.and(linted)?;
    say("Licences, sources and bans");
    if on_path("cargo-deny") {
        // Advisories need a network: they run in the hosted CI file.
        must(cargo().args(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    } else {
        note("cargo-deny is not installed here (it takes minutes to compile); the hosted CI runs it");
    }
    Ok(ExitCode::SUCCESS)
}
