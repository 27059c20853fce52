//! System packages of Debian and Ubuntu. Elsewhere the names are printed and the build goes on.

use std::path::Path;

use anyhow::{Result, bail};

use crate::steps::{command, must, note, on_path, output, say};

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The headless binary and the engine.
    Headless,
    /// Also the desktop shell.
    Desktop,
    /// Also everything the tests need.
    Test,
}

/// A C++ compiler for the engine, TLS headers for its downloads, Python environments.
const HEADLESS: &[&str] = &[
    "build-essential",
    "pkg-config",
    "libssl-dev",
    "libgomp1",
    "python3-venv",
];
/// Window and tray (desktop guide 2).
const DESKTOP: &[&str] = &[
    "libwebkit2gtk-4.1-dev",
    "libayatana-appindicator3-dev",
    "librsvg2-dev",
    "file",
    "fonts-dejavu-core",
];
/// A private display, session bus, window manager, browsers and drivers; curl as the API documents use it; a voice.
const TEST: &[&str] = &[
    "xvfb",
    "xauth",
    "dbus",
    "dbus-x11",
    "openbox",
    "webkit2gtk-driver",
    "chromium",
    "x11-utils",
    "xdotool",
    "imagemagick",
    "curl",
    "procps",
    "espeak-ng",
];

fn list(purpose: Purpose) -> Vec<&'static str> {
    let mut names = HEADLESS.to_vec();
    if purpose != Purpose::Headless {
        names.extend(DESKTOP);
    }
    if purpose == Purpose::Test {
        names.extend(TEST);
    }
    names
}

/// Installs what is missing.
pub(crate) fn install(purpose: Purpose) -> Result<()> {
    let wanted = list(purpose);
    say("System packages");
    if !Path::new("/etc/debian_version").exists() {
        note(&format!(
            "This is not Debian or Ubuntu: please see to it that these are installed: {}",
            wanted.join(" ")
        ));
        return Ok(());
    }
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        note("all there");
        return Ok(());
    }
    note(&format!("installing {}", missing.join(" ")));
    let root = output(command("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if !root && !on_path("sudo") {
        bail!(
            "these packages are missing, and there is no sudo. As root, run:\n  apt-get install {}",
            missing.join(" ")
        );
    }
    let apt = |args: &[&str]| {
        let mut apt = if root { command("apt-get") } else { command("sudo") };
        if !root {
            apt.arg("apt-get").stdin(std::process::Stdio::inherit());
        }
        apt.args(["-q", "-y", "-o", "Dpkg::Use-Pty=0"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive");
        apt.stdout(std::process::Stdio::null());
        apt
    };
    must(&mut apt(&["update"]))?;
    let mut args = vec!["install", "--no-install-recommends"];
    args.extend(&missing);
    must(&mut apt(&args))
}

fn installed(name: &str) -> bool {
    if name == "python3-venv" && output(command("python3").args(["-c", "import ensurepip, venv"])).is_some() {
        return true; // a Python that did not come from a package
    }
    output(command("dpkg-query").args(["-W", "-f=${Status}", name])).is_some_and(|s| s == "install ok installed")
}
