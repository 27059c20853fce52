use std::sync::Arc;
use std::time::Duration;

use domain::{
    ActiveRequest, InstanceId, InstanceView, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry, ModelKey, ModelState,
    RequestId, RunnerError,
};
use scheduler::{Event, Load};
use telemetry::LogRing;
use tokio::sync::oneshot;

use crate::core::{Answer, Core, limits};
use crate::{Lease, LeaseRequest, RouterSettings, announcer};

/// What the router works with.
#[derive(Clone)]
pub struct RouterDeps {
    /// First settings.
    pub settings: RouterSettings,
    /// The model library, for preloading.
    pub registry: models::Registry,
    /// Where engines come from.
    pub engines: engines::Engines,
    /// Who runs them.
    pub supervisor: supervisor::Supervisor,
    /// Where events go.
    pub bus: telemetry::EventBus,
    /// Memory facts for launch plans.
    pub hardware: hardware::Hardware,
}

/// The router. Clones share one state.
#[derive(Clone)]
pub struct Router {
    pub(crate) core: Arc<Core>,
}

impl Router {
    /// A router; must be called inside a tokio runtime. Loads `settings.preload` in the background.
    pub fn new(deps: RouterDeps) -> Self {
        let core = Arc::new(Core::new(deps));
        core.background.spawn(core.clone().run_clock());
        core.background.spawn(announcer::run(core.clone()));
        let router = Self { core };
        if !router.core.settings().preload.is_empty() {
            let preload = router.clone().preload();
            router.core.background.spawn(preload);
        }
        router
    }

    /// New settings; running models are left alone (promise C4).
    pub fn apply(&self, settings: RouterSettings) {
        self.core.apply(settings);
    }

    /// Waits for a slot of a ready engine; starts or swaps engines for it. Dropping the future cancels.
    ///
    /// # Errors
    /// `Overloaded`, `NotLoaded`, `EngineFailed` with the reason, `ShuttingDown`, or `Cancelled` when the model was
    /// unloaded meanwhile.
    pub async fn lease(&self, request: LeaseRequest) -> Result<Lease, RunnerError> {
        if request.jit && self.core.fits_by_memory() && !self.is_in_use(request.model.instance_key()) {
            self.make_fit(&request.model, &request.launch).await;
        }
        self.core.lease(request).await
    }

    /// A way to the engine of a loaded model that takes no slot and does not keep the model loaded: for short questions
    /// about the engine itself, which must be answered while all slots are busy. `None`: not loaded.
    pub fn look(&self, model: &ModelKey) -> Option<Lease> {
        self.core.look(model)
    }

    /// Most engines at once, and whether models are loaded on demand.
    pub fn capacity(&self) -> (usize, bool) {
        let settings = self.core.settings();
        (limits(&settings).places(), settings.autoload)
    }

    /// An id for a request that is to be known by it before it asks for a lease.
    pub fn number(&self) -> RequestId {
        self.core.lock().requests.number()
    }

    /// Requests for models since the start.
    pub fn requests_total(&self) -> u64 {
        self.core.lock().requests.total()
    }

    /// Loads a model explicitly: not cancelled when the caller leaves, started again after a crash. Without `wait` it
    /// returns at once with the state of the start.
    ///
    /// # Errors
    /// As [`Self::lease`]; without `wait` never: a failure shows in [`Self::status`].
    pub async fn load(
        &self,
        model: Arc<ModelEntry>,
        launch: LaunchOptions,
        keep_alive: Option<KeepAlive>,
        wait: bool,
    ) -> Result<InstanceView, RunnerError> {
        let answer = self.begin_load(&model, launch, keep_alive);
        if wait {
            return self.finish_load(&model, answer).await;
        }
        Ok(self.view_of_load(&model))
    }

    /// Tells the scheduler of a load; the receiver hears of its end.
    pub(crate) fn begin_load(
        &self,
        model: &Arc<ModelEntry>,
        launch: LaunchOptions,
        keep_alive: Option<KeepAlive>,
    ) -> oneshot::Receiver<Answer> {
        let (waiter, answer) = oneshot::channel();
        let mut state = self.core.lock();
        let ticket = state.ticket();
        state.waiters.insert(ticket, waiter);
        let load = Load {
            ticket,
            model: Arc::clone(model),
            wish: engines::heeded(model, launch),
            keep_alive,
            jit: false,
        };
        self.core.dispatch_locked(state, Event::Load(load));
        answer
    }

    pub(crate) async fn finish_load(
        &self,
        model: &ModelEntry,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<InstanceView, RunnerError> {
        match answer.await {
            Ok(Answer::Loaded | Answer::Granted { .. }) => Ok(self.view_of_load(model)),
            Ok(Answer::Refused(error)) => Err(error),
            Err(_) => Err(RunnerError::internal("The load was lost in the queue.")),
        }
    }

    fn view_of_load(&self, model: &ModelEntry) -> InstanceView {
        self.core
            .status(model.instance_key())
            .1
            .unwrap_or_else(|| not_started(model))
    }

    /// Unloads a model and waits until its process is gone; running requests end first, unless `force`. Goes on when the
    /// caller leaves. False: it was not loaded.
    pub async fn unload(&self, model: &ModelKey, force: bool) -> bool {
        let model = &self.core.instance_key(model);
        let instance = {
            let state = self.core.lock();
            let facts = state.scheduler.instance(model);
            let instance = facts.and_then(|facts| state.instances.get(&facts.id).cloned());
            self.core.dispatch_locked(
                state,
                Event::Unload {
                    key: model.clone(),
                    force,
                },
            );
            instance
        };
        let Some(instance) = instance else {
            // A further instance may have waited to come back after a crash.
            if let Some(entry) = self.core.deps.registry.catalog().get(model) {
                self.core.forget_if_gone(entry);
            }
            return false;
        };
        instance.gone.cancelled().await;
        true
    }

    /// [`Self::unload`] that lets running answers finish for this long and then cuts them. Zero: at once. Once it has begun to
    /// wait, the caller must stay: without it the answers have all the time they need.
    pub async fn unload_within(&self, model: &ModelKey, drain: Duration) -> bool {
        if !drain.is_zero()
            && let Ok(was_loaded) = tokio::time::timeout(drain, self.unload(model, false)).await
        {
            return was_loaded;
        }
        self.unload(model, true).await
    }

    /// Every instance, by model.
    pub fn instances(&self) -> Vec<InstanceView> {
        self.core.instance_views()
    }

    /// Every instance with the model it was started for, which the library may not have any more.
    pub fn running(&self) -> Vec<(Arc<ModelEntry>, InstanceView)> {
        self.core.running()
    }

    /// Where a model stands.
    pub fn status(&self, model: &ModelKey) -> (ModelState, Option<InstanceView>) {
        self.core.status(&self.core.instance_key(model))
    }

    /// [`Self::status`] without the instance, which takes longer to look at.
    pub fn state(&self, model: &ModelEntry) -> ModelState {
        self.core.lock().scheduler.state(model.instance_key())
    }

    /// Requests in flight, oldest first.
    pub fn active_requests(&self) -> Vec<ActiveRequest> {
        self.core.active_requests()
    }

    /// The engine log of a model, kept after the engine ends.
    pub fn engine_log(&self, model: &ModelKey) -> LogRing {
        self.core.log_ring(&self.core.instance_key(model))
    }

    /// Unix milliseconds of the model's last use since the app started.
    pub fn last_used(&self, model: &ModelKey) -> Option<i64> {
        let model = self.core.instance_key(model);
        let at = self.core.lock().scheduler.last_used(&model)?;
        Some(self.core.wall_ms(at))
    }

    /// Refuses new work, lets running answers finish up to `drain`, then stops every engine, all at once (promise H9).
    /// Calling it again with a shorter time ends the first call's patience.
    pub async fn shutdown(&self, drain: Duration) {
        let core = &self.core;
        core.dispatch(Event::Shutdown { now: drain.is_zero() });
        core.owners.close();
        if tokio::time::timeout(drain, core.owners.wait()).await.is_err() {
            core.dispatch(Event::Shutdown { now: true });
            core.owners.wait().await;
        }
        core.closed.cancel();
        core.background.close();
        core.background.wait().await;
    }

    async fn preload(self) {
        for name in self.core.settings().preload.clone() {
            let Some(model) = self.core.deps.registry.catalog().resolve(name.as_str()) else {
                tracing::warn!(model = %name, "scheduler.preload names an unknown model");
                continue;
            };
            tokio::select! {
                () = self.core.closed.cancelled() => return,
                loaded = self.load(model, LaunchOptions::default(), None, true) => if let Err(error) = loaded {
                    tracing::warn!(model = %name, %error, "cannot preload the model");
                },
            }
        }
    }
}

/// The view of a load that waits for room.
fn not_started(model: &ModelEntry) -> InstanceView {
    InstanceView {
        id: InstanceId(0),
        model: model.key.clone(),
        engine: model.engine,
        state: ModelState::Queued,
        port: None,
        pid: None,
        ready_at_ms: None,
        last_used_ms: None,
        expires_at_ms: None,
        keep_alive: model.keep_alive.unwrap_or(KeepAlive::Forever),
        jit: false,
        active: 0,
        queued: 1,
        launch: LoadedLaunch::default(),
        memory_bytes: None,
        vram_bytes: None,
        load_ms: None,
    }
}
