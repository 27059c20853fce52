//! Further instances of a model, and loads that name their instance (LM Studio contract 2, 3).

use std::sync::Arc;

use domain::{
    ErrorKind, InstanceId, InstanceView, KeepAlive, LaunchOptions, ModelEntry, ModelKey, ModelState, RunnerError,
};
use tokio::sync::oneshot;

use crate::Router;
use crate::core::Answer;

/// A wish for an instance of its own. Its load is explicit: just-in-time ones come by a lease (LM Studio contract 3).
#[derive(Debug, Clone)]
pub struct OpenInstance {
    /// The model. A further instance stands for the model it belongs to.
    pub model: Arc<ModelEntry>,
    /// What further instances without an identifier are numbered after: the model's name as the caller knows it.
    pub name: String,
    /// Chosen by the caller; an identifier in use is refused.
    pub identifier: Option<String>,
    /// Launch wishes.
    pub launch: LaunchOptions,
    /// How long it stays without requests.
    pub keep_alive: Option<KeepAlive>,
}

/// An instance on its way.
pub struct Opening {
    router: Router,
    entry: Arc<ModelEntry>,
    answer: oneshot::Receiver<Answer>,
    was_loaded: bool,
}

impl Opening {
    /// What it is known by from now on, in every dialect.
    pub fn entry(&self) -> &Arc<ModelEntry> {
        &self.entry
    }

    /// It was there already.
    pub fn was_loaded(&self) -> bool {
        self.was_loaded
    }

    /// Waits until it is loaded. The load goes on when the caller leaves.
    ///
    /// # Errors
    /// As [`Router::load`]. A further instance that failed is forgotten.
    pub async fn loaded(self) -> Result<InstanceView, RunnerError> {
        let loaded = self.router.finish_load(&self.entry, self.answer).await;
        if loaded.is_err() {
            self.router.core.forget_if_gone(&self.entry);
        }
        loaded
    }
}

impl Router {
    /// Starts an instance: the model itself when it is not loaded, else a further one, `name:2`, `name:3`… or called as
    /// the caller wishes.
    ///
    /// # Errors
    /// `Conflict` with code `already_exists` when the identifier is in use.
    pub fn open_instance(&self, wish: OpenInstance) -> Result<Opening, RunnerError> {
        // One at a time: two callers must not find the same identifier free.
        let _order = self.core.opening();
        self.open(wish)
    }

    /// [`Self::open_instance`], unless an instance of the model is like the one that is wanted: then that is it. A load
    /// under way counts as one.
    ///
    /// # Errors
    /// As [`Self::open_instance`].
    pub fn open_or_join(
        &self,
        wish: OpenInstance,
        is_like: impl Fn(&InstanceView) -> bool,
    ) -> Result<Opening, RunnerError> {
        let _order = self.core.opening();
        let catalog = self.core.deps.registry.catalog();
        let base = wish.model.instance_of.as_ref().unwrap_or(&wish.model.key);
        let like = self.instances_of(&wish.model).into_iter().find(|view| is_like(view));
        let joined = match like {
            Some(view) => {
                let entry = self.entry_of(&view, &wish.model);
                Some((entry, view.state == ModelState::Ready))
            }
            // It waits for room and has no instance yet; its start takes this wish along.
            None if self.status(base).0 == ModelState::Queued => catalog.get(base).cloned().map(|entry| (entry, false)),
            None => None,
        };
        let Some((entry, was_loaded)) = joined else {
            return self.open(wish);
        };
        let answer = self.begin_load(&entry, wish.launch, wish.keep_alive);
        Ok(Opening {
            router: self.clone(),
            entry,
            answer,
            was_loaded,
        })
    }

    fn open(&self, wish: OpenInstance) -> Result<Opening, RunnerError> {
        let entry = self.free_instance(&wish)?;
        let answer = self.begin_load(&entry, wish.launch, wish.keep_alive);
        Ok(Opening {
            router: self.clone(),
            entry,
            answer,
            was_loaded: false,
        })
    }

    /// The entry an instance of this model is known by.
    fn entry_of(&self, view: &InstanceView, model: &Arc<ModelEntry>) -> Arc<ModelEntry> {
        let base = model.instance_of.as_ref().unwrap_or(&model.key);
        let catalog = self.core.deps.registry.catalog();
        let of_base = catalog.get(base).filter(|base| *base.instance_key() == view.model);
        of_base
            .or_else(|| catalog.get(&view.model))
            .map_or_else(|| Arc::clone(model), Arc::clone)
    }

    /// The instances of a model that exist: its own first, then the further ones.
    pub fn instances_of(&self, model: &ModelEntry) -> Vec<InstanceView> {
        let base = model.instance_of.as_ref().unwrap_or(&model.key);
        let catalog = self.core.deps.registry.catalog();
        let own = catalog.get(base).map(|entry| entry.instance_key().clone());
        let further = catalog
            .instances()
            .filter(|entry| entry.instance_of.as_ref() == Some(base))
            .map(|entry| entry.key.clone());
        own.into_iter()
            .chain(further)
            .filter_map(|key| self.status(&key).1)
            .collect()
    }

    /// A name for one load of one instance that no other load ever has, also not after a restart (LM Studio contract 2).
    pub fn instance_reference(&self, id: InstanceId) -> String {
        format!("{:x}-{:x}", self.core.started_ms, id.0)
    }

    /// The entry and the instance behind such a name.
    pub fn by_reference(&self, reference: &str) -> Option<(Arc<ModelEntry>, InstanceView)> {
        let view = self
            .instances()
            .into_iter()
            .find(|view| self.instance_reference(view.id) == reference)?;
        let entry = self.core.deps.registry.catalog().get(&view.model).cloned()?;
        Some((entry, view))
    }

    /// The model or instance that a name means; a loaded one is preferred where the name leaves a choice.
    pub fn resolve(&self, name: &str) -> Option<Arc<ModelEntry>> {
        let catalog = self.core.deps.registry.catalog();
        catalog.resolve_loaded(name, |entry| self.is_in_use(entry.instance_key()))
    }

    pub(crate) fn is_in_use(&self, key: &ModelKey) -> bool {
        let state = self.core.lock().scheduler.state(key);
        !matches!(state, ModelState::Unloaded | ModelState::Failed(_))
    }

    fn free_instance(&self, wish: &OpenInstance) -> Result<Arc<ModelEntry>, RunnerError> {
        let registry = &self.core.deps.registry;
        let catalog = registry.catalog();
        let base_key = wish.model.instance_of.as_ref().unwrap_or(&wish.model.key);
        let base = catalog.get(base_key).unwrap_or(&wish.model);
        let free = !self.is_in_use(base.instance_key());
        let further = |identifier: &str| {
            let entry = Arc::new(ModelEntry {
                key: ModelKey::from(identifier),
                aliases: Vec::new(),
                pinned: false,
                runs_as: None,
                instance_of: Some(base.key.clone()),
                ..ModelEntry::clone(base)
            });
            registry.add_instance(Arc::clone(&entry)).then_some(entry)
        };
        match wish
            .identifier
            .as_deref()
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            Some(name) if name == base.key.as_str() || name == wish.name => {
                if free {
                    Ok(Arc::clone(base))
                } else {
                    Err(taken(name))
                }
            }
            Some(name) => further(name).ok_or_else(|| taken(name)),
            None if free => Ok(Arc::clone(base)),
            None => (2..=u32::MAX)
                .find_map(|number| further(&format!("{}:{number}", wish.name)))
                .ok_or_else(|| taken(&wish.name)),
        }
    }
}

fn taken(identifier: &str) -> RunnerError {
    let text =
        format!("A model with the identifier '{identifier}' already exists. Choose another identifier or unload it.");
    let mut error = RunnerError::new(ErrorKind::Conflict, text)
        .param("identifier")
        .code("already_exists");
    error.model = Some(identifier.to_owned());
    error
}
