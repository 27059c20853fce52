//! Start at login: the desktop's autostart entry, remembered in `desktop.autostart`.

use tauri::AppHandle;

use crate::core::Core;

/// The flag that a login start carries.
pub(crate) const HIDDEN: &str = "--hidden";

/// Is the entry there?
pub(crate) fn enabled(handle: &AppHandle) -> bool {
    entry::exists(handle)
}

/// Makes or removes the entry and remembers the choice. Returns what is true afterwards.
pub(crate) fn set(handle: &AppHandle, core: &Core, wanted: bool) -> bool {
    if let Err(error) = entry::set(handle, wanted) {
        tracing::warn!(%error, "start at login could not be changed");
    }
    let now = enabled(handle);
    if let Err(error) = core.app().config().set("/desktop/autostart", &now.into(), None) {
        tracing::warn!(%error, "start at login could not be written to the configuration");
    }
    now
}

/// At start: the configuration asks for an entry that is not there (a new machine, the same file).
pub(crate) fn follow_config(handle: &AppHandle, core: &Core) {
    let missing = core.app().config().snapshot().desktop.autostart && !enabled(handle);
    if missing && let Err(error) = entry::set(handle, true) {
        tracing::warn!(%error, "start at login could not be switched on");
    }
}

/// The freedesktop.org autostart specification. Our own few lines: the plugin ignores `XDG_CONFIG_HOME`.
#[cfg(target_os = "linux")]
mod entry {
    use std::io;
    use std::path::{Path, PathBuf};

    use tauri::{AppHandle, Manager};

    const NAME: &str = "org.llamarunner.desktop.desktop";

    fn path(handle: &AppHandle) -> io::Result<PathBuf> {
        let folder = handle.path().config_dir().map_err(io::Error::other)?;
        Ok(folder.join("autostart").join(NAME))
    }

    pub(super) fn exists(handle: &AppHandle) -> bool {
        path(handle).is_ok_and(|path| path.exists())
    }

    pub(super) fn set(handle: &AppHandle, wanted: bool) -> io::Result<()> {
        let path = path(handle)?;
        if !wanted {
            return std::fs::remove_file(path);
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // An AppImage runs from a folder that is gone at the next login.
        let program = std::env::var_os("APPIMAGE").map_or_else(std::env::current_exe, |image| Ok(image.into()))?;
        std::fs::write(path, text(&program))
    }

    fn text(program: &Path) -> String {
        let command = quoted(&program.to_string_lossy());
        let hidden = super::HIDDEN;
        format!(
            "[Desktop Entry]\nType=Application\nName=LlamaRunner\nComment=Local models for every app\n\
             Exec={command} {hidden}\nTerminal=false\nX-GNOME-Autostart-enabled=true\n"
        )
    }

    /// A word of an `Exec` line (Desktop Entry Specification 1.5, "The Exec key"): quoted, then escaped as a string value.
    fn quoted(word: &str) -> String {
        let mut out = String::from("\"");
        for character in word.chars() {
            match character {
                '"' | '`' | '$' => out.extend(["\\\\", character.encode_utf8(&mut [0; 4])]),
                '\\' => out.push_str("\\\\\\\\"),
                '%' => out.push_str("%%"),
                other => out.push(other),
            }
        }
        out.push('"');
        out
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn program_names_are_quoted() {
            for (program, line) in [
                (
                    "/usr/bin/llama-runner-desktop",
                    r#"Exec="/usr/bin/llama-runner-desktop" --hidden"#,
                ),
                ("/home/a b/100%/x", r#"Exec="/home/a b/100%%/x" --hidden"#),
                (r"/a$b\c", r#"Exec="/a\\$b\\\\c" --hidden"#),
            ] {
                assert!(
                    text(Path::new(program)).lines().any(|l| l == line),
                    "{}",
                    text(Path::new(program))
                );
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod entry {
    use tauri::AppHandle;
    use tauri_plugin_autostart::{Error, ManagerExt};

    pub(super) fn exists(handle: &AppHandle) -> bool {
        handle.autolaunch().is_enabled().unwrap_or(false)
    }

    pub(super) fn set(handle: &AppHandle, wanted: bool) -> Result<(), Error> {
        let launch = handle.autolaunch();
        if wanted { launch.enable() } else { launch.disable() }
    }
}
