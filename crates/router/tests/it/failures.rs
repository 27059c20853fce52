//! Engines that die, hang, stall or refuse.

use std::time::{Duration, Instant};

use domain::{ErrorKind, ModelState};
use router::RouterSettings;
use serde_json::json;

use testkit::{Recorded, monotonic_ns};

use crate::rig::{Rig, chat, drain, send, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_mid_stream_says_so_and_the_next_request_gets_a_new_engine() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let script = json!({"tokens": 100, "die_after": 5, "die": "signal:6"});
    let sent = monotonic_ns();
    let response = send(&lease, chat(true, &script)).await.unwrap();
    drop(lease);
    let (bytes, end) = drain(response.into_body()).await;
    assert!(!bytes.is_empty());
    let error = end.unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    until("noticed", || {
        matches!(rig.router.status(&model.key).0, ModelState::Failed(_))
    })
    .await;
    let ModelState::Failed(report) = rig.router.status(&model.key).0 else {
        panic!("failed")
    };
    assert_eq!((report.signal, report.reason), (Some(6), error.message));
    let lease = rig.lease(&model).await.unwrap();
    assert_eq!(send(&lease, chat(false, &json!({}))).await.unwrap().status(), 200);
    let starts = rig.record("a").into_iter().filter_map(|record| match record {
        Recorded::Start { at_ns, .. } => Some(at_ns),
        _ => None,
    });
    let starts: Vec<u64> = starts.collect();
    // Back-off: not before a second has passed (R5).
    assert!(
        starts.len() == 2 && starts[1] - sent > 1_000_000_000,
        "{sent}, {starts:?}"
    );
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_the_engine_is_not_sent_again() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    // A used connection is in the pool, as with a client that keeps talking.
    drain(
        send(&lease, chat(false, &json!({"tokens": 1})))
            .await
            .unwrap()
            .into_body(),
    )
    .await
    .1
    .unwrap();
    let killer = chat(false, &json!({"tokens": 9, "die_after": 1, "die": "signal:11"}));
    let error = match send(&lease, killer).await {
        Ok(response) => drain(response.into_body()).await.1.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    drop(lease);
    drop(rig.lease(&model).await.unwrap());
    assert_eq!(rig.chats("a"), 2);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_no_end() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let response = send(&lease, chat(true, &json!({"tokens": 50, "cut_after": 7})))
        .await
        .unwrap();
    let (_, end) = drain(response.into_body()).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::EngineFailed);
    // The engine itself is well.
    assert_eq!(send(&lease, chat(false, &json!({}))).await.unwrap().status(), 200);
    assert_eq!(rig.starts("a"), 1);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_engine_is_replaced() {
    let settings = RouterSettings {
        watchdog: Duration::from_millis(400),
        ..RouterSettings::default()
    };
    let rig = Rig::new(settings);
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let pid = lease.instance().pid;
    let response = send(&lease, chat(true, &json!({"tokens": 50, "hang_after": 3})))
        .await
        .unwrap();
    drop(lease);
    let (_, end) = drain(response.into_body()).await;
    let error = end.unwrap_err();
    assert!(error.message.contains("hung"), "{error}");
    let lease = rig.lease(&model).await.unwrap();
    assert_ne!(lease.instance().pid, pid);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_engine_is_left_alone() {
    let settings = RouterSettings {
        watchdog: Duration::from_millis(500),
        ..RouterSettings::default()
    };
    let rig = Rig::new(settings);
    let model = rig.model("a", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let script = json!({"tokens": 3, "rate": 0.8, "first_ms": 2000});
    let response = send(&lease, chat(true, &script)).await.unwrap();
    let (_, end) = drain(response.into_body()).await;
    assert_eq!(end, Ok(()));
    assert_eq!(rig.starts("a"), 1);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_load_is_given_up_and_a_slow_one_is_not() {
    let settings = RouterSettings {
        stall_timeout: Duration::from_millis(3500),
        ..RouterSettings::default()
    };
    let rig = Rig::new(settings);
    let silent = rig.model("silent", &[("STUB_LOAD_MS", "600000"), ("STUB_LOAD_STEPS", "0")]);
    // Dots without a line end are a sign of life too.
    let slow = rig.model(
        "slow",
        &[
            ("STUB_LOAD_MS", "7500"),
            ("STUB_LOAD_STEPS", "5"),
            ("STUB_LOAD_DOTS", "1"),
        ],
    );
    rig.router
        .load(silent.clone(), domain::LaunchOptions::default(), None, false)
        .await
        .unwrap();
    let lease = rig.lease(&slow).await.unwrap();
    assert!(lease.load_time() > Duration::from_secs(4));
    drop(lease);
    until("given up", || {
        matches!(
            rig.router.status(&silent.key).0,
            ModelState::Failed(_) | ModelState::Queued
        )
    })
    .await;
    assert!(rig.router.unload(&silent.key, true).await || rig.view(&silent).is_none());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_answers_at_once_and_a_passing_fault_is_retried() {
    let rig = Rig::new(RouterSettings::default());
    let bad = rig.model(
        "bad",
        &[
            ("STUB_DIE_LOADING", "exit:1"),
            ("STUB_DIE_MESSAGE", "gguf_init_from_file: invalid magic"),
        ],
    );
    let begun = Instant::now();
    let error = rig.lease(&bad).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(rig.router.status(&bad.key).0, ModelState::Failed(report) if report.reason == error.message));
    assert_eq!(rig.starts("bad"), 1);

    let once = rig.path("once").to_string_lossy().into_owned();
    let flaky = rig.model("flaky", &[("STUB_ONCE", &once), ("STUB_DIE_LOADING", "signal:11")]);
    drop(rig.lease(&flaky).await.unwrap());
    assert_eq!(rig.starts("flaky"), 2);
    assert!(!rig.router.engine_log(&flaky.key).tail(10).is_empty());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_refuses_our_key_is_not_used() {
    let rig = Rig::new(RouterSettings {
        max_wait: Duration::from_millis(200),
        ..RouterSettings::default()
    });
    let model = rig.model("a", &[("STUB_REFUSE_KEY", "1")]);
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    assert!(error.message.contains("refused"), "{error}");
    assert_eq!(rig.chats("a"), 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_killed_from_outside_is_noticed() {
    let rig = Rig::new(RouterSettings::default());
    let model = rig.model("a", &[("STUB_DIE_READY", "signal:9"), ("STUB_DIE_AFTER_MS", "300")]);
    drop(rig.lease(&model).await.unwrap());
    until("noticed", || {
        matches!(rig.router.status(&model.key).0, ModelState::Failed(_))
    })
    .await;
    assert!(rig.view(&model).is_none());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory_is_tried_twice_with_less_and_then_told() {
    let rig = Rig::new(RouterSettings::default());
    let faults = [
        ("STUB_DIE_LOADING", "exit:1"),
        ("STUB_DIE_MESSAGE", "cudaMalloc failed: out of memory"),
    ];
    let mut model = (*rig.model("a", &faults)).clone();
    model.launch.context = Some(8192);
    let error = rig.lease(&model.shared()).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    let contexts: Vec<u32> = rig
        .record("a")
        .iter()
        .filter_map(|record| match record {
            Recorded::Start { argv, .. } => argv
                .iter()
                .position(|a| a == "-c")
                .map(|at| argv[at + 1].parse().unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(contexts, [8192, 4096, 2048]);
    rig.end().await;
}
