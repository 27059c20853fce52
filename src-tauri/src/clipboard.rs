//! Text into the clipboard, from the tray (the window has the browser's own).

/// Copies a text. Call on the main thread.
#[cfg(target_os = "linux")]
pub(crate) fn copy(text: &str) {
    let clipboard = gtk::Clipboard::get(&gtk::gdk::SELECTION_CLIPBOARD);
    clipboard.set_text(text);
    // A clipboard program may keep the text after we end.
    clipboard.store();
}

/// Copies a text. Call on the main thread.
#[cfg(not(target_os = "linux"))]
pub(crate) fn copy(_text: &str) {
    tracing::warn!("copying from the tray is not available on this system yet");
}
