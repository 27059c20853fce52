//! R4: the end of a child is noticed at once, with its reason.

use std::time::{Duration, Instant};

use crate::kit::{Kit, kill};

#[tokio::test]
async fn a_kill_from_outside_is_noticed_and_was_not_ours() {
    let kit = Kit::new();
    let (child, _, mut lines) = kit.ready(kit.stub("victim", &[])).await;
    assert!(child.memory_bytes().unwrap() > 1024 * 1024);
    let start = Instant::now();
    kill("-KILL", child.pid());
    let report = child.wait().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((report.code, report.signal, report.requested), (None, Some(9), false));
    assert!(
        report.last_lines.iter().any(|line| line.contains("listening on")),
        "{:?}",
        report.last_lines
    );
    assert_eq!(child.exit(), Some(report));
    assert_eq!(child.memory_bytes(), None);
    assert!(kit.supervisor.children().is_empty());
    while lines.recv().await.is_some() {}
    // Asking a dead child to stop answers at once, with how it really ended.
    assert!(!child.stop().await.requested);
    assert!(!child.kill().await.requested);
}

#[tokio::test]
async fn every_way_to_end_is_reported() {
    let kit = Kit::new();
    for (label, faults, expected) in [
        (
            "before",
            [("STUB_DIE_BEFORE_BIND", "exit:3"), ("STUB_DIE_MESSAGE", "cannot")],
            (Some(3), None),
        ),
        (
            "loading",
            [("STUB_DIE_LOADING", "signal:6"), ("STUB_DIE_MESSAGE", "GGML_ASSERT")],
            (None, Some(6)),
        ),
        (
            "zero",
            [("STUB_DIE_READY", "exit:0"), ("STUB_DIE_MESSAGE", "bye")],
            (Some(0), None),
        ),
        (
            "crash",
            [("STUB_DIE_READY", "signal:11"), ("STUB_DIE_MESSAGE", "oops")],
            (None, Some(11)),
        ),
    ] {
        let (child, lines) = kit.supervisor.spawn(kit.stub(label, &faults)).await.unwrap();
        // Nobody reads the lines: the report must still have them.
        drop(lines);
        let report = tokio::time::timeout(crate::kit::LIMIT, child.wait()).await.unwrap();
        assert_eq!((report.code, report.signal), expected, "{label}");
        assert!(!report.requested, "{label}");
        // Not always the last one: two pipes are read, and either may be first.
        let said = report.last_lines.iter().any(|line| line.ends_with(faults[1].1));
        assert!(said, "{label}: {:?}", report.last_lines);
    }
}

#[tokio::test]
async fn the_crash_log_is_kept_and_a_stop_writes_none() {
    let kit = Kit::new();
    let faults = [
        ("STUB_DIE_READY", "signal:6"),
        ("STUB_DIE_MESSAGE", "GGML_ASSERT(x) failed"),
    ];
    let (child, _lines) = kit.supervisor.spawn(kit.stub("crash:1", &faults)).await.unwrap();
    child.wait().await;
    let (stopped, _, _lines) = kit.ready(kit.stub("stopped", &[])).await;
    stopped.stop().await;
    kit.supervisor.shutdown().await;
    let crash = kit.folder.join("logs/crash_1.crash.log");
    // Written by the log thread.
    let start = Instant::now();
    while !std::fs::read_to_string(&crash).is_ok_and(|text| text.contains("GGML_ASSERT(x) failed")) {
        assert!(start.elapsed() < crate::kit::LIMIT, "no crash log");
        tokio::task::yield_now().await;
    }
    assert!(!kit.folder.join("logs/stopped.crash.log").exists());
}

#[tokio::test]
async fn a_program_that_cannot_start_is_said_at_once() {
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    let kit = Kit::new();
    let file = |name: &str, mode, bytes: &[u8]| {
        let path = kit.folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (program, kind) in [
        ("/no/such/program".into(), ErrorKind::NotFound),
        (
            file("not-executable", 0o600, b"#!/bin/sh\n"),
            ErrorKind::PermissionDenied,
        ),
        // execvp would give both of these to a shell.
        (file("empty", 0o700, b""), ErrorKind::InvalidData),
        (file("text", 0o700, b"touch here\n"), ErrorKind::InvalidData),
    ] {
        let mut spec = kit.stub("missing", &[]);
        spec.program = program.clone();
        let error = kit.supervisor.spawn(spec).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.to_string().contains(&program.display().to_string()), "{error}");
        assert!(
            matches!(&error, supervisor::SupervisorError::Spawn { source, .. } if source.kind() == kind),
            "{error:?}"
        );
    }
    assert!(kit.supervisor.children().is_empty() && kit.state_files().is_empty());
}

#[test]
fn outside_a_runtime_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = supervisor::Supervisor::start(crate::kit::settings(folder.path())).unwrap_err();
    assert!(matches!(error, supervisor::SupervisorError::NoRuntime));
}
