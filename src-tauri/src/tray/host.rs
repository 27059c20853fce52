//! Waits for tray hosts: panels that start after us, or again.

/// The name every tray host owns.
#[cfg(target_os = "linux")]
const WATCHER: &str = "org.kde.StatusNotifierWatcher";

/// Calls back whenever a tray host appears, for as long as there is a session bus.
#[cfg(target_os = "linux")]
pub(crate) async fn watch(appeared: impl Fn()) {
    if let Err(error) = watch_bus(appeared).await {
        tracing::info!(%error, "no session bus, so no tray");
    }
}

#[cfg(target_os = "linux")]
async fn watch_bus(appeared: impl Fn()) -> zbus::Result<()> {
    use futures_util::StreamExt;

    let bus = zbus::Connection::session().await?;
    let names = zbus::fdo::DBusProxy::new(&bus).await?;
    let mut changes = names.receive_name_owner_changed_with_args(&[(0, WATCHER)]).await?;
    // A host that came between the first try and this subscription.
    if names.name_has_owner(WATCHER.try_into()?).await? {
        appeared();
    }
    while let Some(change) = changes.next().await {
        if change.args()?.new_owner().is_some() {
            appeared();
        }
    }
    Ok(())
}

/// Trays of other systems are always there.
#[cfg(not(target_os = "linux"))]
pub(crate) async fn watch(_appeared: impl Fn()) {
    std::future::pending::<()>().await;
}
