use domain::{EngineMode, ErrorKind, ModelState};

use super::*;

fn limits(places: usize) -> Limits {
    Limits {
        max_loaded: Some(places),
        ..Limits::default()
    }
}

#[test]
fn two_hundred_callers_one_start() {
    let mut desk = Desk::new(limits(3));
    (0..200).for_each(|_| {
        desk.ask("a");
    });
    desk.expect(&["start a"]);
    desk.ready();
    let first = desk.leases();
    assert_eq!(first.len(), 1);
    let mut lease = first[0];
    for _ in 1..200 {
        desk.release(lease);
        lease = desk.leases()[0];
    }
    desk.release(lease);
    desk.expect(&[]);
}

#[test]
fn groups_by_loaded_model() {
    let mut desk = Desk::new(limits(1));
    for model in ["a", "b", "a", "a", "c", "a", "b", "c"] {
        desk.ask(model);
    }
    let mut starts = Vec::new();
    let mut served = 0;
    while served < 8 {
        for word in desk.seen.iter().filter_map(|e| match e {
            Effect::Start { model, .. } => Some(model.key.to_string()),
            _ => None,
        }) {
            starts.push(word);
        }
        let stop = desk.seen.iter().find_map(|e| match e {
            Effect::Stop { instance, .. } => Some(*instance),
            _ => None,
        });
        let starting = desk.seen.iter().any(|e| matches!(e, Effect::Start { .. }));
        let leases = desk.leases();
        if let Some(instance) = stop {
            desk.exited(instance);
        } else if starting {
            desk.ready();
        } else {
            assert_eq!(leases.len(), 1);
            served += 1;
            desk.release(leases[0]);
        }
    }
    assert_eq!(starts, ["a", "b", "c"]);
}

#[test]
fn a_foreign_caller_is_not_starved() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ready();
    let mut lease = desk.leases()[0];
    let b = desk.ask("b");
    let began = desk.now;
    // A stream of requests for `a` that never leaves it idle.
    loop {
        desk.ask("a");
        desk.advance(Duration::from_millis(500));
        desk.release(lease);
        let stop = desk.seen.iter().any(|e| matches!(e, Effect::Stop { .. }));
        if stop {
            break;
        }
        lease = desk.leases()[0];
        assert!(desk.now < began + secs(4), "b starved");
    }
    desk.seen.clear();
    desk.exited(InstanceId(1));
    desk.ready();
    desk.expect(&["start b", &format!("grant {}", b.0)]);
}

#[test]
fn the_closed_model_serves_again_when_the_other_caller_leaves() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ready();
    desk.leases();
    let b = desk.ask("b");
    desk.advance(secs(4));
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Draining);
    desk.send(Event::CancelTicket(b));
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Ready);
    desk.expect(&[]);
}

#[test]
fn running_requests_are_not_cut_by_a_swap() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ready();
    let lease = desk.leases()[0];
    desk.ask("b");
    desk.advance(secs(60));
    desk.expect(&[]);
    desk.release(lease);
    desk.expect(&["stop 1"]);
    // The place is free only when the process has been reaped.
    desk.advance(secs(5));
    desk.expect(&[]);
    desk.exited(InstanceId(1));
    desk.expect(&["start b"]);
}

#[test]
fn least_recently_used_idle_model_leaves() {
    let mut desk = Desk::new(limits(2));
    for model in ["a", "b"] {
        desk.ask(model);
        desk.ready();
        let lease = desk.leases()[0];
        desk.advance(secs(1));
        desk.release(lease);
    }
    desk.advance(secs(1));
    desk.ask("a");
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.ask("c");
    desk.expect(&["stop 2"]);
}

#[test]
fn pinned_models_stay() {
    let mut desk = Desk::new(limits(1));
    desk.ask_with(
        ModelEntry {
            pinned: true,
            ..entry("a")
        },
        |_| (),
    );
    desk.ready();
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.advance(secs(10_000));
    desk.ask("b");
    desk.expect(&["reject 2"]);
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Ready);
}

#[test]
fn keep_alive() {
    let cases: [(&[Option<KeepAlive>], Option<u64>); 6] = [
        (&[None], Some(300)),
        (&[Some(KeepAlive::For(secs(10)))], Some(10)),
        (&[Some(KeepAlive::For(secs(10))), None], Some(10)),
        (
            &[Some(KeepAlive::For(secs(10))), Some(KeepAlive::For(secs(20)))],
            Some(20),
        ),
        (&[Some(KeepAlive::For(secs(10))), Some(KeepAlive::Forever)], None),
        (&[None, Some(KeepAlive::For(secs(0)))], Some(0)),
    ];
    for (asked, expected) in cases {
        let mut desk = Desk::new(limits(1));
        for (i, keep_alive) in asked.iter().enumerate() {
            desk.ask_with(entry("a"), |ask| ask.keep_alive = *keep_alive);
            if i == 0 {
                desk.ready();
            }
            // The timer does not run while a request does.
            desk.advance(secs(400));
            let lease = desk.leases()[0];
            desk.release(lease);
        }
        match expected {
            None => {
                desk.advance(secs(100_000));
                desk.expect(&[]);
            }
            Some(0) => desk.expect(&["stop 1"]),
            Some(s) => {
                desk.advance(Duration::from_millis(s * 1000 - 1));
                desk.expect(&[]);
                desk.advance(Duration::from_millis(1));
                desk.expect(&["stop 1"]);
            }
        }
    }
}

#[test]
fn ttl_counts_only_for_the_request_that_loads() {
    let mut desk = Desk::new(limits(1));
    let jit = |ttl| move |ask: &mut Acquire| (ask.jit, ask.keep_alive) = (true, Some(KeepAlive::For(secs(ttl))));
    desk.ask_with(entry("a"), jit(50));
    desk.ready();
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.ask_with(entry("a"), jit(5));
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.advance(secs(49));
    desk.expect(&[]);
    desk.advance(secs(1));
    desk.expect(&["stop 1"]);
}

#[test]
fn only_the_last_jit_model_stays() {
    let mut desk = Desk::new(Limits {
        jit_auto_evict: true,
        ..limits(3)
    });
    desk.load(entry("kept"), None);
    desk.ready();
    desk.ask_with(entry("a"), |ask| ask.jit = true);
    desk.ready();
    let lease = desk.leases()[0];
    desk.ask_with(entry("b"), |ask| ask.jit = true);
    desk.expect(&[]);
    desk.release(lease);
    desk.expect(&["stop 2"]);
    desk.exited(InstanceId(2));
    desk.expect(&["start b"]);
    assert_eq!(desk.scheduler.state(&"kept".into()), ModelState::Ready);
}

#[test]
fn a_jit_caller_that_leaves_gives_the_others_back_and_ordinary_callers_evict_no_jit_model() {
    let mut desk = Desk::new(Limits {
        jit_auto_evict: true,
        ..limits(3)
    });
    let jit = |ask: &mut Acquire| ask.jit = true;
    desk.ask_with(entry("a"), jit);
    desk.ready();
    let lease = desk.leases()[0];
    // Nobody evicts for a caller of another port while there is room.
    let ordinary = desk.ask("c");
    desk.expect(&["start c"]);
    desk.ready();
    desk.expect(&[&format!("grant {}", ordinary.0)]);
    // Busy: closed after the caller's patience, serving again when the caller leaves.
    let ticket = desk.ask_with(entry("b"), jit);
    desk.advance(secs(3));
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Draining);
    desk.send(Event::CancelTicket(ticket));
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Ready);
    desk.release(lease);
    desk.expect(&[]);
}

#[test]
fn a_just_in_time_load_is_like_a_just_in_time_request() {
    let mut desk = Desk::new(Limits {
        jit_auto_evict: true,
        ..limits(3)
    });
    let minute = Some(KeepAlive::For(secs(60)));
    desk.load_as(entry("a"), minute, true);
    desk.ready();
    desk.seen.clear();
    // Its time to live counts from the load on, and the next one makes it leave.
    desk.load_as(entry("b"), Some(KeepAlive::Forever), true);
    desk.expect(&["stop 1"]);
    desk.exited(InstanceId(1));
    desk.ready();
    assert!(
        desk.scheduler
            .instance(&"b".into())
            .is_some_and(|b| b.jit && b.keep_alive == KeepAlive::Forever)
    );
    // A load of what is there changes nothing; an explicit one makes it stay.
    desk.load_as(entry("b"), minute, true);
    assert!(
        desk.scheduler
            .instance(&"b".into())
            .is_some_and(|b| b.jit && b.keep_alive == KeepAlive::Forever)
    );
    desk.load(entry("b"), minute);
    assert!(
        desk.scheduler
            .instance(&"b".into())
            .is_some_and(|b| !b.jit && Some(b.keep_alive) == minute)
    );
    // After a crash it does not come back by itself.
    desk.load_as(entry("c"), None, true);
    desk.ready();
    desk.send(Event::Exited {
        instance: InstanceId(3),
        report: report(true),
    });
    desk.advance(secs(3600));
    assert!(desk.scheduler.is_gone(&"c".into()));
}

#[test]
fn a_request_never_loads_a_further_instance() {
    let mut desk = Desk::new(limits(3));
    let further = || ModelEntry {
        instance_of: Some("a".into()),
        ..entry("a:2")
    };
    let refused = desk.ask_with(further(), |_| ());
    assert!(matches!(&desk.seen[..], [Effect::Reject { error, .. }] if error.kind == ErrorKind::ModelNotFound));
    desk.expect(&[&format!("reject {}", refused.0)]);
    desk.load(further(), None);
    desk.ready();
    desk.seen.clear();
    let asked = desk.ask_with(further(), |_| ());
    desk.expect(&[&format!("grant {}", asked.0)]);
    // It was loaded by name, so it comes back after a crash, and its callers wait for it.
    desk.send(Event::Exited {
        instance: InstanceId(1),
        report: report(true),
    });
    assert!(!desk.scheduler.is_gone(&"a:2".into()));
    desk.seen.clear();
    desk.ask_with(further(), |_| ());
    desk.expect(&[]);
}

#[test]
fn a_load_without_callers_is_cancelled_but_not_an_explicit_one() {
    let mut desk = Desk::new(limits(2));
    let ask = desk.ask("a");
    let load = desk.load(entry("b"), None);
    desk.expect(&["start a", "start b"]);
    desk.send(Event::CancelTicket(ask));
    desk.expect(&["kill 1"]);
    // A new caller waits for the old process to be gone, then gets a new one.
    let again = desk.ask("a");
    desk.expect(&[]);
    desk.exited(InstanceId(1));
    desk.expect(&["start a"]);
    desk.ready();
    desk.expect(&[&format!("grant {}", again.0)]);
    desk.send(Event::Ready {
        instance: InstanceId(2),
        launch: loaded(&LaunchOptions::default()),
    });
    desk.expect(&[&format!("loaded {}", load.0)]);
}

#[test]
fn larger_options_restart_once_and_smaller_ones_do_not() {
    let wish = |context| LaunchOptions {
        context: Some(context),
        ..LaunchOptions::default()
    };
    let mut desk = Desk::new(limits(1));
    desk.ask_with(entry("a"), |ask| ask.wish = wish(4096));
    desk.ready();
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.ask_with(entry("a"), |ask| {
        ask.wish = LaunchOptions {
            gpu_layers: Some(3),
            ..wish(8192)
        }
    });
    desk.expect(&["stop 1"]);
    desk.exited(InstanceId(1));
    desk.ready();
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.ask_with(entry("a"), |ask| ask.wish = wish(2048));
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.ask_with(entry("a"), |ask| ask.wish.parallel = Some(2));
    desk.expect(&["stop 2"]);
    desk.exited(InstanceId(2));
    let expected = LaunchOptions {
        gpu_layers: Some(3),
        parallel: Some(2),
        ..wish(8192)
    };
    assert_eq!(desk.started.last().expect("started").1, expected);
}

#[test]
fn an_engine_that_gives_less_than_asked_is_not_restarted_for_ever() {
    let mut desk = Desk::new(limits(1));
    desk.ask_with(entry("a"), |ask| ask.wish.context = Some(32_768));
    let launch = LoadedLaunch {
        context: 8192,
        ..loaded(&desk.started[0].1)
    };
    desk.send(Event::Ready {
        instance: InstanceId(1),
        launch,
    });
    desk.expect(&["start a", "grant 1"]);
}

#[test]
fn embedding_and_completion_take_turns() {
    let mut desk = Desk::new(limits(1));
    desk.ask_with(entry("a"), |ask| ask.wish.mode = Some(EngineMode::Completion));
    desk.ready();
    let lease = desk.leases()[0];
    desk.ask_with(entry("a"), |ask| ask.wish.mode = Some(EngineMode::Embedding));
    desk.ask_with(entry("a"), |ask| ask.wish.mode = Some(EngineMode::Completion));
    desk.release(lease);
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.expect(&["stop 1"]);
    desk.exited(InstanceId(1));
    desk.ready();
    desk.expect(&["start a", "grant 2"]);
}

#[test]
fn a_crash_lets_callers_wait_for_the_retry() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ask("a");
    desk.ready();
    desk.expect(&["start a", "grant 1"]);
    desk.exited(InstanceId(1));
    desk.expect(&["failed a"]);
    desk.advance(Duration::from_millis(999));
    desk.expect(&[]);
    desk.advance(Duration::from_millis(200));
    desk.expect(&["start a"]);
    desk.ready();
    desk.expect(&["grant 2"]);
    // The lease of the dead instance gives nothing back.
    desk.release(LeaseId(1));
    assert_eq!(desk.scheduler.instance(&"a".into()).expect("loaded").active, 1);
}

#[test]
fn a_failure_that_would_repeat_answers_everybody() {
    let mut desk = Desk::new(limits(1));
    (0..3).for_each(|_| {
        desk.ask("a");
    });
    desk.send(Event::StartFailed {
        instance: InstanceId(1),
        report: report(false),
    });
    desk.expect(&["start a", "failed a", "reject 1", "reject 2", "reject 3"]);
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Failed(report(false)));
    desk.ask("a");
    desk.expect(&["start a"]);
}

#[test]
fn retries_are_bounded() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    for n in 1..=6 {
        desk.expect(&["start a"]);
        desk.send(Event::StartFailed {
            instance: InstanceId(n),
            report: report(true),
        });
        if n < 6 {
            desk.expect(&["failed a"]);
            desk.advance(secs(18));
        }
    }
    desk.expect(&["failed a", "reject 1"]);
}

#[test]
fn explicit_models_come_back_after_a_crash() {
    let mut desk = Desk::new(limits(1));
    desk.load(entry("a"), Some(KeepAlive::Forever));
    desk.ready();
    desk.exited(InstanceId(1));
    desk.advance(secs(2));
    desk.expect(&["start a", "loaded 1", "failed a", "start a"]);
    desk.ready();
    assert_eq!(
        desk.scheduler.instance(&"a".into()).expect("loaded").keep_alive,
        KeepAlive::Forever
    );
}

#[test]
fn waiting_is_bounded_but_loading_is_not() {
    let mut desk = Desk::new(Limits {
        max_wait: secs(30),
        ..limits(1)
    });
    desk.ask("a");
    desk.ask("a");
    desk.advance(secs(600));
    desk.expect(&["start a"]);
    desk.ready();
    desk.expect(&["grant 1"]);
    desk.advance(secs(29));
    desk.expect(&[]);
    desk.advance(secs(1));
    let Some(Effect::Reject { error, .. }) = desk.seen.first() else {
        panic!("{:?}", desk.seen)
    };
    assert!(matches!(error.kind, ErrorKind::Overloaded { .. }));
}

#[test]
fn the_queue_is_bounded() {
    let mut desk = Desk::new(Limits {
        max_queue: 2,
        ..limits(1)
    });
    (0..3).for_each(|_| {
        desk.ask("a");
    });
    desk.expect(&["start a", "reject 3"]);
    let mut desk = Desk::new(Limits {
        max_queue_per_model: 1,
        ..limits(2)
    });
    for model in ["a", "b", "a"] {
        desk.ask(model);
    }
    desk.expect(&["start a", "start b", "reject 3"]);
}

#[test]
fn autoload_off_needs_an_explicit_load() {
    let mut desk = Desk::new(Limits {
        autoload: false,
        ..limits(1)
    });
    desk.ask("a");
    desk.expect(&["reject 1"]);
    desk.load(entry("a"), None);
    desk.ask("a");
    desk.ready();
    desk.expect(&["start a", "loaded 2", "grant 3"]);
}

#[test]
fn unload_drains_and_force_cuts() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ready();
    let lease = desk.leases()[0];
    desk.send(Event::Unload {
        key: "a".into(),
        force: false,
    });
    desk.expect(&[]);
    desk.send(Event::Unload {
        key: "a".into(),
        force: true,
    });
    desk.expect(&["kill 1"]);
    desk.release(lease);
    desk.exited(InstanceId(1));
    desk.expect(&[]);
    assert_eq!(desk.scheduler.state(&"a".into()), ModelState::Unloaded);

    desk.ask("a");
    desk.send(Event::Unload {
        key: "a".into(),
        force: false,
    });
    desk.expect(&["start a", "kill 2", "reject 2"]);
}

#[test]
fn a_request_that_meets_an_idle_unload_starts_the_model_again() {
    let mut desk = Desk::new(limits(1));
    desk.ask("a");
    desk.ready();
    let lease = desk.leases()[0];
    desk.release(lease);
    desk.advance(secs(300));
    desk.expect(&["stop 1"]);
    desk.ask("a");
    desk.expect(&[]);
    desk.exited(InstanceId(1));
    desk.ready();
    desk.expect(&["start a", "grant 2"]);
}

#[test]
fn shutdown_drains_then_cuts() {
    let mut desk = Desk::new(limits(3));
    desk.ask("busy");
    desk.ready();
    desk.load(entry("idle"), None);
    desk.ready();
    desk.ask("loading");
    desk.seen.clear();
    desk.send(Event::Shutdown { now: false });
    desk.expect(&["stop 2", "reject 3", "kill 3"]);
    desk.ask("late");
    desk.expect(&["reject 4"]);
    desk.send(Event::Shutdown { now: true });
    desk.expect(&["kill 1", "kill 2", "kill 3"]);
    (1..4).for_each(|n| desk.exited(InstanceId(n)));
    desk.expect(&[]);
    assert_eq!(desk.scheduler.occupied(), 0);
}

#[test]
fn a_lower_limit_leaves_running_models_alone() {
    let mut desk = Desk::new(limits(3));
    for model in ["a", "b", "c"] {
        desk.ask(model);
        desk.ready();
        let lease = desk.leases()[0];
        desk.release(lease);
    }
    desk.send(Event::SetLimits(limits(1)));
    desk.expect(&[]);
    assert_eq!(desk.scheduler.occupied(), 3);
    desk.ask("d");
    assert_eq!(desk.words().len(), 1, "one leaves at a time");
}

#[test]
fn two_names_over_the_same_files_share_one_instance() {
    let mut desk = Desk::new(limits(3));
    let second = || ModelEntry {
        runs_as: Some("a".into()),
        ..entry("copy-of-a")
    };
    desk.ask("a");
    desk.expect(&["start a"]);
    desk.ready();
    let first = desk.leases()[0];
    desk.release(first);
    desk.ask_with(second(), |_| ());
    desk.expect(&["grant 2"]);
    assert_eq!(desk.scheduler.occupied(), 1);
}

#[test]
fn a_model_made_anew_under_the_same_name_is_loaded_anew() {
    let mut desk = Desk::new(limits(3));
    desk.ask("a");
    desk.expect(&["start a"]);
    let old = desk.ready();
    let first = desk.leases()[0];
    desk.ask_with(
        ModelEntry {
            path: "/other/weights".into(),
            ..entry("a")
        },
        |_| (),
    );
    desk.expect(&[]);
    desk.release(first);
    desk.expect(&[&format!("stop {old}")]);
    desk.exited(old);
    desk.expect(&["start a"]);
    desk.ready();
    desk.expect(&["grant 2"]);
}
