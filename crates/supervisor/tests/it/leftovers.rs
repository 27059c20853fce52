//! R3: leftovers of an earlier life are removed, and nothing else is.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use supervisor::{INSTANCE_TAG_VARIABLE, Supervisor};
use testkit::{ProcessId, ProcessProbe};

use crate::kit::{Kit, Role, settings};

const TAG: &str = "0123456789abcdef0123456789abcdef";

/// A `sleep` with the tag in its environment; not a child of any supervisor.
fn sleeper(tag: &str) -> Child {
    Command::new("sleep")
        .arg("600")
        .env(INSTANCE_TAG_VARIABLE, tag)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The PID and start time of a process that is gone.
fn dead() -> (u32, u64) {
    let mut child = sleeper("x");
    let id = ProcessId::of(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    (id.pid, id.start)
}

fn write_state(folder: &Path, pid: u32, start_time: u64, exe: &str, owner: (u32, u64)) {
    let children = folder.join("state/children");
    std::fs::create_dir_all(&children).unwrap();
    let state = serde_json::json!({"tag": TAG, "label": "old", "pid": pid, "start_time": start_time, "exe": exe,
        "owner_pid": owner.0, "owner_start_time": owner.1});
    std::fs::write(children.join(format!("{TAG}.json")), state.to_string()).unwrap();
}

/// One fact after the other is wrong: each time the process must live. With all facts right it must die.
#[tokio::test]
async fn only_a_full_match_is_killed() {
    let me = ProcessId::of(std::process::id()).unwrap();
    for case in [
        "start time",
        "program",
        "tag",
        "owner lives",
        "file renamed",
        "all match",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut process = sleeper(if case == "tag" { "another" } else { TAG });
        let id = ProcessId::of(process.id()).unwrap();
        let exe = std::fs::read_link(format!("/proc/{}/exe", id.pid))
            .unwrap()
            .display()
            .to_string();
        let start_time = if case == "start time" { id.start - 1 } else { id.start };
        let exe = if case == "program" { "/usr/bin/other" } else { &exe };
        let owner = if case == "owner lives" {
            (me.pid, me.start)
        } else {
            dead()
        };
        write_state(folder.path(), id.pid, start_time, exe, owner);
        let file = folder.path().join(format!("state/children/{TAG}.json"));
        if case == "file renamed" {
            std::fs::rename(&file, file.with_file_name("other.json")).unwrap();
        }
        Supervisor::start(settings(folder.path())).unwrap();
        assert_eq!(id.is_running(), case != "all match", "{case}");
        assert_eq!(file.exists(), case == "owner lives", "{case}");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[tokio::test]
async fn a_grandchild_that_outlived_the_app_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Role::start("grandchild", folder.path());
    let numbers: Vec<u32> = owner.says.iter().map(|word| word.parse().unwrap()).collect();
    let (child, grandchild) = (ProcessId::of(numbers[0]).unwrap(), ProcessId::of(numbers[1]).unwrap());
    owner.kill();
    let start = Instant::now();
    while child.is_running() && start.elapsed() < Duration::from_secs(2) {
        std::thread::yield_now();
    }
    assert!(
        !child.is_running() && grandchild.is_running(),
        "the fault this test needs"
    );
    let kit = Kit::at(folder.path());
    assert!(!grandchild.is_running());
    let port = u16::try_from(numbers[2]).unwrap();
    assert!(ProcessProbe::listeners_on(port).is_empty());
    assert!(kit.state_files().is_empty());
}

#[tokio::test]
async fn children_of_a_second_running_app_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let owner = Role::start("three-engines", folder.path());
    let mut probe = ProcessProbe::of(owner.process.id()).unwrap();
    let theirs = probe.refresh();
    let kit = Kit::at(folder.path());
    assert_eq!(kit.state_files().len(), 3);
    assert!(theirs.len() == 3 && theirs.iter().all(|id| id.is_running()));
}

#[tokio::test]
async fn a_running_child_has_a_private_file_and_an_ended_one_none() {
    use std::os::unix::fs::PermissionsExt;
    let kit = Kit::new();
    let (child, _, _lines) = kit.ready(kit.stub("noted", &[])).await;
    let files = kit.state_files();
    assert_eq!(files.len(), 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files[0]), mode(files[0].parent().unwrap())), (0o600, 0o700));
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
    let id = ProcessId::of(child.pid()).unwrap();
    assert_eq!(
        (state["pid"].as_u64(), state["start_time"].as_u64()),
        (Some(id.pid.into()), Some(id.start))
    );
    assert_eq!(
        state["exe"].as_str().map(Path::new),
        Some(testkit::stub_engine_path().canonicalize().unwrap().as_path())
    );
    child.stop().await;
    kit.supervisor.shutdown().await;
    assert!(kit.state_files().is_empty());
}

#[tokio::test]
async fn rubbish_in_the_folder_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let children = folder.path().join("state/children");
    std::fs::create_dir_all(children.join("folder.json")).unwrap();
    for (name, text) in [
        ("a.json", "{"),
        ("b.json", "[1]"),
        ("c.txt", "x"),
        ("d.partial", ""),
        (".json", "{}"),
    ] {
        std::fs::write(children.join(name), text).unwrap();
    }
    // PIDs that mean "everybody" or "our group" to kill.
    write_state(folder.path(), 1, 0, "/sbin/init", dead());
    let kit = Kit::at(folder.path());
    let (child, _, _lines) = kit.ready(kit.stub("fine", &[])).await;
    assert_eq!(child.stop().await.code, Some(0));
}
