//! Keeps the window off the graphics card: its memory belongs to the models, and the pages need none of it.
//!
//! GTK asks the driver about OpenGL as soon as it connects to an X server, window or not. With Mesa that costs 50 MiB and some
//! 300 ms at each start; a web view that draws with it takes graphics memory besides, and shows blank windows with some
//! drivers. `GDK_GL=disable` avoids all of it, but is read before any code of ours could set it for GTK: the process
//! starts itself once more, in place, with the variable set.

/// GTK's own switch.
#[cfg(target_os = "linux")]
const SWITCH: &str = "GDK_GL";
/// Set by the WebDriver: pictures of the window are taken only from an accelerated web view.
#[cfg(target_os = "linux")]
const AUTOMATION: &str = "TAURI_WEBVIEW_AUTOMATION";

/// Starts the process again without OpenGL. Returns when that is done, not wanted, or not possible.
#[cfg(target_os = "linux")]
pub(crate) fn leave_to_the_models() {
    use std::os::unix::process::CommandExt;

    if [SWITCH, AUTOMATION].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Returns only when it fails; then the window is drawn with OpenGL.
    let _ = again.args(arguments).env(SWITCH, "disable").exec();
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn leave_to_the_models() {}

/// Opens a web page in the user's browser, which must not inherit our switch. Call on the main thread.
#[cfg(target_os = "linux")]
pub(crate) fn open_in_browser(url: &tauri::Url) -> Result<(), String> {
    use gtk::gio::{AppInfo, AppLaunchContext, prelude::AppLaunchContextExt};

    let context = AppLaunchContext::new();
    context.unsetenv(SWITCH);
    AppInfo::launch_default_for_uri(url.as_str(), Some(&context)).map_err(|error| error.to_string())
}

/// Opens a web page in the user's browser.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_in_browser(url: &tauri::Url) -> Result<(), String> {
    tauri_plugin_opener::open_url(url.as_str(), None::<&str>).map_err(|error| error.to_string())
}
