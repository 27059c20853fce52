//! `cargo xtask run`: everything from nothing to a running LlamaRunner.

use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::packages::Purpose;
use crate::steps::{cargo, command, must, note, say, target_dir};
use crate::{engine, frontend, packages, python, speech};

/// Builds (release) and starts; the process becomes LlamaRunner, so signals and the exit code are its own.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (ours, theirs) = match args.iter().position(|a| a == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &[][..]),
    };
    let display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|v| std::env::var_os(v).is_some_and(|d| !d.is_empty()));
    let headless = ours.iter().any(|a| a == "--headless") || !display;
    packages::install(if headless { Purpose::Headless } else { Purpose::Desktop })?;
    frontend::build()?;
    let (package, binary) = if headless {
        ("headless", "llama-runner")
    } else {
        ("llama-runner-desktop", "llama-runner-desktop")
    };
    say(&format!("Building {binary} (release; some minutes the first time)"));
    must(cargo().args(["build", "--release", "-p", package, "-p", "headless"]))?;
    engine::ensure("release")?;
    let program = target_dir().join("release").join(binary);
    if headless {
        if !display {
            note(
                "There is no display here (DISPLAY and WAYLAND_DISPLAY are empty): starting headless, without tray and window.",
            );
        }
        say(
            "Starting LlamaRunner: Ollama 127.0.0.1:11434 · LM Studio 127.0.0.1:1234 · window in a browser http://127.0.0.1:5800/ui/",
        );
        return Err(command(&program).arg("serve").args(theirs).stdin(Stdio::null()).exec())
            .with_context(|| program.display().to_string());
    }
    say("Starting LlamaRunner with tray and window");
    Err(command(&program).args(theirs).stdin(Stdio::null()).exec()).with_context(|| program.display().to_string())
}

/// Only the set-up.
pub(crate) fn setup(for_tests: bool) -> Result<ExitCode> {
    packages::install(if for_tests { Purpose::Test } else { Purpose::Desktop })?;
    frontend::build()?;
    engine::ensure("dev")?;
    if for_tests {
        speech::ensure()?;
        python::environments()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The benchmark of `crates/bench-harness`, in release.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    packages::install(Purpose::Headless)?;
    frontend::build()?;
    say("Building the benchmark (release)");
    must(cargo().args([
        "build",
        "--release",
        "-p",
        "headless",
        "-p",
        "bench-harness",
        "-p",
        "testkit",
    ]))?;
    must(command(target_dir().join("release/bench-harness")).args(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Rewrites the generated files that tests compare: configuration schema and page, table of routes.
pub(crate) fn schema() -> Result<ExitCode> {
    say("Writing config.json, docs/config.md, docs/config.schema.json and docs/api-coverage.md");
    for (package, test) in [
        ("config", "generated_files_are_current"),
        ("http-api", "the_page_of_routes_is_current"),
    ] {
        must(
            cargo()
                .args(["test", "--quiet", "-p", package, "--lib", test])
                .env("UPDATE_GENERATED", "1"),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
