use std::fs;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use domain::{Capability, EngineKind};

use super::super::install::tests::Bench;
use super::*;
use crate::test_entry::entry;

const LIMIT: Duration = Duration::from_mins(1);

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, poll).await.is_ok(), "{what}: not in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_an_installation_and_the_last_one_who_leaves_ends_it() {
    let bench = Bench::new();
    bench.set("hang");
    let engine = Arc::new(SpeechEngine::default());
    let seen = AtomicU32::new(0);
    let install = |progress: bool| {
        let (engine, recipe, cache, seen) = (Arc::clone(&engine), bench.recipe.clone(), bench.cache(), &seen);
        async move {
            let told = |fraction: f32| {
                if progress {
                    seen.store(fraction.to_bits(), Ordering::SeqCst);
                }
            };
            engine.install(recipe, &cache, told).await
        }
    };
    let (mut first, mut second) = (Box::pin(install(true)), Box::pin(install(false)));
    tokio::select! {
        ended = &mut first => panic!("{ended:?}"),
        ended = &mut second => panic!("{ended:?}"),
        () = until("fetching", || f32::from_bits(seen.load(Ordering::SeqCst)) > 0.1) => {}
    }
    assert_eq!(bench.calls("pip install"), 1);
    drop(first);
    // One still waits, so it goes on.
    let pause = tokio::time::timeout(Duration::from_millis(500), &mut second).await;
    assert!(pause.is_err(), "{pause:?}");
    drop(second);
    until("ended", || engine.flights().is_empty()).await;
    assert!(!bench.recipe.folder(&bench.cache()).with_extension("new").exists());

    bench.unset("hang");
    let installed = install(false).await.unwrap();
    assert_eq!(installed.faster_whisper, "1.2.1");
    assert_eq!(bench.calls("pip install"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_it_is_being_cancelled_gets_a_new_one() {
    let bench = Bench::new();
    bench.set("hang");
    let engine = Arc::new(SpeechEngine::default());
    let cache = bench.cache();
    let mut first = Box::pin(engine.install(bench.recipe.clone(), &cache, |_| {}));
    tokio::select! {
        ended = &mut first => panic!("{ended:?}"),
        () = until("started", || bench.calls("pip install") == 1) => {}
    }
    drop(first);
    bench.unset("hang");
    let second = engine.install(bench.recipe.clone(), &cache, |_| {});
    tokio::time::timeout(LIMIT, second).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_python_is_asked_and_nothing_is_installed() {
    let bench = Bench::new();
    let engine = Arc::new(SpeechEngine::default());
    let settings = SpeechSettings {
        python_by_variable: Some(bench.file("python3")),
        ..SpeechSettings::default()
    };
    let cache = bench.cache();
    let named = Named::of(&settings).unwrap();
    assert_eq!(named.by, "LLAMARUNNER_SPEECH_PYTHON");
    let info = engine.info(&settings, &cache, Some(named.clone()), true).await;
    assert_eq!(
        (info.state, info.faster_whisper.as_deref()),
        (SpeechState::Ready, Some("1.2.1"))
    );
    assert_eq!(info.named_by, Some("LLAMARUNNER_SPEECH_PYTHON"));
    let mut model = entry(&[Capability::Transcription]);
    model.engine = EngineKind::FasterWhisper;
    let program = engine
        .program(&model, &settings, &cache, Some(named), |_| {})
        .await
        .unwrap();
    assert_eq!(program.python, bench.file("python3"));
    assert!(program.script.is_file() && !program.installed_now);
    // One question for both looks.
    assert_eq!((bench.calls("import json, platform"), bench.calls("pip")), (1, 0));

    let by_setting = SpeechSettings {
        python: Some(bench.file("other")),
        ..settings.clone()
    };
    let named = Named::of(&by_setting).unwrap();
    let info = engine.info(&by_setting, &cache, Some(named.clone()), false).await;
    assert_eq!(info.state, SpeechState::Broken);
    assert!(info.error.unwrap().contains("engines.faster_whisper.python"));
    let error = engine
        .program(&model, &settings, &cache, Some(named), |_| {})
        .await
        .unwrap_err();
    let told = domain::RunnerError::from(error);
    assert_eq!(told.code.as_deref(), Some("engine_not_installed"));
    assert!(
        !told.message.contains(&*bench.file("").to_string_lossy()),
        "{}",
        told.message
    );
}

#[test]
fn an_interpreter_is_named_in_three_ways() {
    let folder = tempfile::tempdir().unwrap();
    let inside = python::inside(folder.path());
    assert_eq!(interpreter(folder.path()), inside);
    assert_eq!(interpreter(&inside), inside);
    assert_eq!(Some(interpreter(Path::new("sh"))), python::search("sh"));
    assert_eq!(interpreter(Path::new("no-such-program")), Path::new("no-such-program"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_leave_to_install_the_answer_says_how() {
    let cache = tempfile::tempdir().unwrap();
    let engine = Arc::new(SpeechEngine::default());
    let settings = SpeechSettings {
        auto_install: false,
        ..SpeechSettings::default()
    };
    let mut model = entry(&[Capability::Speech]);
    model.engine = EngineKind::Speech;
    for (architecture, allowed, words) in [
        ("espeak-ng", settings.clone(), "engine whisper install"),
        // Somebody has to agree to its licence first.
        ("kokoro", SpeechSettings::default(), "engine voices install kokoro"),
    ] {
        model.facts.architecture = architecture.into();
        let error = engine
            .program(&model, &allowed, cache.path(), None, |_| {})
            .await
            .unwrap_err();
        let told = domain::RunnerError::from(error);
        assert_eq!(told.code.as_deref(), Some("engine_not_installed"));
        assert!(told.message.contains(words), "{}", told.message);
    }
    let info = engine.info(&settings, cache.path(), None, false).await;
    assert_eq!(info.state, SpeechState::Missing);
    assert!(info.error.unwrap().contains("engine whisper install"));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn an_engine_that_broke_says_which_one_to_install_again() {
    for (name, command) in [
        ("speech", "engine whisper install"),
        ("piper", "engine voices install piper"),
    ] {
        let broken = EngineError::SpeechBroken {
            name: name.into(),
            reason: "it is not complete".into(),
        };
        assert!(broken.to_string().contains(command), "{broken}");
    }
}
