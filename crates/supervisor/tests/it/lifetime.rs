//! R1: no child outlives the app, and none dies before it.

use std::time::Duration;

use testkit::ProcessProbe;

use crate::kit::{Kit, Role};

#[test]
fn killing_the_app_leaves_no_child() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Role::start("three-engines", folder.path());
    let mut probe = ProcessProbe::of(owner.process.id()).unwrap();
    assert_eq!(probe.refresh().len(), 3);
    let ports: Vec<u16> = owner.says.iter().map(|word| word.parse().unwrap()).collect();
    assert!(ports.iter().all(|&port| !ProcessProbe::listeners_on(port).is_empty()));
    owner.kill();
    probe
        .wait_gone(Duration::from_secs(2))
        .unwrap_or_else(|left| panic!("outlived the app: {left:?}"));
    assert!(ports.iter().all(|&port| ProcessProbe::listeners_on(port).is_empty()));
}

/// The trap of R1: the parent-death signal follows the thread. A runtime whose idle threads end at once would kill the
/// child of a spawn made on one of them.
#[test]
fn children_live_on_when_idle_threads_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_keep_alive(Duration::from_millis(20))
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let kit = Kit::new();
        let (child, _, _lines) = kit.ready(kit.stub("quiet", &[])).await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
        assert!(early.is_err(), "died: {early:?}");
        assert!(child.exit().is_none());
        kit.supervisor.shutdown().await;
    });
}

#[tokio::test]
async fn a_spawn_from_a_thread_that_ends_keeps_its_child() {
    let kit = Kit::new();
    let (supervisor, spec) = (kit.supervisor.clone(), kit.stub("quiet", &[]));
    let handle = tokio::runtime::Handle::current();
    let thread = std::thread::spawn(move || handle.block_on(supervisor.spawn(spec)).unwrap());
    let (child, mut lines) = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    crate::kit::listening(&mut lines).await;
    assert!(child.exit().is_none());
    kit.supervisor.shutdown().await;
}

#[tokio::test]
async fn dropping_the_handles_stops_nothing_and_leaks_nothing() {
    let kit = Kit::new();
    let mut probe = ProcessProbe::of_self().unwrap();
    let (child, port, lines) = kit.ready(kit.stub("alone", &[])).await;
    let pid = child.pid();
    drop((child, lines));
    assert!(crate::kit::get(port, "/health").await.contains("200"));
    assert_eq!(kit.supervisor.children(), [("alone".to_owned(), pid)]);
    probe.refresh();
    kit.supervisor.shutdown().await;
    assert!(kit.supervisor.children().is_empty());
    assert!(!probe.survivors().iter().any(|id| id.pid == pid));
    let refused = kit.supervisor.spawn(kit.stub("late", &[])).await.unwrap_err();
    assert!(matches!(refused, supervisor::SupervisorError::ShuttingDown));
    kit.supervisor.shutdown().await;
}

#[test]
fn a_runtime_that_goes_takes_the_children_along() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (kit, id) = runtime.block_on(async {
        let kit = Kit::new();
        let (child, _, _lines) = kit.ready(kit.stub("orphan", &[("STUB_IGNORE_TERM", "1")])).await;
        (kit, testkit::ProcessId::of(child.pid()).unwrap())
    });
    drop(runtime);
    drop(kit);
    let start = std::time::Instant::now();
    while id.is_running() && start.elapsed() < Duration::from_secs(2) {
        std::thread::yield_now();
    }
    assert!(!id.is_running());
}
