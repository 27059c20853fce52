//! R2: a stop takes the whole tree and always reaps.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use supervisor::StopPlan;
use testkit::{ProcessId, ProcessProbe, models_dir, stub_engine_path};

use crate::kit::Kit;

fn short(mut spec: supervisor::ChildSpec) -> supervisor::ChildSpec {
    spec.stop.grace = Duration::from_millis(1400);
    spec.stop.second_term_grace = Duration::from_millis(200);
    spec
}

#[tokio::test]
async fn grandchildren_and_deaf_children_go_strangers_stay() {
    let kit = Kit::new();
    let stranger = Command::new(stub_engine_path())
        .args(["--port", "0", "-m"])
        .arg(models_dir().join("tiny-chat.gguf"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Stranger)
        .unwrap();
    let spec = short(kit.stub("deaf", &[("STUB_IGNORE_TERM", "1"), ("STUB_GRANDCHILD", "1")]));
    let (child, port, _lines) = kit.ready(spec).await;
    let ids = [child.pid(), kit.grandchild("deaf")].map(|pid| ProcessId::of(pid).unwrap());
    assert_eq!(ProcessProbe::listeners_on(port).len(), 2, "both hold the port");

    let report = child.stop().await;

    assert_eq!((report.code, report.signal, report.requested), (None, Some(9), true));
    assert_eq!(kit.asked("deaf"), ["message", "term", "term"]);
    assert!(!ids[0].exists(), "reaped: no <defunct> entry");
    assert_ends(ids[1]).await;
    assert!(ProcessProbe::listeners_on(port).is_empty());
    assert!(ProcessId::of(stranger.0.id()).unwrap().is_running());
}

/// Ends with the test, however that ends.
struct Stranger(std::process::Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A grandchild is init's to reap, but it must not run any more.
async fn assert_ends(grandchild: ProcessId) {
    let start = Instant::now();
    while grandchild.is_running() && start.elapsed() < Duration::from_secs(2) {
        tokio::task::yield_now().await;
    }
    assert!(!grandchild.is_running());
}

#[tokio::test]
async fn grandchildren_go_however_their_parent_ended() {
    for how in ["stopped", "crashed"] {
        let kit = Kit::new();
        let (child, port, _lines) = kit.ready(kit.stub(how, &[("STUB_GRANDCHILD", "1")])).await;
        let grandchild = ProcessId::of(kit.grandchild(how)).unwrap();
        assert!(grandchild.is_running());
        let report = if how == "stopped" {
            child.stop().await
        } else {
            crate::kit::kill("-KILL", child.pid());
            child.wait().await
        };
        assert_eq!(
            (report.code, report.requested),
            if how == "stopped" {
                (Some(0), true)
            } else {
                (None, false)
            }
        );
        assert_ends(grandchild).await;
        assert!(ProcessProbe::listeners_on(port).is_empty());
    }
}

#[tokio::test]
async fn an_idle_child_ends_by_the_message_alone() {
    let kit = Kit::new();
    let (child, _, _lines) = kit.ready(kit.stub("polite", &[])).await;
    let start = Instant::now();
    let report = child.stop().await;
    assert_eq!((report.code, report.signal, report.requested), (Some(0), None, true));
    assert_eq!(kit.asked("polite"), ["message"]);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test]
async fn without_a_message_sigterm_comes_first() {
    let kit = Kit::new();
    let mut spec = kit.stub("term", &[]);
    spec.stop.stdin_message = None;
    let (child, _, _lines) = kit.ready(spec).await;
    assert_eq!(child.stop().await.code, Some(0));
    assert_eq!(kit.asked("term"), ["term"]);
}

#[tokio::test]
async fn any_number_of_stops_is_one_stop() {
    let kit = Kit::new();
    let (child, _, _lines) = kit.ready(short(kit.stub("shared", &[("STUB_IGNORE_TERM", "1")]))).await;
    // One caller gives up at once; the stop goes on.
    let given_up = tokio::time::timeout(Duration::ZERO, child.stop()).await;
    assert!(given_up.is_err());
    let reports = futures(20, &child).await;
    assert!(reports.iter().all(|report| *report == reports[0] && report.requested));
    assert_eq!(kit.asked("shared"), ["message", "term", "term"]);
}

async fn futures(n: usize, child: &supervisor::Child) -> Vec<supervisor::ExitReport> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..n {
        let child = child.clone();
        tasks.spawn(async move { child.stop().await });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn stop_and_kill_work_while_loading() {
    let kit = Kit::new();
    for (how, signal) in [("stop", 15), ("kill", 9)] {
        let (child, mut lines) = kit
            .supervisor
            .spawn(kit.stub(how, &[("STUB_LOAD_MS", "600000")]))
            .await
            .unwrap();
        crate::kit::line_with(&mut lines, "loading model").await;
        let start = Instant::now();
        let report = if how == "stop" {
            child.stop().await
        } else {
            child.kill().await
        };
        assert_eq!((report.signal, report.requested), (Some(signal), true), "{how}");
        assert!(start.elapsed() < Duration::from_secs(2), "{how}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn kill_overtakes_a_stop() {
    let kit = Kit::new();
    let (child, _, _lines) = kit.ready(kit.stub("hurry", &[("STUB_IGNORE_TERM", "1")])).await;
    let _ = tokio::time::timeout(Duration::from_millis(10), child.stop()).await;
    let start = Instant::now();
    assert_eq!(child.kill().await.signal, Some(9));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn shutdown_stops_all_at_once() {
    let kit = Kit::new();
    let mut probe = ProcessProbe::of_self().unwrap();
    for n in 0..4 {
        kit.ready(short(kit.stub(&format!("deaf{n}"), &[("STUB_IGNORE_TERM", "1")])))
            .await;
    }
    let ours: Vec<u32> = kit.supervisor.children().iter().map(|(_, pid)| *pid).collect();
    assert_eq!(ours.len(), 4);
    probe.refresh();
    let start = Instant::now();
    kit.supervisor.shutdown().await;
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "one after the other? {:?}",
        start.elapsed()
    );
    assert!(!probe.survivors().iter().any(|id| ours.contains(&id.pid)));
}

#[test]
fn the_default_plan_is_the_promised_one() {
    let plan = StopPlan::default();
    assert_eq!((plan.stdin_message, plan.grace), (None, Duration::from_secs(10)));
}
