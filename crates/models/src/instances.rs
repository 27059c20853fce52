//! Further instances of models: `key:2`, or a name the caller chose (LM Studio contract 2). They are no models: no file and
//! no setting stands behind them, and they are gone when their engine is.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{ModelEntry, ModelKey};

use crate::names::lookup_form;

/// The further instances that exist, by identifier.
#[derive(Debug, Default, Clone)]
pub(crate) struct Instances(BTreeMap<ModelKey, Arc<ModelEntry>>);

impl Instances {
    /// False: the identifier is taken.
    pub(crate) fn add(&mut self, entry: Arc<ModelEntry>) -> bool {
        if self.find(entry.key.as_str()).is_some() {
            return false;
        }
        self.0.insert(entry.key.clone(), entry);
        true
    }

    /// False: there is none.
    pub(crate) fn remove(&mut self, key: &ModelKey) -> bool {
        self.0.remove(key).is_some()
    }

    pub(crate) fn get(&self, key: &ModelKey) -> Option<&Arc<ModelEntry>> {
        self.0.get(key)
    }

    /// By identifier, in any case and with the tag that Ollama's clients add.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<ModelEntry>> {
        if self.0.is_empty() {
            return None;
        }
        let name = name.trim();
        self.0.get(name).or_else(|| {
            let wanted = lookup_form(name);
            let bare = wanted.strip_suffix(":latest");
            self.0
                .iter()
                .find(|(key, _)| {
                    let own = lookup_form(key.as_str());
                    own == wanted || Some(own.as_str()) == bare
                })
                .map(|(_, entry)| entry)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.0.values()
    }
}
