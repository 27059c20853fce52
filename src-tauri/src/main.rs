//! `llama-runner-desktop`: tray icon and window around the crate `app`.
//!
//! Must not know: engines, dialects, models' files. Everything with behaviour lives in `app`; this crate shows it (tray)
//! or shows its pages (window) and passes commands on. Every exit path ends the engines (desktop guide 6).

mod arguments;
mod clipboard;
mod core;
mod graphics;
mod login;
mod notice;
mod shell;
mod tray;
mod window;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

/// Wrong usage, as for any command-line mistake.
const NO_DISPLAY: u8 = 2;

fn main() -> ExitCode {
    graphics::leave_to_the_models();
    let arguments = Arguments::parse();
    // Without a display the window system ends the process before any of our code runs (desktop guide 1).
    if !has_display() {
        complain(
            "no display: DISPLAY and WAYLAND_DISPLAY are empty or not reachable. Use `llama-runner serve` instead.",
        );
        return ExitCode::from(NO_DISPLAY);
    }
    shell::run(&arguments)
}

#[cfg(target_os = "linux")]
fn has_display() -> bool {
    let named = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    named && gtk::init().is_ok()
}

#[cfg(not(target_os = "linux"))]
fn has_display() -> bool {
    true
}

/// One line on stderr, for what goes wrong before there is a log.
fn complain(message: &str) {
    // Nobody to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "llama-runner-desktop: {message}");
}
