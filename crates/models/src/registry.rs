use std::path::PathBuf;
use std::sync::Arc;

use telemetry::EventBus;

use crate::{Catalog, ModelsError, RegistrySettings};

/// What one scan found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// Models in the catalogue after the scan.
    pub models: usize,
    /// Model files seen.
    pub files: usize,
    /// Files whose header was read (the others came from the index).
    pub read: usize,
    /// True when the catalogue differs from the one before.
    pub changed: bool,
    /// Files and settings that could not be used.
    pub problems: Vec<Problem>,
}

/// Something the user may want to know about a file or a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder, when it is about one.
    pub path: Option<PathBuf>,
    /// One sentence.
    pub reason: String,
}

/// The model library. Clones are handles to the same library.
#[derive(Clone)]
pub struct Registry {
    catalog: Arc<arc_swap::ArcSwap<Catalog>>,
}

impl Registry {
    /// Starts the library and does the first scan.
    pub fn open(_settings: RegistrySettings, _bus: EventBus) -> Result<Self, ModelsError> {
        Ok(Self { catalog: Arc::default() })
    }

    /// The models known now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// What could not be used at the last scan.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Scans now.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn rescan(&self) -> ScanReport {
        ScanReport::default()
    }

    /// New settings; the scan they need follows at once in the background.
    pub fn apply(&self, _settings: RegistrySettings) {}

    /// Stops watching and ends the library's thread.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn shutdown(&self) {}
}
