//! The real recipe against the real package index. Ignored by default: half a minute and ten minutes of a machine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use engines::EngineError;
use engines::build::{BuildRecipe, BuildStep};

/// A folder that may be given, so that both tests (and a second try) share what is done.
fn cache() -> PathBuf {
    std::env::var_os("ENGINE_BUILD_TEST_CACHE")
        .map_or_else(|| std::env::temp_dir().join("llama-runner-build-test"), PathBuf::from)
}

#[test]
#[ignore = "fetches 40 MB and compiles for some seconds"]
fn the_recipe_gets_as_far_as_compiling_and_can_be_cancelled() {
    let cancel = AtomicBool::new(false);
    let result = BuildRecipe::pinned().build(&cache(), &cancel, &|progress| {
        eprintln!("{:5.1} % {}", progress.fraction * 100.0, progress.message);
        if progress.step == BuildStep::Compile && progress.message.contains(" of ") {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
}

#[test]
#[ignore = "compiles llama-server: some 950 seconds of processor time"]
fn the_whole_recipe_gives_a_program_that_starts() {
    let program = BuildRecipe::pinned()
        .build(&cache(), &AtomicBool::new(false), &|progress| {
            eprintln!("{:5.1} % {}", progress.fraction * 100.0, progress.message);
        })
        .unwrap();
    let output = std::process::Command::new(&program).arg("--version").output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("build 11549"), "{text}");
}
