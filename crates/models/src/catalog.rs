use std::sync::Arc;

use domain::{ModelEntry, ModelKey};

/// All models known at one moment. Immutable; the registry replaces it as a whole.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: Vec<Arc<ModelEntry>>,
}

impl Catalog {
    /// Every model, unlisted ones included, sorted by key.
    pub fn entries(&self) -> &[Arc<ModelEntry>] {
        &self.entries
    }

    /// The models that lists show, sorted by key.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.entries.iter().filter(|entry| !entry.unlisted)
    }

    /// The model with exactly this key.
    pub fn get(&self, key: &ModelKey) -> Option<&Arc<ModelEntry>> {
        self.entries.iter().find(|entry| entry.key == *key)
    }

    /// The model a caller means.
    pub fn resolve(&self, name: &str) -> Option<Arc<ModelEntry>> {
        self.entries.iter().find(|entry| entry.key.as_str().eq_ignore_ascii_case(name.trim())).cloned()
    }

    /// The known name most like an unknown one.
    pub fn nearest(&self, _name: &str) -> Option<ModelKey> {
        None
    }
}
