//! The second engine: the same promises with the stub speech engine in the interpreter's place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{
    Capability, EngineKind, EngineMode, ErrorKind, EventKind, KeepAlive, LaunchOptions, ModelEntry, ModelState,
};
use engines::speech::{SpeechSettings, Tools};
use engines::{CustomSettings, EngineSettings};
use router::{LeaseRequest, RouterSettings, UpstreamRequest};
use serde_json::{Value, json};
use testkit::Recorded;

use crate::rig::{LIMIT, Rig, ask, drain, next, post, send, until};

fn rig(settings: RouterSettings) -> Rig {
    let speech = SpeechSettings {
        python: Some(testkit::stub_speech_path()),
        device: "cpu".into(),
        ..SpeechSettings::default()
    };
    let engines = EngineSettings {
        speech,
        ..EngineSettings::default()
    };
    Rig::with_engines(settings, engines)
}

fn hear(recording: &Path) -> UpstreamRequest {
    post("/transcribe", &json!({"path": recording, "task": "transcribe"}))
}

/// A recording that tells the stub what to do with it.
fn recording(rig: &Rig, name: &str, script: &Value) -> PathBuf {
    let path = rig.path(name);
    fs::write(&path, json!({"stub": script}).to_string()).unwrap();
    path
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A whole transcription; the text.
async fn heard(rig: &Rig, model: &Arc<ModelEntry>, recording: &Path) -> String {
    let lease = rig.lease(model).await.unwrap();
    let answer = send(&lease, hear(recording)).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(lease);
    let (bytes, end) = drain(answer.into_body()).await;
    assert_eq!(end, Ok(()));
    lines(&bytes).iter().filter_map(|line| line["text"].as_str()).collect()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_heard_through_a_lease_and_unloading_frees_the_process() {
    let rig = rig(RouterSettings::default());
    let model = rig.speech_model("whisper-tiny", &[]);
    let sound = recording(&rig, "sound", &json!({}));
    drop(rig.lease(&model).await.unwrap());
    // A wish that means nothing to this engine is no reason to start it again.
    let request = LeaseRequest {
        launch: LaunchOptions {
            mode: Some(EngineMode::Transcription),
            context: Some(8192),
            ..LaunchOptions::default()
        },
        ..ask(&model)
    };
    let lease = rig.router.lease(request).await.unwrap();
    let view = lease.instance();
    assert_eq!(
        (view.engine, view.state),
        (EngineKind::FasterWhisper, ModelState::Ready)
    );
    assert_eq!((view.launch.mode, view.launch.parallel), (EngineMode::Transcription, 1));
    drop(lease);
    assert_eq!(
        heard(&rig, &model, &sound).await,
        " Hello, this is a test of the transcription service."
    );
    let record = rig.record("whisper-tiny");
    let Some(Recorded::Start { argv, env, .. }) = record.first() else {
        panic!("{record:?}")
    };
    assert!(argv[3].ends_with("/speech_engine.py"), "{argv:?}");
    assert!(
        argv.join(" ").contains("--port 0 --task transcribe --model"),
        "{argv:?}"
    );
    assert!(argv.join(" ").contains("--device cpu"), "{argv:?}");
    assert_eq!(env["LR_SIDECAR_TOKEN"].len(), 64);
    assert!(!argv.join(" ").contains(&env["LR_SIDECAR_TOKEN"]));
    assert_eq!(env.get("CARGO_MANIFEST_DIR"), None);
    assert_eq!(rig.starts("whisper-tiny"), 1);
    // Its words are in the log of the model.
    let log = rig.router.engine_log(&model.key).tail(10);
    assert!(log.iter().any(|line| line.text == "ready (cpu, int8)"), "{log:?}");

    let pid = rig.view(&model).unwrap().pid.unwrap();
    assert!(rig.router.unload(&model.key, false).await);
    assert!(!is_alive(pid));
    let asked = |record: &Recorded| matches!(record, Recorded::Asked { what, .. } if what == "term");
    assert!(rig.record("whisper-tiny").iter().any(asked));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_one_leaves_by_itself() {
    let rig = rig(RouterSettings {
        keep_alive: KeepAlive::For(Duration::from_millis(100)),
        ..RouterSettings::default()
    });
    let model = rig.speech_model("a", &[]);
    let pid = rig.lease(&model).await.unwrap().instance().pid.unwrap();
    until("unloaded", || rig.router.status(&model.key).0 == ModelState::Unloaded).await;
    assert!(!is_alive(pid));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_the_client_hears_of_it_and_the_next_gets_a_new_process() {
    let rig = rig(RouterSettings::default());
    let model = rig.speech_model("a", &[]);
    let steps = json!([{"event": "info", "duration": 5.2, "language": "en"}, {"gate": rig.path("never")}]);
    let sound = recording(&rig, "sound", &json!({"steps": steps}));
    let lease = rig.lease(&model).await.unwrap();
    let pid = lease.instance().pid.unwrap();
    let answer = send(&lease, hear(&sound)).await.unwrap();
    drop(lease);
    let mut body = answer.into_body();
    next(&mut body).await.unwrap().unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    let (_, end) = drain(body).await;
    let error = end.unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    assert!(error.message.contains("killed by the system"), "{error}");
    until("noticed", || {
        matches!(rig.router.status(&model.key).0, ModelState::Failed(_))
    })
    .await;
    let text = heard(&rig, &model, &recording(&rig, "other", &json!({}))).await;
    assert!(text.contains("Hello"), "{text}");
    assert_ne!(rig.view(&model).unwrap().pid, Some(pid));
    assert_eq!(rig.starts("a"), 2);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_cannot_be_loaded_is_not_tried_again() {
    let rig = rig(RouterSettings::default());
    let fault = "The folder '/secret/place' has no model.bin. Download the model again.";
    let model = rig.speech_model("a", &[("STUB_LOAD_FAILED", fault)]);
    let begun = Instant::now();
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::EngineFailed);
    assert!(
        error.message.contains("Download the model again") && !error.message.contains("secret"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    let ModelState::Failed(report) = rig.router.status(&model.key).0 else {
        panic!("failed")
    };
    assert_eq!((report.exit_code, report.retryable), (Some(3), false));
    assert_eq!(rig.starts("a"), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_says_it_is_stuck_is_replaced_before_it_has_been_silent_for_long() {
    let watchdog = Duration::from_secs(9);
    let rig = rig(RouterSettings {
        watchdog,
        ..RouterSettings::default()
    });
    let stuck = rig.path("stuck");
    let model = rig.speech_model("a", &[("STUB_STUCK", &stuck.to_string_lossy())]);
    let steps = json!([{"event": "info", "duration": 5.2, "language": "en"}, {"gate": rig.path("never")}]);
    let sound = recording(&rig, "sound", &json!({"steps": steps}));
    let lease = rig.lease(&model).await.unwrap();
    let answer = send(&lease, hear(&sound)).await.unwrap();
    drop(lease);
    let mut body = answer.into_body();
    next(&mut body).await.unwrap().unwrap();
    let begun = Instant::now();
    fs::write(&stuck, "").unwrap();
    let (_, end) = drain(body).await;
    let error = end.unwrap_err();
    assert!(error.message.contains("does not go on"), "{error}");
    assert!(begun.elapsed() < watchdog, "{:?}", begun.elapsed());
    fs::remove_file(&stuck).unwrap();
    until("noticed", || {
        matches!(rig.router.status(&model.key).0, ModelState::Failed(_))
    })
    .await;
    assert!(
        heard(&rig, &model, &recording(&rig, "other", &json!({})))
            .await
            .contains("Hello")
    );
    assert_eq!(rig.starts("a"), 2);
    rig.end().await;
}

/// Stands for the system's Python and for pip; the environment it makes has the stub speech engine for an interpreter. Pip
/// waits halfway until the gate is there.
const PYTHON: &str = r#"#!/bin/sh
case "$*" in
*ensurepip*) echo '{"version": [3, 12, 1], "executable": "%/python3", "venv": true, "tag": "", "gil": true}' ;;
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; ln -s %/python3 "$last/bin/python" ;;
*"-m pip install"*)
    echo x >> %/installs
    [ -e %/offline ] && { echo "ERROR: Failed to establish a new connection" >&2; exit 1; }
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "Collecting p$i==1"; done
    until [ -e %/gate ]; do sleep 0.02; done ;;
*) exec STUB "$@" ;;
esac
"#;

fn installing_rig(folder: &Path) -> Rig {
    let stub = testkit::stub_speech_path();
    let text = PYTHON
        .replace('%', &folder.to_string_lossy())
        .replace("STUB", &stub.to_string_lossy());
    let python = folder.join("python3");
    fs::write(&python, text).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let speech = SpeechSettings {
        tools: Tools {
            pythons: vec![vec![python.into()]],
            uv: None,
        },
        ..SpeechSettings::default()
    };
    let engines = EngineSettings {
        speech,
        ..EngineSettings::default()
    };
    Rig::with_engines(RouterSettings::default(), engines)
}

fn progress(rig: &Rig, model: &ModelEntry) -> f32 {
    match rig.router.status(&model.key).0 {
        ModelState::Loading { progress } => progress,
        _ => -1.0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_engine_is_installed_as_the_first_half_of_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let rig = installing_rig(folder.path());
    let model = rig.speech_model("a", &[]);
    let mut events = rig.bus.subscribe();
    // Everybody is told how far it is, and never backwards.
    let mut told = vec![0.0];
    let halfway = async {
        while !told.last().is_some_and(|progress| *progress > 0.1) {
            if let EventKind::Instance { instance } = &events.recv().await.unwrap().kind
                && let ModelState::Loading { progress } = instance.state
            {
                told.push(progress);
            }
        }
    };
    let mut lease = Box::pin(rig.lease(&model));
    tokio::select! {
        lease = &mut lease => panic!("{:?}", lease.map(drop)),
        halfway = tokio::time::timeout(LIMIT, halfway) => halfway.unwrap(),
    }
    assert!(told.is_sorted(), "{told:?}");
    assert!(progress(&rig, &model) < 0.5);
    fs::write(folder.path().join("gate"), "").unwrap();
    let lease = tokio::time::timeout(LIMIT, lease).await.unwrap().unwrap();
    assert_eq!(lease.instance().state, ModelState::Ready);
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_that_nobody_waits_for_is_ended_and_a_failed_one_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let rig = installing_rig(folder.path());
    let model = rig.speech_model("a", &[]);
    let mut lease = Box::pin(rig.lease(&model));
    tokio::select! {
        lease = &mut lease => panic!("{:?}", lease.map(drop)),
        () = until("installing", || progress(&rig, &model) > 0.1) => {}
    }
    drop(lease);
    until("given up", || rig.view(&model).is_none()).await;

    fs::write(folder.path().join("offline"), "").unwrap();
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert_eq!(error.code.as_deref(), Some("engine_not_installed"));
    assert!(error.message.contains("Connect to the internet"), "{error}");
    assert!(!error.message.contains(&*folder.path().to_string_lossy()), "{error}");
    let installs = fs::read_to_string(folder.path().join("installs")).unwrap();
    assert_eq!(installs.lines().count(), 2);

    // Once it can be installed, the next request does it.
    fs::remove_file(folder.path().join("offline")).unwrap();
    fs::write(folder.path().join("gate"), "").unwrap();
    drop(rig.lease(&model).await.unwrap());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_of_the_users_own_is_started_by_its_command() {
    let stub = testkit::stub_engine_path();
    let command = [stub.to_str().unwrap(), "-m", "{model}", "--port", "{port}"];
    let custom = CustomSettings {
        command: command.map(str::to_owned).into(),
        health_path: "/health".into(),
        env: BTreeMap::new(),
    };
    let engines = EngineSettings {
        custom: BTreeMap::from([("mine".to_owned(), custom)]),
        ..EngineSettings::default()
    };
    let rig = Rig::with_engines(RouterSettings::default(), engines);
    let mut model = ModelEntry::clone(&rig.model("a", &[]));
    model.engine = EngineKind::Custom;
    model.facts.architecture = "mine".into();
    let model = Arc::new(model);
    let lease = rig.lease(&model).await.unwrap();
    let port = lease.instance().port.unwrap();
    let body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let answer = send(&lease, post("/v1/chat/completions", &body)).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(lease);
    let record = rig.record("a");
    let Some(Recorded::Start { argv, env, .. }) = record.first() else {
        panic!("{record:?}")
    };
    assert_eq!(
        argv[1..],
        ["-m", model.path.to_str().unwrap(), "--port", &port.to_string()]
    );
    let key = &env["LR_API_KEY"];
    let authorized = |record: &Recorded| {
        matches!(record, Recorded::Request { headers, path, .. } if path.starts_with("/v1/chat")
            && headers.iter().any(|(name, value)| name == "authorization" && value.ends_with(key.as_str())))
    };
    assert!(record.iter().any(authorized), "{record:?}");
    rig.end().await;

    let rig = Rig::with_engines(RouterSettings::default(), EngineSettings::default());
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert!(
        error.message.contains("'mine'") && error.message.contains("engines.custom"),
        "{error}"
    );
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_engine_speaks() {
    let rig = rig(RouterSettings::default());
    let mut model = ModelEntry::clone(&rig.speech_model("espeak-ng", &[]));
    model.engine = EngineKind::Speech;
    model.facts.architecture = "espeak-ng".into();
    model.capabilities = domain::Capabilities::from_iter([Capability::Speech]);
    let model = Arc::new(model);
    let lease = rig.lease(&model).await.unwrap();
    assert_eq!((lease.launch().mode, lease.launch().parallel), (EngineMode::Speech, 2));
    let body = json!({"sentences": ["Hello."], "voice": "alloy", "speed": 1.0, "format": "wav"});
    let answer = send(&lease, post("/speak", &body)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"audio/wav".parse().unwrap())
    );
    let (bytes, end) = drain(answer.into_body()).await;
    assert!(end.is_ok() && !bytes.is_empty());
    drop(lease);
    rig.end().await;
}
