//! Notifications: after the first close of the window, that LlamaRunner goes on serving (promise G1); where a file was saved.

use std::collections::HashMap;
use std::path::Path;

use crate::core::Core;

const MARK: &str = "window-closed-once";

/// Says it once per data folder, without waiting for anybody.
pub(crate) fn window_closed(core: &Core) {
    let mark = core.app().places().data.join(MARK);
    if mark.exists() {
        return;
    }
    core.spawn(async move {
        match notify(
            "LlamaRunner keeps serving",
            "The window is closed. Open it again, or quit, from the tray icon.",
        )
        .await
        {
            Ok(()) => remember(&mark),
            Err(error) => tracing::debug!(%error, "no notification service"),
        }
    });
}

/// Says where a file of the window was saved.
pub(crate) fn saved(core: &Core, path: &Path) {
    let place = path.display().to_string();
    core.spawn(async move {
        if let Err(error) = notify("Saved", &place).await {
            tracing::debug!(%error, "no notification service");
        }
    });
}

fn remember(mark: &Path) {
    if let Err(error) = std::fs::write(mark, b"") {
        tracing::debug!(%error, "the notice will be repeated");
    }
}

/// Sends a desktop notification (freedesktop.org specification, version 1.2).
#[cfg(target_os = "linux")]
async fn notify(summary: &str, body: &str) -> zbus::Result<()> {
    let bus = zbus::Connection::session().await?;
    let hints: HashMap<&str, zbus::zvariant::Value<'_>> = HashMap::from([("urgency", 0_u8.into())]);
    let actions: Vec<&str> = Vec::new();
    bus.call_method(
        Some("org.freedesktop.Notifications"),
        "/org/freedesktop/Notifications",
        Some("org.freedesktop.Notifications"),
        "Notify",
        &(
            "LlamaRunner",
            0_u32,
            "llama-runner",
            summary,
            body,
            actions,
            hints,
            10_000_i32,
        ),
    )
    .await?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
async fn notify(_summary: &str, _body: &str) -> std::io::Result<()> {
    std::future::ready(Err(std::io::ErrorKind::Unsupported.into())).await
}
