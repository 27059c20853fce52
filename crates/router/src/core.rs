//! The scheduler under its lock, and its effects on processes and callers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::{EventKind, FailureReport, InstanceId, ModelEntry, ModelKey, RunnerError};
use engines::MemoryBudget;
use scheduler::{Effect, Event, LeaseId, Limits, Scheduler, TicketId};
use telemetry::LogRing;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::instance::{Instance, Wish};
use crate::requests::Requests;
use crate::{RouterDeps, RouterSettings, owner};

/// Lines and bytes of an engine log kept for the window.
const LOG_LINES: usize = 2000;
const LOG_BYTES: usize = 1 << 20;

/// What a waiting caller is told.
pub(crate) enum Answer {
    Granted { lease: LeaseId, instance: Arc<Instance> },
    Loaded,
    Refused(RunnerError),
}

pub(crate) struct State {
    pub(crate) scheduler: Scheduler,
    pub(crate) waiters: HashMap<TicketId, oneshot::Sender<Answer>>,
    pub(crate) instances: HashMap<InstanceId, Arc<Instance>>,
    pub(crate) requests: Requests,
    /// Kept between events for its memory.
    pub(crate) effects: Vec<Effect>,
    next_ticket: u64,
    wake_at: Option<Duration>,
}

impl State {
    pub(crate) fn ticket(&mut self) -> TicketId {
        self.next_ticket += 1;
        TicketId(self.next_ticket)
    }
}

pub(crate) struct Core {
    pub(crate) deps: RouterDeps,
    settings: Mutex<Arc<RouterSettings>>,
    epoch: Instant,
    /// Unix milliseconds of the start: makes references of instances unique over restarts.
    pub(crate) started_ms: i64,
    /// Held while the identifier of an instance is chosen.
    opening: Mutex<()>,
    state: Mutex<State>,
    logs: Mutex<HashMap<ModelKey, LogRing>>,
    /// Owner tasks of instances.
    pub(crate) owners: TaskTracker,
    /// Clock and announcer.
    pub(crate) background: TaskTracker,
    pub(crate) closed: CancellationToken,
    pub(crate) clock: Notify,
    pub(crate) news: Notify,
    /// News not yet told; keeps a busy router from notifying for every request.
    pub(crate) has_news: AtomicBool,
}

/// Work that is done after the lock is free.
enum After {
    Start(Arc<Instance>),
    Ask(Arc<Instance>, Wish),
    Failed(ModelKey, FailureReport),
}

impl Core {
    pub(crate) fn new(mut deps: RouterDeps) -> Self {
        deps.supervisor = deps.supervisor.with_line_decoder(engines::log_line);
        let settings = Arc::new(deps.settings.clone());
        let mut seed = [0; 8];
        // Only the jitter of restart delays hangs on it.
        let _ = getrandom::fill(&mut seed);
        let state = State {
            scheduler: Scheduler::new(limits(&settings), u64::from_ne_bytes(seed)),
            waiters: HashMap::new(),
            instances: HashMap::new(),
            requests: Requests::new(telemetry::now_ms()),
            effects: Vec::new(),
            next_ticket: 0,
            wake_at: None,
        };
        Self {
            deps,
            settings: Mutex::new(settings),
            epoch: Instant::now(),
            started_ms: telemetry::now_ms(),
            opening: Mutex::default(),
            state: Mutex::new(state),
            logs: Mutex::default(),
            owners: TaskTracker::new(),
            background: TaskTracker::new(),
            closed: CancellationToken::new(),
            clock: Notify::new(),
            news: Notify::new(),
            has_news: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key under which a model runs: two names over the same weights share one instance (Ollama contract 9).
    pub(crate) fn instance_key(&self, model: &ModelKey) -> ModelKey {
        let catalog = self.deps.registry.catalog();
        catalog.get(model).map_or(model, |entry| entry.instance_key()).clone()
    }

    /// A further instance of a model is forgotten when nothing runs under its name and it will not come back.
    pub(crate) fn forget_if_gone(&self, model: &ModelEntry) {
        // Under the lock of those who open: a name that is just being taken has no load yet.
        let _order = self.opening();
        if model.instance_of.is_some() && self.lock().scheduler.is_gone(&model.key) {
            self.deps.registry.remove_instance(&model.key);
        }
    }

    /// The scheduler's time.
    pub(crate) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// A scheduler's time as Unix milliseconds. Goes by the distance from now: a step of the wall clock shifts what is
    /// shown, never what happens (promise R13).
    pub(crate) fn wall_ms(&self, at: Duration) -> i64 {
        telemetry::now_ms() + at.as_millis() as i64 - self.now().as_millis() as i64
    }

    pub(crate) fn settings(&self) -> Arc<RouterSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn apply(self: &Arc<Self>, settings: RouterSettings) {
        let limits = limits(&settings);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.dispatch(Event::SetLimits(limits));
    }

    /// Do just-in-time models leave by memory?
    pub(crate) fn fits_by_memory(&self) -> bool {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.jit_evict_to_fit && !settings.jit_auto_evict
    }

    /// Bytes for engines, of the machine and of its GPUs, less what is to be left to other programs. Measured now.
    pub(crate) fn budget(&self) -> MemoryBudget {
        let reserve = self.settings().memory_reserve;
        let gpus = self.deps.hardware.gpus();
        MemoryBudget {
            ram_available: self.deps.hardware.memory().available.saturating_sub(reserve),
            vram_free: gpus.iter().filter_map(|gpu| gpu.free).sum(),
        }
    }

    pub(crate) fn log_ring(&self, key: &ModelKey) -> LogRing {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = logs.get(key) {
            return ring.clone();
        }
        let ring = LogRing::new(LOG_LINES, LOG_BYTES);
        logs.insert(key.clone(), ring.clone());
        ring
    }

    /// Tells the scheduler and carries its effects out.
    pub(crate) fn dispatch(self: &Arc<Self>, event: Event) {
        let state = self.lock();
        self.dispatch_locked(state, event);
    }

    pub(crate) fn dispatch_locked(self: &Arc<Self>, mut state: MutexGuard<'_, State>, event: Event) {
        let mut effects = std::mem::take(&mut state.effects);
        state.scheduler.handle(self.now(), event, &mut effects);
        state.effects = effects;
        self.settle(state);
    }

    /// Carries out the effects collected in `state`: answers under the lock, everything else after it.
    pub(crate) fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut after = Vec::new();
        let mut effects = std::mem::take(&mut state.effects);
        let mut next = 0;
        while let Some(effect) = effects.get(next) {
            next += 1;
            match effect {
                Effect::Grant {
                    ticket,
                    lease,
                    instance,
                } => {
                    let (ticket, lease) = (*ticket, *lease);
                    let answer = state.instances.get(instance).map(|i| Answer::Granted {
                        lease,
                        instance: i.clone(),
                    });
                    let answered = match (state.waiters.remove(&ticket), answer) {
                        (Some(waiter), Some(answer)) => waiter.send(answer).is_ok(),
                        _ => false,
                    };
                    if !answered {
                        // The caller left in this moment.
                        state.scheduler.handle(self.now(), Event::Release(lease), &mut effects);
                    }
                }
                Effect::Loaded { ticket, .. } => tell(&mut state, *ticket, Answer::Loaded),
                Effect::Reject { ticket, error } => {
                    let (ticket, error) = (*ticket, error.clone());
                    tell(&mut state, ticket, Answer::Refused(error));
                }
                Effect::WakeAt(at) => {
                    state.wake_at = Some(*at);
                    self.clock.notify_one();
                }
                Effect::Start {
                    instance,
                    model,
                    options,
                } => {
                    let shared = Arc::new(Instance::new(*instance, model.clone(), options.clone()));
                    state.instances.insert(*instance, shared.clone());
                    after.push(After::Start(shared));
                }
                Effect::Stop { instance, force } => {
                    let wish = if *force { Wish::Kill } else { Wish::Stop };
                    after.extend(state.instances.get(instance).map(|i| After::Ask(i.clone(), wish)));
                }
                Effect::Failed { key, report } => after.push(After::Failed(key.clone(), report.clone())),
                Effect::Publish(_) => self.announce(),
            }
        }
        effects.clear();
        state.effects = effects;
        drop(state);
        for work in after {
            match work {
                After::Start(instance) => {
                    self.owners.spawn(owner::run(self.clone(), instance));
                }
                After::Ask(instance, wish) => instance.ask(wish),
                After::Failed(model, report) => {
                    tracing::warn!(%model, reason = report.reason, "the engine failed");
                    self.deps.bus.publish(EventKind::ModelFailed {
                        model,
                        reason: report.reason,
                    });
                }
            }
        }
    }

    /// Something that lists show has changed.
    pub(crate) fn announce(&self) {
        if !self.has_news.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// Sends the ticks that the scheduler orders.
    pub(crate) async fn run_clock(self: Arc<Self>) {
        loop {
            let wake_at = self.lock().wake_at;
            let ordered = self.clock.notified();
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep(at.saturating_sub(self.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = ordered => {}
                () = sleep => {
                    let mut state = self.lock();
                    state.wake_at = None;
                    self.dispatch_locked(state, Event::Tick);
                }
            }
        }
    }
}

fn tell(state: &mut State, ticket: TicketId, answer: Answer) {
    if let Some(waiter) = state.waiters.remove(&ticket) {
        // Nobody listens to a load that was asked for without waiting.
        let _ = waiter.send(answer);
    }
}

pub(crate) fn limits(settings: &RouterSettings) -> Limits {
    Limits {
        max_loaded: settings.max_loaded_models,
        max_queue: settings.max_queue,
        max_queue_per_model: settings.max_queue,
        max_wait: settings.max_wait,
        autoload: settings.autoload,
        keep_alive: settings.keep_alive,
        launch: settings.launch.clone(),
        jit_auto_evict: settings.jit_auto_evict,
        ..Limits::default()
    }
}
