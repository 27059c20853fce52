//! What lists, windows and `/api/ps` show.

use std::sync::Arc;

use domain::{ActiveRequest, InstanceView, KeepAlive, LoadedLaunch, ModelEntry, ModelKey, ModelState, RequestPhase};
use scheduler::InstanceFacts;

use crate::core::{Core, State};
use crate::instance::Instance;

type Found = (InstanceFacts, Option<Arc<Instance>>);

fn find(state: &State, facts: InstanceFacts) -> Found {
    let shared = state.instances.get(&facts.id).cloned();
    (facts, shared)
}

impl Core {
    pub(crate) fn instance_views(&self) -> Vec<InstanceView> {
        self.found().into_iter().map(|found| self.view(found)).collect()
    }

    pub(crate) fn running(&self) -> Vec<(Arc<ModelEntry>, InstanceView)> {
        let found = self.found().into_iter();
        found.map(|found| (found.0.model.clone(), self.view(found))).collect()
    }

    fn found(&self) -> Vec<Found> {
        let state = self.lock();
        state.scheduler.instances().map(|facts| find(&state, facts)).collect()
    }

    /// The view of an instance a lease is on; of its last state if it is gone already.
    pub(crate) fn instance_view(&self, instance: &Arc<Instance>) -> InstanceView {
        let facts = {
            let state = self.lock();
            state
                .scheduler
                .instance(instance.model.instance_key())
                .filter(|facts| facts.id == instance.id)
        };
        let facts = facts.unwrap_or_else(|| InstanceFacts {
            id: instance.id,
            model: instance.model.clone(),
            state: ModelState::Unloaded,
            options: instance.options.clone(),
            launch: instance.link.get().map(|link| link.launch.clone()),
            active: 0,
            queued: 0,
            keep_alive: KeepAlive::For(std::time::Duration::ZERO),
            jit: false,
            ready_at: None,
            last_used: self.now(),
            expires_at: None,
        });
        self.view((facts, Some(instance.clone())))
    }

    pub(crate) fn status(&self, key: &ModelKey) -> (ModelState, Option<InstanceView>) {
        let (model_state, found) = {
            let state = self.lock();
            let found = state.scheduler.instance(key).map(|facts| find(&state, facts));
            (state.scheduler.state(key), found)
        };
        (model_state, found.map(|found| self.view(found)))
    }

    pub(crate) fn active_requests(&self) -> Vec<ActiveRequest> {
        let state = self.lock();
        state.requests.list(|key| match state.scheduler.state(key) {
            ModelState::Loading { .. } => RequestPhase::Loading,
            _ => RequestPhase::Queued,
        })
    }

    /// Reads the process's memory, so it is made outside the lock.
    fn view(&self, (facts, shared): Found) -> InstanceView {
        let link = shared.as_ref().and_then(|instance| instance.link.get());
        let starting = || LoadedLaunch {
            mode: facts.options.mode.unwrap_or_default(),
            context: facts.options.context.unwrap_or(0),
            parallel: facts.options.parallel.unwrap_or(0),
            options: facts.options.clone(),
        };
        InstanceView {
            id: facts.id,
            model: facts.model.key.clone(),
            engine: facts.model.engine,
            state: facts.state,
            port: link.map(|link| link.address.port()),
            pid: shared.as_ref().and_then(|instance| instance.pid()),
            ready_at_ms: link.map(|link| link.ready_at_ms),
            last_used_ms: facts.ready_at.map(|_| self.wall_ms(facts.last_used)),
            expires_at_ms: facts.expires_at.map(|at| self.wall_ms(at)),
            keep_alive: facts.keep_alive,
            jit: facts.jit,
            active: facts.active,
            queued: facts.queued,
            launch: facts.launch.clone().unwrap_or_else(starting),
            memory_bytes: shared.as_ref().and_then(|instance| instance.memory_bytes()),
            vram_bytes: None,
            load_ms: link.map(|link| link.load_time.as_millis() as u64),
        }
    }
}
