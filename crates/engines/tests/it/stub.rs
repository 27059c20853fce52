//! The stub engine: what a child really gets to see (promises S4, S9, S10), and deaths that the real one does not die on
//! command.

use std::collections::BTreeMap;
use std::path::Path;

use domain::{LaunchOptions, LoadedLaunch};
use engines::{
    EngineSettings, Engines, FailureCause, FailurePhase, Launch, MemoryBudget, StartSignal, failure, failure_cause,
    launch, plan,
};
use testkit::{Recorded, read_record, stub_engine_path};

use crate::support::{Running, entry, supervisor};

async fn command(dir: &Path, key: &str, env: &[(&str, &str)]) -> Launch {
    let settings = EngineSettings {
        path: Some(stub_engine_path()),
        env: env
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        cache_dir: dir.join("cache"),
        data_dir: dir.join("data"),
        ..EngineSettings::default()
    };
    let binary = Engines::new(settings.clone()).llama_server().await.unwrap();
    let mut entry = entry("tiny-chat.gguf", &["completion", "chat"]);
    entry.key = key.into();
    let loaded: LoadedLaunch = plan(&entry, &LaunchOptions::default(), &MemoryBudget::default());
    launch(&binary, &entry, &loaded, "the-secret-key", &settings)
}

#[tokio::test]
async fn the_child_sees_its_arguments_and_a_clean_environment() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path());
    let canary = dir.path().join("canary");
    let touch = format!("touch {}", canary.display());
    for key in [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("x; {touch}"),
        format!("x\n{touch}"),
        format!("| {touch}"),
        "--host=0.0.0.0".to_owned(),
        "--log-file".to_owned(),
        "~/x *".to_owned(),
    ] {
        let record = dir.path().join("record");
        let _ = std::fs::remove_file(&record);
        let launch = command(dir.path(), &key, &[("STUB_RECORD", record.to_str().unwrap())]).await;
        let mut running = Running::start(&supervisor, launch).await;
        let signals = running.start_signals().await;
        let Some(StartSignal::Ready(facts)) = signals.last() else {
            panic!("{key:?}: {signals:?} {:?}", running.log.tail(50))
        };
        assert!(facts.address.ip().is_loopback());
        let exit = running.child.stop().await;
        assert_eq!((exit.code, exit.requested), (Some(0), true), "{exit:?}");

        let record = read_record(&record).unwrap();
        let Some(Recorded::Start { argv, env, .. }) = record.first() else {
            panic!("{record:?}")
        };
        let alias = argv
            .iter()
            .position(|arg| arg == "--alias")
            .map(|at| argv[at + 1].as_str());
        assert_eq!(alias, Some(key.as_str()), "one argument, as it is");
        assert!(!argv.iter().any(|arg| arg.contains("the-secret-key")), "{argv:?}");
        assert_eq!(env.get("LLAMA_API_KEY").map(String::as_str), Some("the-secret-key"));
        // This test process has CARGO_… variables; none of them may arrive.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let foreign = |name: &String| name.starts_with("CARGO") || name.starts_with("RUST") || name == "PWD";
        assert!(!env.keys().any(foreign), "{env:?}");
        assert!(
            record
                .iter()
                .any(|r| matches!(r, Recorded::Asked { what, .. } if what == "message")),
            "{record:?}"
        );
    }
    assert!(!canary.exists());
    supervisor.shutdown().await;
}

#[tokio::test]
async fn deaths_while_loading_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path());
    for (death, message, cause, words) in [
        ("signal:9", "", FailureCause::Killed, "probably because memory ran out"),
        (
            "signal:6",
            "/src/ggml.c:1: GGML_ASSERT(x) failed",
            FailureCause::Crash,
            "GGML_ASSERT(x) failed",
        ),
        ("signal:11", "", FailureCause::Crash, "crashed while loading"),
        (
            "exit:1",
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
            FailureCause::OutOfMemory,
            "4096 MiB",
        ),
        ("exit:0", "", FailureCause::Crash, "without giving a reason"),
    ] {
        let env = [
            ("STUB_LOAD_MS", "50"),
            ("STUB_DIE_LOADING", death),
            ("STUB_DIE_MESSAGE", message),
        ];
        let env = if message.is_empty() { &env[..2] } else { &env[..] };
        let mut running = Running::start(&supervisor, command(dir.path(), "m", env).await).await;
        let signals = running.start_signals().await;
        assert!(
            !signals.iter().any(|s| matches!(s, StartSignal::Ready(_))),
            "{signals:?}"
        );
        let exit = running.child.wait().await;
        let report = failure(&exit, FailurePhase::Starting);
        assert_eq!(
            failure_cause(&exit, FailurePhase::Starting),
            cause,
            "{death}: {report:?} {exit:?}"
        );
        assert!(report.reason.contains(words), "{death}: {report:?} {exit:?}");
    }
    supervisor.shutdown().await;
}
