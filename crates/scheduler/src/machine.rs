use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::{ErrorKind, FailureReport, InstanceId, KeepAlive, LaunchOptions, ModelEntry, ModelKey, RunnerError};

use crate::model::{Drain, Instance, Model, Phase, Revive, Ticket};
use crate::{Acquire, Decision, Effect, Event, LeaseId, Limits, Load, TicketId};

/// The state machine. One per app.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) models: BTreeMap<ModelKey, Model>,
    pub(crate) instances: HashMap<InstanceId, ModelKey>,
    pub(crate) tickets: HashMap<TicketId, ModelKey>,
    leases: HashMap<LeaseId, InstanceId>,
    next_instance: u64,
    next_lease: u64,
    next_seq: u64,
    /// The tick already ordered.
    pub(crate) wake: Option<Duration>,
    shutting_down: bool,
    random: u64,
}

impl Scheduler {
    /// An empty scheduler. `seed` feeds the jitter of restart delays.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            models: BTreeMap::new(),
            instances: HashMap::new(),
            tickets: HashMap::new(),
            leases: HashMap::new(),
            next_instance: 1,
            next_lease: 1,
            next_seq: 1,
            wake: None,
            shutting_down: false,
            random: seed | 1,
        }
    }

    /// Takes an event in and appends what must be done.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Acquire(acquire) => self.acquire(now, acquire, effects),
            Event::Load(load) => self.load(now, load, effects),
            Event::CancelTicket(ticket) => self.cancel(now, ticket, effects),
            Event::Release(lease) => self.release(now, lease, effects),
            Event::Progress { instance, progress } => self.progress(instance, progress, effects),
            Event::Ready { instance, launch } => {
                let max_wait = self.limits.max_wait;
                let Some(model) = self.model_of(instance) else { return };
                let Some(inst) = model.instance.as_mut().filter(|i| i.is_starting()) else {
                    return;
                };
                inst.phase = Phase::Ready;
                inst.launch = Some(launch);
                inst.ready_at = Some(now);
                inst.idle_since = Some(now);
                inst.last_used = now;
                model.failure = None;
                model.back_off.on_ready(now);
                for ticket in &mut model.queue {
                    ticket.deadline = ticket.deadline.max(now.saturating_add(max_wait));
                }
                effects.push(Effect::Publish(inst.model.key.clone()));
                self.schedule(now, effects);
            }
            Event::StartFailed { instance, report } | Event::Exited { instance, report } => {
                self.gone(now, instance, report, effects);
            }
            Event::Unload { key, force } => self.unload(now, &key, force, effects),
            Event::Tick => {
                self.wake = None;
                self.schedule(now, effects);
            }
            Event::SetLimits(limits) => {
                self.limits = limits;
                self.schedule(now, effects);
            }
            Event::Shutdown { now: at_once } => self.shutdown(now, at_once, effects),
        }
    }

    fn model_of(&mut self, instance: InstanceId) -> Option<&mut Model> {
        self.models.get_mut(self.instances.get(&instance)?)
    }

    fn acquire(&mut self, now: Duration, ask: Acquire, effects: &mut Vec<Effect>) {
        if self.tickets.contains_key(&ask.ticket) {
            return;
        }
        if self.shutting_down {
            return reject(effects, ask.ticket, shutting_down());
        }
        let model = match self.models.get_mut(ask.model.instance_key()) {
            Some(model) => model,
            None => self.models.entry(ask.model.instance_key().clone()).or_default(),
        };
        // The hot path: loaded, a free slot, and by the schedule's own work nobody waits for that slot.
        if let Some(instance) = &mut model.instance
            && instance.is_ready()
            && instance.active < instance.slots()
            && instance.serves(&ask.model, &ask.wish)
        {
            let lease = LeaseId(self.next_lease);
            self.next_lease += 1;
            // A pin set in the configuration since the start counts from the next request on.
            instance.pinned = ask.model.pinned;
            if !ask.jit {
                instance.keep_alive = ask.keep_alive.unwrap_or(instance.keep_alive);
            }
            take_slot(instance, now);
            self.leases.insert(lease, instance.id);
            effects.push(Effect::Grant {
                ticket: ask.ticket,
                lease,
                instance: instance.id,
            });
            return;
        }
        if self.tickets.len() >= self.limits.max_queue || model.queue.len() >= self.limits.max_queue_per_model {
            let retry_after = Duration::from_secs(1);
            let text = "The server is busy: the queue is full. Please try again later.";
            return reject(
                effects,
                ask.ticket,
                RunnerError::new(ErrorKind::Overloaded { retry_after }, text),
            );
        }
        let coming = model
            .instance
            .as_ref()
            .is_some_and(|i| i.is_starting() || i.is_ready() && i.serves(&ask.model, &ask.wish));
        if ask.model.instance_of.is_some()
            && model.instance.is_none()
            && model.revive.is_none()
            && model.queue.is_empty()
        {
            // It was unloaded between the look-up of its name and now; a further instance is never loaded by a request.
            let error = RunnerError::model_not_found(ask.model.key.as_str());
            return reject(effects, ask.ticket, error);
        }
        if !self.limits.autoload && !coming {
            let text = format!(
                "The model '{}' is not loaded, and loading on demand is off.",
                ask.model.key
            );
            let mut error = RunnerError::new(ErrorKind::NotLoaded, text);
            error.model = Some(ask.model.key.to_string());
            return reject(effects, ask.ticket, error);
        }
        let Acquire {
            ticket,
            model,
            wish,
            keep_alive,
            jit,
        } = ask;
        self.enqueue(now, ticket, model, wish, (keep_alive, jit, false));
        self.schedule(now, effects);
    }

    fn load(&mut self, now: Duration, ask: Load, effects: &mut Vec<Effect>) {
        if self.tickets.contains_key(&ask.ticket) {
            return;
        }
        if self.shutting_down {
            return reject(effects, ask.ticket, shutting_down());
        }
        let model = self.models.entry(ask.model.instance_key().clone()).or_default();
        model.back_off.reset();
        model.blocked_until = None;
        self.enqueue(now, ask.ticket, ask.model, ask.wish, (ask.keep_alive, ask.jit, true));
        self.schedule(now, effects);
    }

    fn enqueue(
        &mut self,
        now: Duration,
        id: TicketId,
        model: Arc<ModelEntry>,
        wish: LaunchOptions,
        (keep_alive, jit, load): (Option<KeepAlive>, bool, bool),
    ) {
        let key = model.instance_key().clone();
        let deadline = now.saturating_add(self.limits.max_wait);
        let ticket = Ticket {
            id,
            model,
            wish,
            keep_alive,
            jit,
            load,
            since: now,
            deadline,
            seq: self.next_seq,
        };
        self.next_seq += 1;
        self.models.entry(key.clone()).or_default().queue.push_back(ticket);
        self.tickets.insert(id, key);
    }

    fn cancel(&mut self, now: Duration, ticket: TicketId, effects: &mut Vec<Effect>) {
        let Some(key) = self.tickets.remove(&ticket) else {
            return;
        };
        if let Some(model) = self.models.get_mut(&key) {
            model.queue.retain(|t| t.id != ticket);
        }
        self.schedule(now, effects);
    }

    fn release(&mut self, now: Duration, lease: LeaseId, effects: &mut Vec<Effect>) {
        let Some(id) = self.leases.remove(&lease) else { return };
        let Some(model) = self.model_of(id) else { return };
        let Some(instance) = &mut model.instance else { return };
        instance.active = instance.active.saturating_sub(1);
        instance.last_used = now;
        if instance.active == 0 {
            instance.idle_since = Some(now);
        }
        let ready = instance.is_ready();
        let expires_at = instance.expires_at();
        if !ready || !self.tickets.is_empty() || expires_at.is_some_and(|at| at <= now) {
            self.schedule(now, effects);
        } else if let Some(at) = expires_at {
            self.order_wake(at, effects);
        }
    }

    fn progress(&mut self, instance: InstanceId, value: f32, effects: &mut Vec<Effect>) {
        let Some(inst) = self.model_of(instance).and_then(|model| model.instance.as_mut()) else {
            return;
        };
        if let Phase::Starting { progress } = &mut inst.phase {
            *progress = if value.is_finite() {
                value.clamp(*progress, 1.0)
            } else {
                *progress
            };
            effects.push(Effect::Publish(inst.model.key.clone()));
        }
    }

    /// A process has ended and has been reaped.
    fn gone(&mut self, now: Duration, id: InstanceId, report: FailureReport, effects: &mut Vec<Effect>) {
        let Some(key) = self.instances.remove(&id) else { return };
        self.leases.retain(|_, instance| *instance != id);
        let jitter = self.jitter();
        let Some(model) = self.models.get_mut(&key) else { return };
        let Some(instance) = model.instance.take() else { return };
        model.last_used = Some(instance.last_used);
        if instance.phase != Phase::Stopping {
            effects.push(Effect::Failed {
                key: key.clone(),
                report: report.clone(),
            });
            let wanted = (instance.explicit || instance.pinned)
                && !self.shutting_down
                && instance.phase != Phase::Draining(Drain::Unload);
            match model.back_off.on_failure(now, report.retryable, jitter) {
                Decision::After(delay) => {
                    model.blocked_until = Some(now.saturating_add(delay));
                    if wanted {
                        let Instance {
                            model: entry,
                            options,
                            keep_alive,
                            ..
                        } = instance;
                        model.revive = Some(Revive {
                            model: entry,
                            options,
                            keep_alive,
                        });
                    }
                }
                Decision::GiveUp => {
                    model.blocked_until = None;
                    model.revive = None;
                    for ticket in model.queue.drain(..) {
                        self.tickets.remove(&ticket.id);
                        reject(effects, ticket.id, failed(&key, &report));
                    }
                }
            }
            model.failure = Some(report);
        }
        effects.push(Effect::Publish(key));
        self.schedule(now, effects);
    }

    fn unload(&mut self, now: Duration, key: &ModelKey, force: bool, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(key) else { return };
        model.revive = None;
        model.previous = None;
        model.failure = None;
        model.blocked_until = None;
        let mut refuse = force;
        match &mut model.instance {
            None => refuse = true,
            Some(instance) => match instance.phase {
                Phase::Starting { .. } => {
                    refuse = true;
                    instance.phase = Phase::Stopping;
                    effects.push(Effect::Stop {
                        instance: instance.id,
                        force: true,
                    });
                }
                Phase::Ready | Phase::Draining(_) if force || instance.active == 0 => {
                    instance.phase = Phase::Stopping;
                    effects.push(Effect::Stop {
                        instance: instance.id,
                        force,
                    });
                }
                Phase::Ready | Phase::Draining(_) => instance.phase = Phase::Draining(Drain::Unload),
                Phase::Stopping if force => effects.push(Effect::Stop {
                    instance: instance.id,
                    force,
                }),
                Phase::Stopping => {}
            },
        }
        if refuse {
            for ticket in model.queue.drain(..) {
                self.tickets.remove(&ticket.id);
                let text = format!("The model '{key}' was unloaded while this request waited for it.");
                reject(effects, ticket.id, RunnerError::new(ErrorKind::Cancelled, text));
            }
        }
        effects.push(Effect::Publish(key.clone()));
        self.schedule(now, effects);
    }

    fn shutdown(&mut self, now: Duration, at_once: bool, effects: &mut Vec<Effect>) {
        self.shutting_down = true;
        self.tickets.clear();
        for (key, model) in &mut self.models {
            model.revive = None;
            model
                .queue
                .drain(..)
                .for_each(|ticket| reject(effects, ticket.id, shutting_down()));
            let Some(instance) = &mut model.instance else { continue };
            let starting = instance.is_starting();
            if instance.phase == Phase::Stopping {
                if at_once {
                    effects.push(Effect::Stop {
                        instance: instance.id,
                        force: true,
                    });
                }
            } else if starting || at_once || instance.active == 0 {
                instance.phase = Phase::Stopping;
                effects.push(Effect::Stop {
                    instance: instance.id,
                    force: starting || at_once && instance.active > 0,
                });
                effects.push(Effect::Publish(key.clone()));
            } else {
                instance.phase = Phase::Draining(Drain::Unload);
                effects.push(Effect::Publish(key.clone()));
            }
        }
        self.schedule(now, effects);
    }

    /// Starts the model; its waiting callers stay in the queue until it is ready.
    pub(crate) fn start(&mut self, now: Duration, key: &ModelKey, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(key) else { return };
        let options = model.start_options(&self.limits);
        model.previous = None;
        model.blocked_until = None;
        let revive = model.revive.take();
        let explicit = revive.is_some() || model.queue.iter().any(|t| t.load && !t.jit);
        let (entry, keep_alive, jit) = match (model.queue.front(), revive) {
            (Some(first), _) => (first.model.clone(), first.keep_alive, first.jit),
            (None, Some(revive)) => (revive.model, Some(revive.keep_alive), false),
            (None, None) => return,
        };
        let id = InstanceId(self.next_instance);
        self.next_instance += 1;
        model.instance = Some(Instance {
            id,
            phase: Phase::Starting { progress: 0.0 },
            options: options.clone(),
            launch: None,
            max_context: entry.facts.context_length,
            active: 0,
            keep_alive: keep_alive.or(entry.keep_alive).unwrap_or(self.limits.keep_alive),
            jit: jit && !explicit,
            pinned: entry.pinned,
            explicit,
            model: entry.clone(),
            ready_at: None,
            idle_since: None,
            last_used: now,
        });
        self.instances.insert(id, key.clone());
        effects.push(Effect::Start {
            instance: id,
            model: entry,
            options,
        });
        effects.push(Effect::Publish(key.clone()));
    }

    /// Hands free slots of the ready instance to its waiting callers, first come first served.
    pub(crate) fn grant(&mut self, now: Duration, key: &ModelKey, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(key) else { return };
        let Some(instance) = model.instance.as_mut().filter(|i| i.is_ready()) else {
            return;
        };
        let mut index = 0;
        while let Some(ticket) = model.queue.get(index) {
            if !instance.serves(&ticket.model, &ticket.wish) || !ticket.load && instance.active >= instance.slots() {
                index += 1;
                continue;
            }
            let Some(ticket) = model.queue.remove(index) else { break };
            self.tickets.remove(&ticket.id);
            instance.pinned = ticket.model.pinned;
            if !ticket.jit {
                instance.keep_alive = ticket.keep_alive.unwrap_or(instance.keep_alive);
            }
            if ticket.load {
                if !ticket.jit {
                    instance.explicit = true;
                    instance.jit = false;
                }
                instance.last_used = now;
                instance.idle_since = instance.idle_since.map(|_| now);
                effects.push(Effect::Loaded {
                    ticket: ticket.id,
                    instance: instance.id,
                });
            } else {
                let lease = LeaseId(self.next_lease);
                self.next_lease += 1;
                take_slot(instance, now);
                self.leases.insert(lease, instance.id);
                effects.push(Effect::Grant {
                    ticket: ticket.id,
                    lease,
                    instance: instance.id,
                });
            }
        }
    }

    /// A number from 0 to 1 (xorshift64).
    fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn take_slot(instance: &mut Instance, now: Duration) {
    instance.active += 1;
    instance.idle_since = None;
    instance.last_used = now;
}

pub(crate) fn reject(effects: &mut Vec<Effect>, ticket: TicketId, error: RunnerError) {
    effects.push(Effect::Reject { ticket, error });
}

fn shutting_down() -> RunnerError {
    RunnerError::new(ErrorKind::ShuttingDown, "The server is shutting down.")
}

pub(crate) fn failed(key: &ModelKey, report: &FailureReport) -> RunnerError {
    let mut error = RunnerError::new(ErrorKind::EngineFailed, report.reason.clone());
    error.model = Some(key.to_string());
    error.code = report.code.map(|code| code.as_str().to_owned());
    error
}
