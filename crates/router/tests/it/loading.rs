//! Starting, swapping, cancelling and unloading.

use std::time::{Duration, Instant};

use domain::{ErrorKind, EventKind, KeepAlive, LaunchOptions, ModelState, RequestPhase};
use router::{LeaseRequest, RouterSettings};
use serde_json::json;
use testkit::{ProcessId, Recorded, stub_marks};
use tokio::task::JoinSet;

use crate::rig::{LIMIT, Rig, ask, chat, drain, next, send, until};

fn one_place() -> RouterSettings {
    RouterSettings {
        max_loaded_models: Some(1),
        ..RouterSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_start_one_process() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[("STUB_LOAD_MS", "100")]);
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let (router, request) = (rig.router.clone(), ask(&model));
        callers.spawn(async move {
            router
                .lease(request)
                .await
                .map(|lease| (lease.waited(), lease.load_time()))
        });
    }
    while let Some(result) = tokio::time::timeout(LIMIT, callers.join_next()).await.unwrap() {
        let (waited, load) = result.unwrap().unwrap();
        assert!(load <= waited && load > Duration::ZERO);
    }
    assert_eq!(rig.starts("a"), 1);
    assert!(rig.router.active_requests().is_empty());
    let lease = rig.lease(&model).await.unwrap();
    assert_eq!(lease.load_time(), Duration::ZERO);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_cuts_no_stream_and_never_runs_two() {
    let rig = Rig::new(one_place());
    let (a, b) = (rig.model("a", &[]), rig.model("b", &[]));
    let lease = rig.lease(&a).await.unwrap();
    let pid = ProcessId::of(lease.instance().pid.unwrap()).unwrap();
    let response = send(&lease, chat(true, &json!({"tokens": 40, "rate": 100.0})))
        .await
        .unwrap();
    drop(lease);
    let stream = tokio::spawn(drain(response.into_body()));
    let other = rig.lease(&b).await.unwrap();
    assert!(stream.is_finished(), "the running stream was cut or both ran at once");
    assert!(
        !pid.exists(),
        "the old process was not reaped before the new one started"
    );
    let (bytes, end) = stream.await.unwrap();
    assert_eq!(end, Ok(()));
    let seqs: Vec<u64> = stub_marks(&bytes).iter().map(|mark| mark.seq).collect();
    assert_eq!(seqs, (0..seqs.len() as u64).collect::<Vec<_>>());
    assert!(String::from_utf8(bytes).unwrap().ends_with("data: [DONE]\n\n"));
    drop(other);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_without_callers_is_cancelled() {
    let rig = Rig::new(one_place());
    let model = rig.model("a", &[("STUB_LOAD_MS", "600000"), ("STUB_LOAD_STEPS", "1000")]);
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let (router, request) = (rig.router.clone(), ask(&model));
        callers.spawn(async move { router.lease(request).await.map(drop) });
    }
    until("loading", || rig.view(&model).is_some_and(|view| view.pid.is_some())).await;
    let pid = ProcessId::of(rig.view(&model).unwrap().pid.unwrap()).unwrap();
    assert!(
        rig.router
            .active_requests()
            .iter()
            .all(|r| r.phase == RequestPhase::Loading)
    );
    callers.shutdown().await;
    until("cancelled", || rig.view(&model).is_none()).await;
    assert!(!pid.exists());
    assert_eq!(rig.router.status(&model.key).0, ModelState::Unloaded);
    assert!(rig.router.active_requests().is_empty());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_and_states_are_told() {
    let rig = Rig::new(one_place());
    let mut events = rig.bus.subscribe();
    let model = rig.model("a", &[("STUB_LOAD_MS", "900"), ("STUB_LOAD_STEPS", "6")]);
    let lease = rig.lease(&model).await.unwrap();
    let (mut loading, mut requests) = (Vec::new(), false);
    loop {
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        match &event.kind {
            EventKind::Instance { instance } => match instance.state {
                ModelState::Loading { progress } => loading.push(progress),
                ModelState::Ready => {
                    assert!(instance.port.is_some() && instance.memory_bytes.is_some() && instance.active == 1);
                    break;
                }
                _ => {}
            },
            EventKind::Requests { active } => requests |= *active == 1,
            _ => {}
        }
    }
    assert!(
        requests && loading.iter().any(|progress| *progress > 0.0),
        "{loading:?}"
    );
    drop(lease);
    assert!(rig.router.unload(&model.key, false).await);
    assert!(!rig.router.unload(&model.key, false).await);
    rig.end().await;
    let mut gone = false;
    while let Ok(event) = events.try_recv() {
        gone |= matches!(&event.kind, EventKind::InstanceGone { model } if model.as_str() == "a");
    }
    assert!(gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_load_and_unload() {
    let rig = Rig::new(one_place());
    let model = rig.model("a", &[("STUB_LOAD_MS", "200")]);
    let forever = Some(KeepAlive::Forever);
    let view = rig
        .router
        .load(model.clone(), LaunchOptions::default(), forever, false)
        .await
        .unwrap();
    assert!(matches!(view.state, ModelState::Loading { .. }));
    let view = rig
        .router
        .load(model.clone(), LaunchOptions::default(), None, true)
        .await
        .unwrap();
    assert_eq!(
        (view.state, view.keep_alive, view.jit),
        (ModelState::Ready, KeepAlive::Forever, false)
    );
    assert_eq!(rig.starts("a"), 1);

    // Unloading waits for the running request, and the request is not cut.
    let lease = rig.lease(&model).await.unwrap();
    let response = send(&lease, chat(true, &json!({"tokens": 20, "rate": 100.0})))
        .await
        .unwrap();
    drop(lease);
    let (unloaded, (_, end)) = tokio::join!(rig.router.unload(&model.key, false), drain(response.into_body()));
    assert_eq!((unloaded, end), (true, Ok(())));
    assert_eq!(rig.router.status(&model.key).0, ModelState::Unloaded);
    assert!(rig.router.last_used(&model.key).is_some());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_while_loading_ends_it_and_answers_the_callers() {
    let rig = Rig::new(one_place());
    let model = rig.model(
        "a",
        &[
            ("STUB_LOAD_MS", "600000"),
            ("STUB_LOAD_STEPS", "1000"),
            ("STUB_IGNORE_TERM", "1"),
        ],
    );
    let (router, request) = (rig.router.clone(), ask(&model));
    let caller = tokio::spawn(async move { router.lease(request).await.map(drop) });
    until("loading", || rig.view(&model).is_some_and(|view| view.pid.is_some())).await;
    let begun = Instant::now();
    assert!(rig.router.unload(&model.key, false).await);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(caller.await.unwrap().unwrap_err().kind, ErrorKind::Cancelled);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_zero_unloads_after_the_request() {
    let rig = Rig::new(one_place());
    let model = rig.model("a", &[]);
    let mut request = ask(&model);
    request.keep_alive = Some(KeepAlive::For(Duration::ZERO));
    let lease = rig.router.lease(request).await.unwrap();
    let response = send(&lease, chat(false, &json!({"tokens": 3}))).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect_json(1 << 20).await.unwrap();
    drop(lease);
    until("unloaded", || rig.view(&model).is_none()).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_refused_at_once() {
    let rig = Rig::new(RouterSettings {
        max_queue: 1,
        ..one_place()
    });
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let (router, request) = (rig.router.clone(), ask(&model));
    let waiting = tokio::spawn(async move { router.lease(request).await.map(drop) });
    until("waiting", || rig.view(&model).is_some_and(|view| view.queued == 1)).await;
    let begun = Instant::now();
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Overloaded { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_millis(500));
    let phases: Vec<_> = rig.router.active_requests().iter().map(|r| r.phase).collect();
    assert_eq!(phases, [RequestPhase::Running, RequestPhase::Queued]);
    drop(lease);
    waiting.await.unwrap().unwrap();
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_settings_leave_running_models_alone() {
    let rig = Rig::new(RouterSettings::default());
    let (a, b) = (rig.model("a", &[]), rig.model("b", &[]));
    drop(rig.lease(&a).await.unwrap());
    drop(rig.lease(&b).await.unwrap());
    rig.router.apply(RouterSettings {
        autoload: false,
        ..one_place()
    });
    assert_eq!(rig.router.instances().len(), 2);
    drop(rig.lease(&a).await.unwrap());
    assert_eq!(rig.starts("a") + rig.starts("b"), 2);
    let error = rig.lease(&rig.model("c", &[])).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotLoaded);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_answers_finish_and_leaves_nothing() {
    let rig = Rig::new(RouterSettings::default());
    let (busy, idle, loading) = (
        rig.model("busy", &[]),
        rig.model("idle", &[]),
        rig.model("loading", &[("STUB_LOAD_MS", "600000")]),
    );
    let lease = rig.lease(&busy).await.unwrap();
    let mut body = send(&lease, chat(true, &json!({"tokens": 30, "rate": 100.0})))
        .await
        .unwrap()
        .into_body();
    drop(lease);
    drop(rig.lease(&idle).await.unwrap());
    rig.router
        .load(loading.clone(), LaunchOptions::default(), None, false)
        .await
        .unwrap();
    until("loading", || rig.view(&loading).is_some_and(|view| view.pid.is_some())).await;
    let pids: Vec<_> = rig
        .router
        .instances()
        .iter()
        .filter_map(|view| ProcessId::of(view.pid?))
        .collect();
    assert_eq!(pids.len(), 3);
    let router = rig.router.clone();
    let shutdown = tokio::spawn(async move { router.shutdown(LIMIT).await });
    let mut end = None;
    while let Some(item) = next(&mut body).await {
        end = Some(item);
    }
    assert!(end.unwrap().unwrap().ends_with(b"[DONE]\n\n"));
    drop(body);
    tokio::time::timeout(LIMIT, shutdown).await.unwrap().unwrap();
    assert!(pids.iter().all(|pid| !pid.exists()));
    let error = rig.router.lease(ask(&busy)).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_is_reached_by_its_own_key_and_no_other_server_can_stand_in() {
    let rig = Rig::new(one_place());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let mut request = chat(false, &json!({"tokens": 1}));
    for (name, value) in [
        ("authorization", "Bearer client"),
        ("x-api-key", "client"),
        ("x-conversation-id", "c1"),
    ] {
        request.headers.insert(name, value.parse().unwrap());
    }
    let response = send(&lease, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("server"));
    drop(response);
    let record = rig.record("a");
    let Some(Recorded::Start { argv, env, .. }) = record.first() else {
        panic!("{record:?}")
    };
    let key = &env["LLAMA_API_KEY"];
    assert!(key.len() >= 32 && !argv.iter().any(|arg| arg.contains(key.as_str())));
    let port = argv
        .iter()
        .position(|arg| arg == "--port")
        .map(|at| argv[at + 1].as_str());
    assert_eq!(
        port,
        Some("0"),
        "the system picks the port, so that nobody can sit on it (R7)"
    );
    for request in &record {
        let Recorded::Request { path, headers, .. } = request else {
            continue;
        };
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(value("authorization"), Some(format!("Bearer {key}")), "{path}");
        assert_eq!((value("x-api-key"), value("x-conversation-id")), (None, None));
    }
    drop(lease);
    rig.end().await;
}

/// The hot path is one lock and no task switch; the bound is for a debug build on a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leasing_a_loaded_model_is_quick() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    drop(rig.lease(&model).await.unwrap());
    let mut times = Vec::new();
    for _ in 0..2000 {
        let request = ask(&model);
        let begun = Instant::now();
        drop(rig.router.lease(request).await.unwrap());
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("lease and release: p10 {:?}, p50 {:?}", times[200], times[1000]);
    assert!(times[1000] < Duration::from_micros(300), "{:?}", times[1000]);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_models_leave_only_when_the_next_would_not_fit() {
    let by_memory = |memory_reserve| RouterSettings {
        jit_auto_evict: false,
        jit_evict_to_fit: true,
        memory_reserve,
        ..RouterSettings::default()
    };
    let rig = Rig::new(by_memory(0));
    let jit = |model| LeaseRequest {
        jit: true,
        ..ask(model)
    };
    let (a, b, c) = (rig.model("a", &[]), rig.model("b", &[]), rig.model("c", &[]));
    let named = rig.model("named", &[]);
    rig.router
        .load(named.clone(), LaunchOptions::default(), None, true)
        .await
        .unwrap();
    drop(rig.router.lease(jit(&a)).await.unwrap());
    let busy = rig.router.lease(jit(&b)).await.unwrap();
    assert!(rig.view(&a).is_some(), "there is room for all");
    // Nothing is left: the idle one goes, the busy one and the one loaded by name stay.
    rig.router.apply(by_memory(u64::MAX));
    drop(rig.router.lease(jit(&c)).await.unwrap());
    assert!(rig.view(&a).is_none());
    assert!(rig.view(&b).is_some() && rig.view(&named).is_some());
    drop(busy);
    rig.end().await;
}
