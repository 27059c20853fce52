//! `cargo xtask run` and `cargo xtask test`: the two commands of this repository, with all their set-up.
//!
//! Every step says what it does, is skipped when its inputs have not changed, and names the command to run by hand
//! when it cannot do its work (no root, no network). Nothing here is needed by a packaged LlamaRunner.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks on its terminal"
)]

mod check;
mod engine;
mod frontend;
mod packages;
mod python;
mod run;
mod speech;
mod steps;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask run [--headless] [-- ARGS…]   build everything and start LlamaRunner (window and tray, or headless without a display)
cargo xtask test [--skip NAME]… [--only NAME]…   set up and run every check and test
cargo xtask check                          formatting, lints and dependency rules only
cargo xtask setup [--test]                 only the set-up (system packages, engines, Python, frontend)
cargo xtask bench [ARGS…]                  the project's own benchmark, release build
cargo xtask schema                         rewrite the generated files (configuration, table of routes)
";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let verb = if args.is_empty() { String::new() } else { args.remove(0) };
    let result = match verb.as_str() {
        "run" => run::run(&args),
        "test" => test::test(&args),
        "check" => check::check(),
        "setup" => run::setup(args.iter().any(|a| a == "--test")),
        "bench" => run::bench(&args),
        "schema" => run::schema(),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: no task is called {other:?}.\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
