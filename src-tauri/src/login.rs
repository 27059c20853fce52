//! Start at login: the desktop's autostart entry, remembered in `desktop.autostart`.

use tauri::AppHandle;
use tauri_plugin_autostart::ManagerExt;

use crate::core::Core;

/// Is the entry there?
pub(crate) fn enabled(handle: &AppHandle) -> bool {
    handle.autolaunch().is_enabled().unwrap_or(false)
}

/// Makes or removes the entry and remembers the choice. Returns what is true afterwards.
pub(crate) fn set(handle: &AppHandle, core: &Core, wanted: bool) -> bool {
    let launch = handle.autolaunch();
    let done = if wanted { launch.enable() } else { launch.disable() };
    if let Err(error) = done {
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
    if core.app().config().snapshot().desktop.autostart && !enabled(handle) {
        if let Err(error) = handle.autolaunch().enable() {
            tracing::warn!(%error, "start at login could not be switched on");
        }
    }
}
