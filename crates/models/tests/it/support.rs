//! A models folder that tests fill with crafted files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::{Event, EventKind};
use gguf::craft::Craft;
use models::{Registry, RegistrySettings};
use telemetry::EventBus;
use tokio::sync::broadcast::Receiver;

/// A temporary folder with `models/` in it, and the settings to open it.
pub(crate) struct Library {
    pub(crate) home: tempfile::TempDir,
    pub(crate) settings: RegistrySettings,
    pub(crate) bus: EventBus,
}

impl Library {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let models = home.path().join("models");
        std::fs::create_dir(&models).unwrap();
        let settings = RegistrySettings {
            dirs: vec![models],
            index_path: home.path().join("cache/models.json"),
            ..RegistrySettings::default()
        };
        Self {
            home,
            settings,
            bus: EventBus::new(),
        }
    }

    /// A path below `models/`.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.home.path().join("models").join(name)
    }

    pub(crate) fn write(&self, name: &str, craft: &Craft) {
        self.write_bytes(name, &craft.build());
    }

    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn open(&self) -> Registry {
        Registry::open(self.settings.clone(), self.bus.clone()).unwrap()
    }
}

pub(crate) fn keys(registry: &Registry) -> Vec<String> {
    registry
        .catalog()
        .entries()
        .iter()
        .map(|entry| entry.key.to_string())
        .collect()
}

pub(crate) fn resolve(registry: &Registry, name: &str) -> Option<String> {
    registry.catalog().resolve(name).map(|entry| entry.key.to_string())
}

/// The repository's own models.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/models")
}

/// Waits for catalogue changes until `done`, for at most twenty seconds.
pub(crate) async fn until(events: &mut Receiver<Arc<Event>>, what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            let event = events.recv().await.unwrap();
            assert!(matches!(event.kind, EventKind::CatalogChanged { .. }), "{event:?}");
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(),
        "waited in vain: {what}"
    );
}
