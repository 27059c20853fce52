use std::sync::Arc;
use std::time::Duration;

use domain::{InstanceId, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry, ModelKey, ModelState};

use crate::Scheduler;
use crate::model::{Instance, Model, Phase};

/// What lists show of an instance. Times are on the scheduler's scale.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceFacts {
    /// Its id.
    pub id: InstanceId,
    /// Its model.
    pub model: Arc<ModelEntry>,
    /// Its state.
    pub state: ModelState,
    /// What was asked for at the start.
    pub options: LaunchOptions,
    /// What is in effect; `None` while loading.
    pub launch: Option<LoadedLaunch>,
    /// Requests running.
    pub active: u32,
    /// Callers waiting for the model.
    pub queued: u32,
    /// Keep-alive in effect.
    pub keep_alive: KeepAlive,
    /// Loaded just in time.
    pub jit: bool,
    /// Ready since.
    pub ready_at: Option<Duration>,
    /// Last start or end of a request.
    pub last_used: Duration,
    /// When it will be unloaded if nothing comes.
    pub expires_at: Option<Duration>,
}

impl Scheduler {
    /// Callers waiting.
    pub fn waiting(&self) -> usize {
        self.tickets.len()
    }

    /// Processes that exist.
    pub fn occupied(&self) -> usize {
        self.instances.len()
    }

    /// Every instance, by model.
    pub fn instances(&self) -> impl Iterator<Item = InstanceFacts> {
        self.models
            .values()
            .filter_map(|model| Some(facts(model, model.instance.as_ref()?)))
    }

    /// The instance of a model.
    pub fn instance(&self, key: &ModelKey) -> Option<InstanceFacts> {
        let model = self.models.get(key)?;
        Some(facts(model, model.instance.as_ref()?))
    }

    /// Where a model stands.
    pub fn state(&self, key: &ModelKey) -> ModelState {
        let Some(model) = self.models.get(key) else {
            return ModelState::Unloaded;
        };
        match (&model.instance, &model.failure) {
            (Some(instance), _) => state(instance),
            (None, _) if !model.queue.is_empty() => ModelState::Queued,
            (None, Some(report)) => ModelState::Failed(report.clone()),
            (None, None) => ModelState::Unloaded,
        }
    }

    /// Nothing runs under this key, nothing waits for it, and it will not come back after a crash.
    pub fn is_gone(&self, key: &ModelKey) -> bool {
        self.models
            .get(key)
            .is_none_or(|model| model.instance.is_none() && model.queue.is_empty() && model.revive.is_none())
    }

    /// Last start or end of a request of this model.
    pub fn last_used(&self, key: &ModelKey) -> Option<Duration> {
        let model = self.models.get(key)?;
        model.instance.as_ref().map(|i| i.last_used).or(model.last_used)
    }
}

fn state(instance: &Instance) -> ModelState {
    match instance.phase {
        Phase::Starting { progress } => ModelState::Loading { progress },
        Phase::Ready => ModelState::Ready,
        Phase::Draining(_) | Phase::Stopping => ModelState::Draining,
    }
}

fn facts(model: &Model, instance: &Instance) -> InstanceFacts {
    InstanceFacts {
        id: instance.id,
        model: instance.model.clone(),
        state: state(instance),
        options: instance.options.clone(),
        launch: instance.launch.clone(),
        active: instance.active,
        queued: model.queue.len() as u32,
        keep_alive: instance.keep_alive,
        jit: instance.jit,
        ready_at: instance.ready_at,
        last_used: instance.last_used,
        expires_at: instance.expires_at(),
    }
}
