//! `cargo xtask test`: set-up, static checks, and every test, each stage named and timed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::packages::Purpose;
use crate::steps::{cargo, command, fingerprint, must, note, on_path, once, root, say, target_dir};
use crate::{check, engine, frontend, packages, python, speech};

/// The stages, in order, with what they prove.
const STAGES: &[(&str, &str)] = &[
    ("check", "formatting, lints, dependency rules"),
    ("frontend", "types and unit tests of the web UI"),
    ("rust", "unit, golden, property, fault and integration tests"),
    ("python", "the official Python clients against a real engine"),
    ("javascript", "the official JavaScript clients against a real engine"),
    ("desktop", "tray, window and browser under a private display"),
];

/// Runs everything; the first failing stage does not stop the later ones, so that one run shows all.
pub(crate) fn test(args: &[String]) -> Result<ExitCode> {
    let picked = |flag: &str| -> Vec<&str> {
        args.windows(2)
            .filter(|pair| pair[0] == flag)
            .map(|pair| pair[1].as_str())
            .collect()
    };
    let (only, skip) = (picked("--only"), picked("--skip"));
    for name in only.iter().chain(&skip) {
        if !STAGES.iter().any(|(stage, _)| stage == name) {
            let names: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
            bail!("no stage is called {name:?}; there are {}", names.join(", "));
        }
    }
    let started = Instant::now();
    packages::install(Purpose::Test)?;
    frontend::build()?;
    engine::ensure("dev")?;
    let speech = speech::ensure()?;
    let pythons = python::environments()?;

    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, meaning) in STAGES {
        if (!only.is_empty() && !only.contains(name)) || skip.contains(name) {
            note(&format!("stage {name}: skipped"));
            continue;
        }
        say(&format!("Stage {name}: {meaning}"));
        let at = Instant::now();
        let result = match *name {
            "check" => check::check().map(|_| ()),
            "frontend" => frontend::test(),
            "rust" => rust(&speech),
            "python" => python_clients(&pythons, &speech),
            "javascript" => javascript_clients(&speech),
            _ => desktop(&pythons.main, &speech),
        };
        let seconds = at.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                note(&format!("stage {name}: passed in {seconds:.0} s"));
            }
            Err(error) => {
                println!("  stage {name}: FAILED after {seconds:.0} s: {error:#}");
                failed.push(*name);
            }
        }
    }
    say(&format!("All stages done in {:.0} s", started.elapsed().as_secs_f64()));
    if !failed.is_empty() {
        note(&format!("failed stages: {}", failed.join(", ")));
    }
    println!("{passed} passed, {} failed", failed.len());
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rust(speech: &Path) -> Result<()> {
    // The product binaries are what the integration and client tests start.
    must(cargo().args(["build", "--quiet", "-p", "headless", "-p", "testkit"]))?;
    if on_path("cargo-nextest") {
        must(
            cargo()
                .args(["nextest", "run", "--workspace", "--exclude", "llama-runner-desktop"])
                .env(speech::VARIABLE, speech),
        )?;
        return must(cargo().args([
            "test",
            "--quiet",
            "--workspace",
            "--exclude",
            "llama-runner-desktop",
            "--doc",
        ]));
    }
    must(
        cargo()
            .args([
                "test",
                "--quiet",
                "--no-fail-fast",
                "--workspace",
                "--exclude",
                "llama-runner-desktop",
            ])
            .env(speech::VARIABLE, speech),
    )
}

/// What the clients' tests start.
fn programs(speech: &Path) -> [(&'static str, std::path::PathBuf); 3] {
    let debug = target_dir().join("debug");
    [
        (speech::VARIABLE, speech.to_path_buf()),
        ("LLAMA_RUNNER_BIN", debug.join("llama-runner")),
        ("LLAMA_RUNNER_DESKTOP_BIN", debug.join("llama-runner-desktop")),
    ]
}

/// Each folder of tests with the environment its clients are in; one that fails does not stop the others.
fn python_clients(pythons: &python::Environments, speech: &Path) -> Result<()> {
    must(cargo().args(["build", "--quiet", "-p", "headless", "-p", "testkit"]))?;
    let runs = [
        (&pythons.main, "tests/clients/python"),
        (&pythons.main, "tests/speech"),
        (&pythons.lmstudio_beta, "tests/clients/python_lmstudio_beta"),
        (&pythons.litellm, "tests/clients/python_litellm"),
    ];
    let mut failed = Vec::new();
    for (python, folder) in runs {
        note(folder);
        let run = must(
            command(python)
                .args(["-m", "pytest", "-q", "--color=no", folder])
                .env("LLAMARUNNER_LMSTUDIO_BETA_PYTHON", &pythons.lmstudio_beta)
                .envs(programs(speech)),
        );
        failed.extend(run.err().map(|_| folder));
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed in {}", failed.join(", "))
}

fn javascript_clients(speech: &Path) -> Result<()> {
    let dir = root().join("tests/clients/js");
    let lock = fingerprint(&[dir.join("package-lock.json")], &[])?;
    once(&dir.join("node_modules/.xtask-stamp"), &lock, || {
        must(
            command("npm")
                .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
                .current_dir(&dir),
        )
    })?;
    must(cargo().args(["build", "--quiet", "-p", "headless"]))?;
    must(
        command("node")
            .args(["--test"])
            .current_dir(&dir)
            .envs(programs(speech)),
    )
}

fn desktop(python: &Path, speech: &Path) -> Result<()> {
    must(cargo().args(["build", "--quiet", "-p", "llama-runner-desktop", "-p", "headless"]))?;
    must(
        command(python)
            .args(["-m", "pytest", "-q", "--color=no", "tests/desktop"])
            .envs(programs(speech)),
    )
}
