use std::sync::Arc;

use domain::{InstanceView, ModelEntry, ModelState};

/// A registry entry with its state now: what every model list is rendered from.
#[derive(Debug, Clone)]
pub struct ModelView {
    /// The entry.
    pub entry: Arc<ModelEntry>,
    /// Its state.
    pub state: ModelState,
    /// The running or starting instance, if any.
    pub instance: Option<InstanceView>,
}

impl ModelView {
    /// An entry that is not loaded.
    pub fn unloaded(entry: Arc<ModelEntry>) -> Self {
        Self {
            entry,
            state: ModelState::Unloaded,
            instance: None,
        }
    }

    /// What runs, whether its model is still in the library or not.
    pub fn running((entry, instance): (Arc<ModelEntry>, InstanceView)) -> Self {
        Self {
            entry,
            state: instance.state.clone(),
            instance: Some(instance),
        }
    }

    /// Ready or draining: the weights are in memory.
    pub fn is_loaded(&self) -> bool {
        matches!(self.state, ModelState::Ready | ModelState::Draining)
    }
}
