//! Random callers, clocks and engines. The world below plays the router and the processes by the rules of
//! `crate::event`; after each step it checks the promises.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Ask {
        model: u8,
        context: Option<u32>,
        keep_alive: Option<u64>,
        jit: bool,
    },
    Load {
        model: u8,
    },
    Cancel(usize),
    Finish(usize),
    EngineReady(usize),
    EngineFails {
        which: usize,
        retryable: bool,
    },
    StopDone(usize),
    Unload {
        model: u8,
        force: bool,
    },
    Wait(u64),
    /// A configuration reload in the middle of everything.
    Places(usize),
    /// Events about things that do not exist.
    Nonsense(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let model = 0..4u8;
    prop_oneof![
        6 => (model.clone(), prop::option::weighted(0.2, 1000..9000u32), prop::option::weighted(0.3, 0..20u64), any::<bool>())
            .prop_map(|(model, context, keep_alive, jit)| Step::Ask { model, context, keep_alive, jit }),
        1 => model.clone().prop_map(|model| Step::Load { model }),
        1 => any::<usize>().prop_map(Step::Cancel),
        5 => any::<usize>().prop_map(Step::Finish),
        4 => any::<usize>().prop_map(Step::EngineReady),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, retryable)| Step::EngineFails { which, retryable }),
        4 => any::<usize>().prop_map(Step::StopDone),
        1 => (model, any::<bool>()).prop_map(|(model, force)| Step::Unload { model, force }),
        4 => (1..4000u64).prop_map(Step::Wait),
        1 => (1..4usize).prop_map(Step::Places),
        1 => (0..200u64).prop_map(Step::Nonsense),
    ]
}

#[derive(Debug)]
struct Process {
    model: String,
    options: LaunchOptions,
    ready: bool,
    stopping: bool,
    leases: BTreeSet<u64>,
}

struct World {
    desk: Desk,
    places: usize,
    max_wait: Duration,
    jit_auto_evict: bool,
    processes: BTreeMap<u64, Process>,
    /// Waiting callers: model, and since when not counting loading.
    waiting: BTreeMap<u64, (String, Duration, bool)>,
    leases: BTreeMap<u64, u64>,
    finished_tickets: BTreeSet<u64>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl World {
    fn limits(places: usize, jit_auto_evict: bool) -> Limits {
        Limits {
            max_loaded: Some(places),
            max_wait: secs(20),
            max_queue: 12,
            jit_auto_evict,
            ..Limits::default()
        }
    }

    fn new(places: usize, jit_auto_evict: bool) -> Self {
        let limits = Self::limits(places, jit_auto_evict);
        Self {
            max_wait: limits.max_wait,
            desk: Desk::new(limits),
            places,
            jit_auto_evict,
            processes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            leases: BTreeMap::new(),
            finished_tickets: BTreeSet::new(),
        }
    }

    fn pick<K: Copy>(items: impl Iterator<Item = K>, index: usize) -> Option<K> {
        let items: Vec<K> = items.collect();
        (!items.is_empty()).then(|| items[index % items.len()])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask {
                model,
                context,
                keep_alive,
                jit,
            } => {
                let name = NAMES[usize::from(*model)];
                let ticket = self.desk.next_ticket;
                self.waiting.insert(ticket, (name.into(), self.desk.now, false));
                self.desk.ask_with(
                    ModelEntry {
                        pinned: *model == 3,
                        ..entry(name)
                    },
                    |ask| {
                        ask.wish.context = *context;
                        ask.keep_alive = keep_alive.map(|s| KeepAlive::For(secs(s)));
                        ask.jit = *jit;
                    },
                );
            }
            Step::Load { model } => {
                let name = NAMES[usize::from(*model)];
                self.waiting
                    .insert(self.desk.next_ticket, (name.into(), self.desk.now, true));
                self.desk.load(entry(name), None);
            }
            Step::Cancel(index) => {
                let callers = self.waiting.iter().filter(|(_, w)| !w.2).map(|(id, _)| *id);
                if let Some(ticket) = Self::pick(callers, *index) {
                    self.waiting.remove(&ticket);
                    self.desk.send(Event::CancelTicket(TicketId(ticket)));
                }
            }
            Step::Finish(index) => {
                if let Some(lease) = Self::pick(self.leases.keys().copied(), *index) {
                    self.finish(lease);
                }
            }
            Step::EngineReady(index) => {
                let starting = self
                    .processes
                    .iter()
                    .filter(|(_, p)| !p.ready && !p.stopping)
                    .map(|(id, _)| *id);
                if let Some(id) = Self::pick(starting, *index) {
                    self.become_ready(id);
                }
            }
            Step::EngineFails { which, retryable } => {
                if let Some(id) = Self::pick(self.processes.keys().copied(), *which) {
                    let process = self.processes.remove(&id).expect("picked");
                    let report = report(*retryable);
                    let instance = InstanceId(id);
                    self.desk.send(if process.ready {
                        Event::Exited { instance, report }
                    } else {
                        Event::StartFailed { instance, report }
                    });
                }
            }
            Step::StopDone(index) => {
                let stopping = self.processes.iter().filter(|(_, p)| p.stopping).map(|(id, _)| *id);
                if let Some(id) = Self::pick(stopping, *index) {
                    self.processes.remove(&id);
                    self.desk.exited(InstanceId(id));
                }
            }
            Step::Unload { model, force } => {
                self.desk.send(Event::Unload {
                    key: NAMES[usize::from(*model)].into(),
                    force: *force,
                });
            }
            Step::Wait(ms) => {
                let end = self.desk.now + Duration::from_millis(*ms);
                while let Some(at) = self.desk.wake.filter(|at| *at <= end) {
                    self.desk.now = self.desk.now.max(at);
                    self.desk.wake = None;
                    self.desk.send(Event::Tick);
                    self.settle();
                }
                self.desk.now = end;
            }
            Step::Places(places) => {
                self.places = *places;
                self.desk
                    .send(Event::SetLimits(Self::limits(*places, self.jit_auto_evict)));
            }
            Step::Nonsense(n) => {
                let instance = InstanceId(10_000 + n);
                for event in [
                    Event::Release(LeaseId(10_000 + n)),
                    Event::CancelTicket(TicketId(10_000 + n)),
                    Event::Ready {
                        instance,
                        launch: LoadedLaunch::default(),
                    },
                    Event::Progress {
                        instance,
                        progress: f32::NAN,
                    },
                    Event::StartFailed {
                        instance,
                        report: report(true),
                    },
                    Event::Exited {
                        instance,
                        report: report(false),
                    },
                    Event::Unload {
                        key: "unknown".into(),
                        force: *n % 2 == 0,
                    },
                ] {
                    self.desk.send(event);
                }
                // Ready and progress of processes that are past loading change nothing.
                for (id, process) in &self.processes {
                    if process.ready || process.stopping {
                        let instance = InstanceId(*id);
                        self.desk.send(Event::Ready {
                            instance,
                            launch: LoadedLaunch::default(),
                        });
                        self.desk.send(Event::Progress {
                            instance,
                            progress: 0.5,
                        });
                    }
                }
            }
        }
        self.settle();
    }

    fn finish(&mut self, lease: u64) {
        let id = self.leases.remove(&lease).expect("held");
        if let Some(process) = self.processes.get_mut(&id) {
            process.leases.remove(&lease);
        }
        self.desk.release(LeaseId(lease));
        // Twice does no harm.
        self.desk.release(LeaseId(lease));
    }

    fn become_ready(&mut self, id: u64) {
        let process = self.processes.get_mut(&id).expect("picked");
        process.ready = true;
        for (model, since, _) in self.waiting.values_mut() {
            if *model == process.model {
                *since = self.desk.now;
            }
        }
        let launch = LoadedLaunch {
            parallel: 2,
            ..loaded(&process.options)
        };
        self.desk.send(Event::Ready {
            instance: InstanceId(id),
            launch,
        });
    }

    /// Carries the effects out and checks the promises.
    fn settle(&mut self) {
        for effect in std::mem::take(&mut self.desk.seen) {
            match effect {
                Effect::Start {
                    instance,
                    model,
                    options,
                } => {
                    let model = model.key.to_string();
                    assert!(
                        self.processes.values().all(|p| p.model != model),
                        "second process of {model}"
                    );
                    let process = Process {
                        model,
                        options,
                        ready: false,
                        stopping: false,
                        leases: BTreeSet::new(),
                    };
                    assert!(self.processes.insert(instance.0, process).is_none());
                    assert!(
                        self.processes.len() <= self.places,
                        "more than {} processes",
                        self.places
                    );
                }
                Effect::Stop { instance, force } => {
                    let process = self.processes.get_mut(&instance.0).expect("stop for a dead instance");
                    assert!(force || process.leases.is_empty(), "a running request was cut");
                    process.stopping = true;
                }
                Effect::Grant {
                    ticket,
                    lease,
                    instance,
                } => {
                    let (model, ..) = self.waiting.remove(&ticket.0).expect("granted twice or to nobody");
                    assert!(self.finished_tickets.insert(ticket.0));
                    let process = self.processes.get_mut(&instance.0).expect("grant on a dead instance");
                    assert!(process.ready && !process.stopping && process.model == model);
                    process.leases.insert(lease.0);
                    assert!(process.leases.len() <= 2, "more requests than slots");
                    assert!(self.leases.insert(lease.0, instance.0).is_none());
                }
                Effect::Loaded { ticket, instance } => {
                    self.waiting.remove(&ticket.0).expect("loaded for nobody");
                    assert!(self.processes[&instance.0].ready);
                }
                Effect::Reject { ticket, .. } => {
                    self.waiting.remove(&ticket.0).expect("rejected twice or nobody");
                    assert!(self.finished_tickets.insert(ticket.0));
                }
                Effect::WakeAt(_) | Effect::Publish(_) | Effect::Failed { .. } => {}
            }
        }
        assert_eq!(self.desk.scheduler.waiting(), self.waiting.len());
        assert_eq!(self.desk.scheduler.occupied(), self.processes.len());
        for (ticket, (model, since, _)) in &self.waiting {
            let loading = self.processes.values().any(|p| p.model == *model && !p.ready);
            let waited = self.desk.now.saturating_sub(*since);
            assert!(
                loading || waited <= self.max_wait,
                "ticket {ticket} for {model} waits {waited:?}"
            );
        }
        for (key, process) in &self.processes {
            let facts = self
                .desk
                .scheduler
                .instances()
                .find(|f| f.id.0 == *key)
                .expect("listed");
            assert_eq!(facts.active as usize, process.leases.len());
        }
    }

    /// Engines load, requests end, stops finish: nobody may be left waiting.
    fn run_out(&mut self) {
        for _ in 0..400 {
            let leases: Vec<u64> = self.leases.keys().copied().collect();
            for lease in leases {
                self.finish(lease);
                self.settle();
            }
            let stopping: Vec<u64> = self
                .processes
                .iter()
                .filter(|(_, p)| p.stopping)
                .map(|(id, _)| *id)
                .collect();
            for id in stopping {
                self.processes.remove(&id);
                self.desk.exited(InstanceId(id));
                self.settle();
            }
            let starting: Vec<u64> = self
                .processes
                .iter()
                .filter(|(_, p)| !p.ready && !p.stopping)
                .map(|(id, _)| *id)
                .collect();
            for id in starting {
                if self.processes.get(&id).is_some_and(|p| !p.stopping) {
                    self.become_ready(id);
                    self.settle();
                }
            }
            if self.waiting.is_empty() && self.leases.is_empty() {
                return;
            }
            self.step(&Step::Wait(1000));
        }
        panic!("still waiting: {:?}; processes: {:?}", self.waiting, self.processes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold(places in 1..4usize, evict in any::<bool>(), steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(places, evict);
        for step in &steps {
            world.step(step);
        }
        world.run_out();
        let shutdown_at = world.desk.now;
        world.desk.send(Event::Shutdown { now: false });
        world.settle();
        world.desk.send(Event::Shutdown { now: true });
        world.settle();
        prop_assert!(world.processes.values().all(|p| p.stopping), "left running after {:?}", shutdown_at);
    }
}
