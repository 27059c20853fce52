//! The one pass that follows every event: who leaves, who starts, who gets a slot, when to look again.

use std::time::Duration;

use domain::{ErrorKind, ModelKey, RunnerError};

use crate::machine::{failed, reject};
use crate::model::{Drain, Model, Phase};
use crate::{Effect, Scheduler};

impl Scheduler {
    pub(crate) fn schedule(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut look_again: Option<Duration> = None;
        self.expire_tickets(now, effects);
        self.stop_unwanted(now, effects);
        self.restart_for_larger_options(now, &mut look_again, effects);
        self.make_room(now, &mut look_again, effects);
        let waiting: Vec<ModelKey> = self
            .models
            .iter()
            .filter(|(_, m)| !m.queue.is_empty())
            .map(|(k, _)| k.clone())
            .collect();
        for key in &waiting {
            self.grant(now, key, effects);
        }
        self.finish_drains(effects);
        self.order_next_wake(now, look_again, effects);
    }

    /// Callers that waited `max_wait` get an answer. Those whose model is loading go on waiting: loads are bounded by
    /// lack of progress, not by a clock (R8).
    fn expire_tickets(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for (key, model) in &mut self.models {
            if model.queue.is_empty() || model.instance.as_ref().is_some_and(crate::model::Instance::is_starting) {
                continue;
            }
            let failure = model.failure.clone();
            model.queue.retain(|ticket| {
                if ticket.deadline > now {
                    return true;
                }
                self.tickets.remove(&ticket.id);
                let error = match &failure {
                    Some(report) => failed(key, report),
                    None => RunnerError::new(
                        ErrorKind::Overloaded {
                            retry_after: Duration::from_secs(5),
                        },
                        format!("The server is busy: no slot for the model '{key}' became free in time."),
                    ),
                };
                reject(effects, ticket.id, error);
                false
            });
        }
    }

    /// Loads nobody waits for are cancelled; idle models leave when their keep-alive is over.
    fn stop_unwanted(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for (key, model) in &mut self.models {
            let nobody_waits = model.queue.is_empty();
            let busy = model.is_busy();
            let Some(instance) = &mut model.instance else { continue };
            let cancelled = instance.is_starting() && nobody_waits && !instance.explicit;
            let over = !busy && instance.expires_at().is_some_and(|at| at <= now);
            if cancelled || over {
                instance.phase = Phase::Stopping;
                effects.push(Effect::Stop {
                    instance: instance.id,
                    force: cancelled,
                });
                effects.push(Effect::Publish(key.clone()));
            }
        }
    }

    /// A waiting request that the loaded instance cannot serve makes it start again, once it is idle or the request has
    /// lost patience.
    fn restart_for_larger_options(
        &mut self,
        now: Duration,
        look_again: &mut Option<Duration>,
        effects: &mut Vec<Effect>,
    ) {
        let patience = self.limits.patience();
        for (key, model) in &mut self.models {
            let since = model.unserved().map(|ticket| ticket.since);
            let busy = model.is_busy();
            let Some(instance) = &mut model.instance else { continue };
            match (instance.phase, since) {
                (Phase::Draining(Drain::Restart), None) => {
                    model.previous = None;
                    instance.phase = Phase::Ready;
                }
                (Phase::Ready, Some(since)) => {
                    let at = since.max(instance.ready_at.unwrap_or(since)).saturating_add(patience);
                    if busy && at > now {
                        earliest(look_again, at);
                        continue;
                    }
                    model.previous = Some(instance.options.clone());
                    instance.phase = Phase::Draining(Drain::Restart);
                }
                _ => continue,
            }
            effects.push(Effect::Publish(key.clone()));
        }
    }

    /// Starts what is wanted, oldest first, and frees places for it: idle models at once, least recently used first;
    /// busy ones when the caller has waited long enough and they had their own time.
    fn make_room(&mut self, now: Duration, look_again: &mut Option<Duration>, effects: &mut Vec<Effect>) {
        let places = self.limits.places();
        let occupied = self.instances.len();
        let mut free = places.saturating_sub(occupied);
        let leaving = |model: &Model| model.instance.as_ref().is_some_and(crate::model::Instance::is_leaving);
        let mut coming = self.models.values().filter(|m| leaving(m)).count();
        // Places above a lowered limit do not become free by leaving.
        coming = coming.saturating_sub(occupied.saturating_sub(places));

        // A just-in-time caller waits for the other just-in-time models to leave.
        let mut clearing = false;
        for (key, oldest) in self.wanted(now) {
            let Some(model) = self.models.get(&key) else { continue };
            let jit = model.queue.front().is_some_and(|ticket| ticket.jit);
            let one_leaves = self
                .models
                .values()
                .any(|m| leaving(m) && m.instance.as_ref().is_some_and(|i| i.jit));
            if oldest.is_some()
                && jit
                && self.limits.jit_auto_evict
                && self.clear_other_jit(now, oldest, look_again, effects)
            {
                clearing = true;
                coming = coming.saturating_sub(usize::from(one_leaves));
                continue;
            }
            if free > 0 {
                free -= 1;
                self.start(now, &key, effects);
                continue;
            }
            if coming > 0 {
                coming -= 1;
                continue;
            }
            // A restart nobody waits for takes no other model's place.
            let Some(oldest) = oldest else { continue };
            match self.victim(now, oldest, |_| true) {
                Victim::Found(victim) => self.close(&victim, effects),
                Victim::Later(at) => earliest(look_again, at),
                Victim::None => {
                    let stuck = self
                        .models
                        .values()
                        .filter_map(|m| m.instance.as_ref())
                        .all(|i| i.pinned && !i.is_leaving());
                    if stuck {
                        self.refuse_for_pinned(&key, effects);
                    }
                }
            }
        }
        // Nobody needs the place any more: closed models serve again.
        for (key, model) in &mut self.models {
            if coming == 0 {
                break;
            }
            if let Some(instance) = &mut model.instance
                && instance.phase == Phase::Draining(Drain::Evict)
                && instance.active > 0
                && !(clearing && instance.jit)
            {
                instance.phase = Phase::Ready;
                coming -= 1;
                effects.push(Effect::Publish(key.clone()));
            }
        }
    }

    /// Models that should start now, oldest caller first; `None`: nobody waits, it only comes back after a crash.
    fn wanted(&self, now: Duration) -> Vec<(ModelKey, Option<Duration>)> {
        let mut wanted: Vec<_> = self
            .models
            .iter()
            .filter(|(_, model)| model.instance.is_none() && model.blocked_until.is_none_or(|until| until <= now))
            .filter_map(|(key, model)| match model.queue.front() {
                Some(ticket) => Some((ticket.seq, key.clone(), Some(ticket.since))),
                None => model.revive.as_ref().map(|_| (u64::MAX, key.clone(), None)),
            })
            .collect();
        wanted.sort();
        wanted.into_iter().map(|(_, key, since)| (key, since)).collect()
    }

    /// LM Studio's "only keep last JIT model". True while another just-in-time model is still there.
    fn clear_other_jit(
        &mut self,
        now: Duration,
        oldest: Option<Duration>,
        look_again: &mut Option<Duration>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let is_jit = |model: &Model| model.instance.as_ref().is_some_and(|i| i.jit && !i.pinned);
        loop {
            match self.victim(now, oldest.unwrap_or(now), is_jit) {
                Victim::Found(victim) => self.close(&victim, effects),
                Victim::Later(at) => {
                    earliest(look_again, at);
                    break;
                }
                Victim::None => break,
            }
        }
        self.models.values().any(is_jit)
    }

    fn victim(&self, now: Duration, waiting_since: Duration, eligible: impl Fn(&Model) -> bool) -> Victim {
        let patience = self.limits.patience();
        let mut idle: Option<(Duration, &ModelKey)> = None;
        let mut busy: Option<(Duration, &ModelKey)> = None;
        let mut later: Option<Duration> = None;
        for (key, model) in self.models.iter().filter(|(_, model)| eligible(model)) {
            let Some(instance) = model.instance.as_ref().filter(|i| i.is_ready() && !i.pinned) else {
                continue;
            };
            let candidate = (instance.last_used, key);
            if !model.is_busy() {
                idle = Some(idle.map_or(candidate, |best| best.min(candidate)));
                continue;
            }
            let at = waiting_since
                .max(instance.ready_at.unwrap_or(waiting_since))
                .saturating_add(patience);
            if at <= now {
                busy = Some(busy.map_or(candidate, |best| best.min(candidate)));
            } else {
                earliest(&mut later, at);
            }
        }
        match (idle.or(busy), later) {
            (Some((_, key)), _) => Victim::Found(key.clone()),
            (None, Some(at)) => Victim::Later(at),
            (None, None) => Victim::None,
        }
    }

    /// No new requests for this model until it has left; [`Self::finish_drains`] stops it once nothing runs.
    fn close(&mut self, key: &ModelKey, effects: &mut Vec<Effect>) {
        if let Some(instance) = self.models.get_mut(key).and_then(|model| model.instance.as_mut()) {
            instance.phase = Phase::Draining(Drain::Evict);
            effects.push(Effect::Publish(key.clone()));
        }
    }

    fn refuse_for_pinned(&mut self, key: &ModelKey, effects: &mut Vec<Effect>) {
        let Some(model) = self.models.get_mut(key) else { return };
        for ticket in model.queue.drain(..) {
            self.tickets.remove(&ticket.id);
            let text = format!(
                "There is no room for the model '{key}': every place is taken by a pinned model. Unpin or unload one, or \
                 raise scheduler.max_loaded_models."
            );
            reject(
                effects,
                ticket.id,
                RunnerError::new(
                    ErrorKind::Overloaded {
                        retry_after: Duration::from_secs(30),
                    },
                    text,
                ),
            );
        }
    }

    fn finish_drains(&mut self, effects: &mut Vec<Effect>) {
        for (key, model) in &mut self.models {
            if let Some(instance) = &mut model.instance
                && matches!(instance.phase, Phase::Draining(_))
                && instance.active == 0
            {
                instance.phase = Phase::Stopping;
                effects.push(Effect::Stop {
                    instance: instance.id,
                    force: false,
                });
                effects.push(Effect::Publish(key.clone()));
            }
        }
    }

    fn order_next_wake(&mut self, now: Duration, look_again: Option<Duration>, effects: &mut Vec<Effect>) {
        let mut next = look_again;
        for model in self.models.values() {
            let starting = model.instance.as_ref().is_some_and(crate::model::Instance::is_starting);
            if !starting {
                model
                    .queue
                    .iter()
                    .for_each(|ticket| earliest(&mut next, ticket.deadline));
            }
            if let Some(at) = model.instance.as_ref().and_then(crate::model::Instance::expires_at) {
                earliest(&mut next, at);
            }
            if let Some(at) = model.blocked_until.filter(|at| *at > now && model.instance.is_none())
                && (!model.queue.is_empty() || model.revive.is_some())
            {
                earliest(&mut next, at);
            }
        }
        if let Some(at) = next {
            self.order_wake(at, effects);
        }
    }

    /// Orders a tick unless an earlier one is on its way already.
    pub(crate) fn order_wake(&mut self, at: Duration, effects: &mut Vec<Effect>) {
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            effects.push(Effect::WakeAt(at));
        }
    }
}

enum Victim {
    Found(ModelKey),
    /// Ask again at this time.
    Later(Duration),
    None,
}

fn earliest(slot: &mut Option<Duration>, at: Duration) {
    *slot = Some(slot.map_or(at, |best| best.min(at)));
}
