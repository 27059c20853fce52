//! Following changes of the configuration: each part gets its new settings only if they differ, so that a change touches
//! nothing else (promise C4).

use std::sync::{Arc, Weak};

use config::{Change, Config, ConfigStore, Subscription, Update};
use domain::EventKind;
use http_api::ApiSettings;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::builtin;
use crate::discovery_files;
use crate::handle::Inner;
use crate::settings;

/// Updates of the store as a stream: the store calls back from its own threads and must not be kept.
pub(crate) fn subscribe(store: &ConfigStore) -> (Subscription, UnboundedReceiver<Update>) {
    let (sender, receiver) = unbounded_channel();
    let subscription = store.subscribe(move |update| {
        // Nobody listens any more while the application ends.
        let _ = sender.send(update.clone());
    });
    (subscription, receiver)
}

/// Applies updates until the application ends.
pub(crate) async fn follow(app: Weak<Inner>, mut updates: UnboundedReceiver<Update>, stop: CancellationToken) {
    loop {
        let update = tokio::select! {
            update = updates.recv() => update,
            () = stop.cancelled() => None,
        };
        let (Some(update), Some(app)) = (update, app.upgrade()) else {
            return;
        };
        match update {
            Update::Applied(change) => apply(&app, &change).await,
            Update::Refused(reason) => {
                tracing::warn!("the changed settings are refused, the old ones stay: {reason}");
                app.bus.publish(EventKind::Config {
                    accepted: false,
                    message: reason,
                });
            }
        }
    }
}

async fn apply(app: &Arc<Inner>, change: &Change) {
    let (old, new): (&Config, &Config) = (&change.old, &change.new);
    for warning in change.warnings.iter().cloned().chain(settings::without_effect(new)) {
        tracing::warn!("{warning}");
    }
    if new.models.demo
        && !old.models.demo
        && let Err(error) = builtin::install(&app.places)
    {
        tracing::warn!(%error, "the demonstration model could not be put in place");
    }
    let engines = settings::engines(new, &app.places);
    if engines != settings::engines(old, &app.places) {
        app.engines.apply(engines);
    }
    let registry = settings::registry(new, &app.places);
    if registry != settings::registry(old, &app.places) {
        app.registry.apply(registry);
    }
    let downloads = settings::downloads(new, &app.places);
    if downloads != settings::downloads(old, &app.places) {
        app.downloads.apply(downloads);
    }
    let router = settings::router(new);
    if router != settings::router(old) {
        app.router.apply(router);
    }
    let api = ApiSettings::from_config(new);
    if api != ApiSettings::from_config(old) {
        app.api.apply(api);
    }
    if new.proxies != old.proxies || new.lmstudio != old.lmstudio {
        app.listeners.apply(new, &app.api).await;
        app.lock.announce(app.listeners.management());
        if new.lmstudio.write_discovery_files {
            discovery_files::write(&app.places.home, app.listeners.lmstudio());
        }
    }
    if new.logging != old.logging {
        tracing::warn!("changed \"logging\" settings take effect at the next start");
    }
    let message = match change.sections.as_slice() {
        [] => "the settings file is in order again".to_owned(),
        sections => format!("changed: {}", sections.join(", ")),
    };
    tracing::info!("settings in effect, {message}");
    app.bus.publish(EventKind::Config {
        accepted: true,
        message,
    });
}
