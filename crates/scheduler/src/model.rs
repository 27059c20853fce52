//! What the scheduler remembers of one model.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::{FailureReport, InstanceId, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry};

use crate::{BackOff, Limits, TicketId};

/// A waiting caller.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: TicketId,
    pub(crate) model: Arc<ModelEntry>,
    pub(crate) wish: LaunchOptions,
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) jit: bool,
    /// A load without a request: needs no slot.
    pub(crate) load: bool,
    pub(crate) since: Duration,
    pub(crate) deadline: Duration,
    /// Order of arrival over all models.
    pub(crate) seq: u64,
}

/// Why an instance takes no new requests while running ones finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Another model needs the place. Taken back when nobody needs it any more.
    Evict,
    /// A waiting request needs other launch options. Taken back when it leaves.
    Restart,
    /// Somebody asked for it, or the app ends.
    Unload,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    Starting { progress: f32 },
    Ready,
    Draining(Drain),
    Stopping,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) phase: Phase,
    /// What was asked for at the start.
    pub(crate) options: LaunchOptions,
    /// What is in effect; from `Ready` on.
    pub(crate) launch: Option<LoadedLaunch>,
    pub(crate) max_context: Option<u32>,
    pub(crate) active: u32,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) jit: bool,
    pub(crate) pinned: bool,
    /// Asked for by name: its load is not cancelled, and it is started again after a crash.
    pub(crate) explicit: bool,
    pub(crate) model: Arc<ModelEntry>,
    pub(crate) ready_at: Option<Duration>,
    /// Set while nothing runs on it.
    pub(crate) idle_since: Option<Duration>,
    pub(crate) last_used: Duration,
}

/// A start to repeat after a crash, though nobody waits.
#[derive(Debug)]
pub(crate) struct Revive {
    pub(crate) model: Arc<ModelEntry>,
    pub(crate) options: LaunchOptions,
    pub(crate) keep_alive: KeepAlive,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) queue: VecDeque<Ticket>,
    pub(crate) instance: Option<Instance>,
    pub(crate) back_off: BackOff,
    pub(crate) blocked_until: Option<Duration>,
    pub(crate) failure: Option<FailureReport>,
    pub(crate) revive: Option<Revive>,
    /// Options of the instance that makes way for one with larger options.
    pub(crate) previous: Option<LaunchOptions>,
    pub(crate) last_used: Option<Duration>,
}

impl Instance {
    pub(crate) fn slots(&self) -> u32 {
        self.launch.as_ref().map_or(0, |launch| launch.parallel.max(1))
    }

    /// Does it serve this model with these wishes? Another model under the same key is one that took its name, for example
    /// by being made anew.
    pub(crate) fn serves(&self, model: &ModelEntry, wish: &LaunchOptions) -> bool {
        self.model.same_files(model) && self.satisfies(wish)
    }

    /// Does it serve these wishes? True also when they were asked for at the start and the engine gave less: starting
    /// again would give the same.
    fn satisfies(&self, wish: &LaunchOptions) -> bool {
        let Some(launch) = &self.launch else { return false };
        launch.satisfies(wish, self.max_context) || {
            let asked = LoadedLaunch {
                mode: self.options.mode.unwrap_or(launch.mode),
                context: self.options.context.unwrap_or(launch.context),
                parallel: self.options.parallel.unwrap_or(launch.parallel),
                options: self.options.clone(),
            };
            asked.satisfies(wish, self.max_context)
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Its place will be free without further orders.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Stopping)
    }

    /// When it will be unloaded if nothing comes.
    pub(crate) fn expires_at(&self) -> Option<Duration> {
        match self.keep_alive {
            KeepAlive::For(d) if self.is_ready() && !self.pinned => Some(self.idle_since?.saturating_add(d)),
            _ => None,
        }
    }
}

impl Model {
    /// Is the ready instance of use to someone, now or as soon as a slot is free?
    pub(crate) fn is_busy(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| {
            instance.active > 0 || self.queue.iter().any(|t| instance.serves(&t.model, &t.wish))
        })
    }

    /// The oldest caller whose wishes the ready instance does not serve.
    pub(crate) fn unserved(&self) -> Option<&Ticket> {
        let instance = self.instance.as_ref()?;
        self.queue
            .iter()
            .find(|ticket| !instance.serves(&ticket.model, &ticket.wish))
    }

    /// Options for the next start: the first caller's wishes, what other callers and the instance before it need on top,
    /// then the model's own and the defaults. The larger context and slot count win, so that nobody causes another
    /// start.
    pub(crate) fn start_options(&self, limits: &Limits) -> LaunchOptions {
        let wishes = self.queue.iter().map(|ticket| &ticket.wish);
        let revived = self.revive.as_ref().map(|revive| &revive.options);
        let merged = wishes
            .chain(revived)
            .chain(&self.previous)
            .fold(LaunchOptions::default(), |all, next| {
                if all.mode.is_some() && next.mode.is_some() && all.mode != next.mode {
                    return all;
                }
                LaunchOptions {
                    context: all.context.max(next.context),
                    parallel: all.parallel.max(next.parallel),
                    ..all.or(next)
                }
            });
        let entry = self
            .queue
            .front()
            .map(|t| &t.model)
            .or(self.revive.as_ref().map(|r| &r.model));
        entry
            .map_or_else(|| merged.clone(), |entry| merged.or(&entry.launch))
            .or(&limits.launch)
    }
}
