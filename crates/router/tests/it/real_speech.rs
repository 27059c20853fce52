//! The same with the real speech program and the tiny model; skipped with a note where no environment has been made.

use std::time::{Duration, Instant};

use domain::{EngineKind, ErrorKind, ModelEntry, ModelState};
use engines::EngineSettings;
use engines::speech::SpeechSettings;
use router::RouterSettings;
use serde_json::{Value, json};

use crate::rig::{Rig, drain, next, post, send, until};

fn rig(settings: RouterSettings) -> Option<Rig> {
    let Some(python) = testkit::real_speech_python() else {
        eprintln!(
            "skipped: no speech engine; `llama-runner engine whisper install` makes one, or set LLAMARUNNER_SPEECH_PYTHON"
        );
        return None;
    };
    let speech = SpeechSettings {
        python: Some(python),
        ..SpeechSettings::default()
    };
    let engines = EngineSettings {
        speech,
        ..EngineSettings::default()
    };
    Some(Rig::with_engines(settings, engines))
}

fn hear(recording: &str) -> router::UpstreamRequest {
    let asked = domain::audio::Listening {
        temperatures: vec![0.0],
        ..domain::audio::Listening::default()
    };
    let mut body = serde_json::to_value(asked).unwrap();
    body["path"] = json!(testkit::audio_dir().join(recording));
    post("/transcribe", &body)
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hears_a_recording_refuses_what_is_none_and_ends_at_once() {
    let Some(rig) = rig(RouterSettings::default()) else {
        return;
    };
    let model = rig.speech_model("tiny-whisper", &[]);
    let lease = rig.lease(&model).await.unwrap();
    assert_eq!(lease.instance().engine, EngineKind::FasterWhisper);
    let answer = send(&lease, hear("fox.wav")).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (bytes, end) = drain(answer.into_body()).await;
    assert_eq!(end, Ok(()));
    let lines = lines(&bytes);
    let text: String = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(text, " The quick brown fox jumps over the lazy dog.");
    assert_eq!(
        (&lines[0]["event"], &lines[0]["language"]),
        (&json!("info"), &json!("en"))
    );
    assert_eq!(lines.last().unwrap()["event"], "done");

    // What is no sound is refused before any output, with a word for it.
    let answer = send(&lease, hear("not-audio.mp3")).await.unwrap();
    assert_eq!(answer.status(), 400);
    let (bytes, _) = drain(answer.into_body()).await;
    let refused: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(refused["error"]["code"], "unsupported_audio");
    drop(lease);

    let begun = Instant::now();
    assert!(rig.router.unload(&model.key, false).await);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_the_next_recording_is_heard_by_a_new_process() {
    let Some(rig) = rig(RouterSettings::default()) else {
        return;
    };
    let model = rig.speech_model("tiny-whisper", &[]);
    let lease = rig.lease(&model).await.unwrap();
    let pid = lease.instance().pid.unwrap();
    let mut body = send(&lease, hear("long-90s.ogg")).await.unwrap().into_body();
    next(&mut body).await.unwrap().unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    drop(lease);
    let (_, end) = drain(body).await;
    assert_eq!(end.unwrap_err().kind, ErrorKind::EngineFailed);
    until("noticed", || {
        matches!(rig.router.status(&model.key).0, ModelState::Failed(_))
    })
    .await;
    let lease = rig.lease(&model).await.unwrap();
    assert_ne!(lease.instance().pid, Some(pid));
    let (bytes, _) = drain(send(&lease, hear("fox.wav")).await.unwrap().into_body()).await;
    assert!(String::from_utf8_lossy(&bytes).contains("quick brown fox"));
    drop(lease);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_without_a_model_says_so_once() {
    let Some(rig) = rig(RouterSettings::default()) else {
        return;
    };
    let mut model = ModelEntry::clone(&rig.speech_model("none", &[]));
    model.path = rig.path("empty");
    std::fs::create_dir_all(&model.path).unwrap();
    let model = model.shared();
    let error = rig.lease(&model).await.map(drop).unwrap_err();
    assert!(
        error.message.starts_with("The speech model cannot be loaded."),
        "{error}"
    );
    assert!(!error.message.contains(&*rig.path("").to_string_lossy()), "{error}");
    let ModelState::Failed(report) = rig.router.status(&model.key).0 else {
        panic!("failed")
    };
    assert_eq!((report.exit_code, report.retryable), (Some(3), false));
    rig.end().await;
}
