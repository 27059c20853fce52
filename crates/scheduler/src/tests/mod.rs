//! Fixed sequences for each rule, and random worlds for the promises that hold over all of them.

mod random;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Capabilities, EngineKind, FailureReport, InstanceId, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry,
    ModelFacts, ModelSource,
};

use crate::{Acquire, Effect, Event, LeaseId, Limits, Load, Scheduler, TicketId};

pub(crate) fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub(crate) fn entry(name: &str) -> ModelEntry {
    ModelEntry {
        key: name.into(),
        slug: name.into(),
        engine: EngineKind::LlamaServer,
        source: ModelSource::Folder,
        path: PathBuf::new(),
        parts: Vec::new(),
        mmproj: None,
        size: 0,
        modified: 0,
        publisher: String::new(),
        indexed_path: String::new(),
        display_name: String::new(),
        description: None,
        digest: String::new(),
        aliases: Vec::new(),
        capabilities: Capabilities::default(),
        facts: ModelFacts::default(),
        launch: LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    }
}

pub(crate) fn report(retryable: bool) -> FailureReport {
    FailureReport {
        reason: "it died".into(),
        code: None,
        log: Vec::new(),
        exit_code: Some(1),
        signal: None,
        retryable,
    }
}

/// What an engine would be started with.
pub(crate) fn loaded(options: &LaunchOptions) -> LoadedLaunch {
    LoadedLaunch {
        mode: options.mode.unwrap_or_default(),
        context: options.context.unwrap_or(4096),
        parallel: options.parallel.unwrap_or(1),
        options: options.clone(),
    }
}

/// A scheduler with a clock and short words for events; effects other than `Publish` and `WakeAt` become text.
pub(crate) struct Desk {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Duration,
    next_ticket: u64,
    pub(crate) wake: Option<Duration>,
    /// Effects in order, not yet looked at.
    pub(crate) seen: Vec<Effect>,
    pub(crate) started: Vec<(InstanceId, LaunchOptions)>,
}

impl Desk {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits, 7),
            now: secs(100),
            next_ticket: 1,
            wake: None,
            seen: Vec::new(),
            started: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.scheduler.handle(self.now, event, &mut effects);
        for effect in effects {
            match &effect {
                Effect::WakeAt(at) => self.wake = Some(*at),
                Effect::Publish(_) => {}
                Effect::Start { instance, options, .. } => {
                    self.started.push((*instance, options.clone()));
                    self.seen.push(effect);
                }
                _ => self.seen.push(effect),
            }
        }
    }

    pub(crate) fn ask_with(&mut self, model: ModelEntry, change: impl FnOnce(&mut Acquire)) -> TicketId {
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        let wish = LaunchOptions::default();
        let mut acquire = Acquire {
            ticket,
            model: Arc::new(model),
            wish,
            keep_alive: None,
            jit: false,
        };
        change(&mut acquire);
        self.send(Event::Acquire(acquire));
        ticket
    }

    pub(crate) fn ask(&mut self, model: &str) -> TicketId {
        self.ask_with(entry(model), |_| ())
    }

    pub(crate) fn load(&mut self, model: ModelEntry, keep_alive: Option<KeepAlive>) -> TicketId {
        self.load_as(model, keep_alive, false)
    }

    pub(crate) fn load_as(&mut self, model: ModelEntry, keep_alive: Option<KeepAlive>, jit: bool) -> TicketId {
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        let wish = LaunchOptions::default();
        self.send(Event::Load(Load {
            ticket,
            model: Arc::new(model),
            wish,
            keep_alive,
            jit,
        }));
        ticket
    }

    /// The instance started last becomes ready with what it was asked for.
    pub(crate) fn ready(&mut self) -> InstanceId {
        let (instance, options) = self.started.last().expect("something was started").clone();
        self.send(Event::Ready {
            instance,
            launch: loaded(&options),
        });
        instance
    }

    pub(crate) fn exited(&mut self, instance: InstanceId) {
        self.send(Event::Exited {
            instance,
            report: report(true),
        });
    }

    pub(crate) fn release(&mut self, lease: LeaseId) {
        self.send(Event::Release(lease));
    }

    /// Moves the clock, with every tick that was ordered on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.wake = None;
            self.send(Event::Tick);
        }
        self.now = end;
    }

    /// Everything since the last look, as words: `start a`, `stop 1`, `kill 1`, `grant 3`, `loaded 3`, `reject 3`,
    /// `failed a`.
    pub(crate) fn words(&mut self) -> Vec<String> {
        self.seen
            .drain(..)
            .map(|effect| match effect {
                Effect::Start { model, .. } => format!("start {}", model.key),
                Effect::Stop { instance, force: false } => format!("stop {instance}"),
                Effect::Stop { instance, force: true } => format!("kill {instance}"),
                Effect::Grant { ticket, .. } => format!("grant {}", ticket.0),
                Effect::Loaded { ticket, .. } => format!("loaded {}", ticket.0),
                Effect::Reject { ticket, .. } => format!("reject {}", ticket.0),
                Effect::Failed { key, .. } => format!("failed {key}"),
                Effect::WakeAt(_) | Effect::Publish(_) => String::new(),
            })
            .collect()
    }

    pub(crate) fn expect(&mut self, words: &[&str]) {
        assert_eq!(self.words(), words);
    }

    /// The leases granted since the last look.
    pub(crate) fn leases(&mut self) -> Vec<LeaseId> {
        let leases = self.seen.iter().filter_map(|e| match e {
            Effect::Grant { lease, .. } => Some(*lease),
            _ => None,
        });
        let leases = leases.collect();
        self.seen.clear();
        leases
    }
}
