use std::path::PathBuf;
use std::sync::Arc;

use domain::{
    Capabilities, Capability, EngineKind, FailureReport, InstanceId, InstanceView, KeepAlive, LaunchOptions,
    LoadedLaunch, ModelEntry, ModelFacts, ModelSource,
};

use super::*;

fn entry(key: &str) -> Arc<ModelEntry> {
    Arc::new(ModelEntry {
        key: key.into(),
        slug: key.into(),
        engine: EngineKind::LlamaServer,
        source: ModelSource::Folder,
        path: PathBuf::from(key),
        parts: Vec::new(),
        mmproj: None,
        size: 1,
        modified: 0,
        publisher: String::new(),
        indexed_path: String::new(),
        display_name: key.into(),
        description: None,
        digest: String::new(),
        aliases: Vec::new(),
        capabilities: Capabilities::from_iter([Capability::Chat]),
        facts: ModelFacts::default(),
        launch: LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    })
}

fn instance(key: &str, active: u32, expires_at_ms: Option<i64>, memory: u64) -> InstanceView {
    InstanceView {
        id: InstanceId(1),
        model: key.into(),
        engine: EngineKind::LlamaServer,
        state: ModelState::Ready,
        port: None,
        pid: None,
        ready_at_ms: None,
        last_used_ms: None,
        expires_at_ms,
        keep_alive: KeepAlive::Forever,
        jit: false,
        active,
        queued: 0,
        launch: LoadedLaunch::default(),
        memory_bytes: Some(memory),
        vram_bytes: None,
        load_ms: None,
    }
}

fn model(key: &str, state: ModelState) -> ModelFact {
    let instance = matches!(state, ModelState::Ready).then(|| instance(key, 0, None, 26 << 20));
    ModelFact {
        entry: entry(key),
        state,
        instance,
    }
}

fn failure() -> ModelState {
    ModelState::Failed(FailureReport {
        reason: "no".into(),
        code: None,
        log: Vec::new(),
        exit_code: None,
        signal: None,
        retryable: false,
    })
}

fn facts(models: Vec<ModelFact>) -> Facts {
    Facts {
        models,
        ..Facts::default()
    }
}

fn now() -> Now {
    Now {
        at: Instant::now(),
        unix_ms: 1_000_000,
    }
}

#[test]
fn status_lines() {
    let loading = |progress| ModelState::Loading { progress };
    let table: [(Facts, Emblem, &str); 8] = [
        (facts(vec![]), Emblem::Idle, "serving · no model loaded"),
        (
            facts(vec![model("a", ModelState::Unloaded)]),
            Emblem::Idle,
            "serving · no model loaded",
        ),
        (
            facts(vec![model("a", ModelState::Ready)]),
            Emblem::Ready,
            "serving · 1 model, 26 MB",
        ),
        (
            facts(vec![model("a", ModelState::Ready), model("b", ModelState::Ready)]),
            Emblem::Ready,
            "serving · 2 models, 52 MB",
        ),
        (facts(vec![model("a", loading(0.0))]), Emblem::Loading, "starting a"),
        (
            facts(vec![model("a", loading(0.62)), model("b", ModelState::Ready)]),
            Emblem::Loading,
            "starting a · 62 %",
        ),
        (
            facts(vec![model("a", failure()), model("b", loading(0.5))]),
            Emblem::Error,
            "problem · a did not start",
        ),
        (
            Facts {
                warnings: vec!["Port 11434 is taken. Stop it.".into()],
                ..Facts::default()
            },
            Emblem::Warning,
            "attention · Port 11434 is taken",
        ),
    ];
    for (facts, emblem, status) in table {
        let view = Watcher::default().view(&facts, now());
        assert_eq!((view.emblem, view.status), (emblem, format!("LlamaRunner · {status}")));
    }
}

#[test]
fn model_lines() {
    let with = |active, expires| ModelFact {
        entry: entry("a"),
        state: ModelState::Ready,
        instance: Some(instance("a", active, expires, 6_550_000_000)),
    };
    let table = [
        (model("a", ModelState::Unloaded), "a", true, false),
        (model("a", ModelState::Queued), "a · queued", false, true),
        (
            model("a", ModelState::Loading { progress: 0.5 }),
            "a · starting 50 %",
            false,
            true,
        ),
        (with(1, None), "a · 6.1 GB · in use", false, true),
        (with(0, None), "a · 6.1 GB · loaded", false, true),
        (
            with(0, Some(1_000_000 + 299_000)),
            "a · 6.1 GB · idle, unloads in 4 min",
            false,
            true,
        ),
        (
            with(0, Some(1_000_500)),
            "a · 6.1 GB · idle, unloads in under 1 min",
            false,
            true,
        ),
        (model("a", ModelState::Draining), "a · stopping", false, false),
        (model("a", failure()), "a · failed", true, false),
    ];
    for (fact, label, can_start, can_stop) in table {
        let view = Watcher::default().view(&facts(vec![fact]), now());
        let line = view.models.first().unwrap();
        assert_eq!(
            (line.label.as_str(), line.can_start, line.can_stop),
            (label, can_start, can_stop)
        );
    }
}

#[test]
fn short_requests_do_not_flicker() {
    let mut watcher = Watcher::default();
    let start = now();
    let at = |ms: u64| Now {
        at: start.at + Duration::from_millis(ms),
        unix_ms: 0,
    };
    let busy = Facts {
        requests: 1,
        ..Facts::default()
    };
    let quiet = Facts::default();
    assert_eq!(watcher.view(&busy, at(0)).emblem, Emblem::Idle);
    let view = watcher.view(&busy, at(100));
    assert_eq!(watcher.wake(&view, at(100).at), Some(at(400).at));
    assert_eq!(watcher.view(&quiet, at(300)).emblem, Emblem::Idle);
    assert_eq!(watcher.view(&busy, at(1000)).emblem, Emblem::Idle);
    assert_eq!(watcher.view(&busy, at(1400)).emblem, Emblem::Busy);
    // Held until 2200.
    let view = watcher.view(&quiet, at(1500));
    assert_eq!(view.emblem, Emblem::Busy);
    assert_eq!(watcher.wake(&view, at(1500).at), Some(at(2200).at));
    assert_eq!(watcher.view(&quiet, at(2200)).emblem, Emblem::Idle);
}

#[test]
fn problems_stay_until_seen_and_come_back_as_news() {
    let mut watcher = Watcher::default();
    let failed = facts(vec![model("a", failure())]);
    assert_eq!(watcher.view(&failed, now()).emblem, Emblem::Error);
    watcher.problems_seen();
    let view = watcher.view(&failed, now());
    assert_eq!((view.emblem, view.problem), (Emblem::Idle, true));
    assert_eq!(view.problem_model, Some("a".into()));
    assert_eq!(
        watcher.view(&facts(vec![model("a", ModelState::Ready)]), now()).emblem,
        Emblem::Ready
    );
    assert_eq!(watcher.view(&failed, now()).emblem, Emblem::Error);
}

#[test]
fn models_keep_their_place() {
    let mut watcher = Watcher::default();
    let state_of = |running: &[usize], at: usize| {
        if running.contains(&at) {
            ModelState::Ready
        } else {
            ModelState::Unloaded
        }
    };
    let catalog = |running: &[usize]| {
        facts(
            (0..12)
                .map(|at| model(&format!("m{at:02}"), state_of(running, at)))
                .collect(),
        )
    };
    let keys = |view: &View| {
        view.models
            .iter()
            .map(|line| line.key.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        keys(&watcher.view(&catalog(&[]), now())),
        "m00 m01 m02 m03 m04 m05 m06 m07"
    );
    // One inside the list starts: nothing moves.
    assert_eq!(
        keys(&watcher.view(&catalog(&[2]), now())),
        "m00 m01 m02 m03 m04 m05 m06 m07"
    );
    // One outside takes the last idle place, and keeps it when it stops.
    assert_eq!(
        keys(&watcher.view(&catalog(&[7, 11]), now())),
        "m00 m01 m02 m03 m04 m05 m11 m07"
    );
    assert_eq!(
        keys(&watcher.view(&catalog(&[]), now())),
        "m00 m01 m02 m03 m04 m05 m11 m07"
    );
    // Gone from disk: the others close up.
    let mut fewer = catalog(&[]);
    fewer.models.retain(|model| model.entry.key.as_str() != "m01");
    assert_eq!(
        keys(&watcher.view(&fewer, now())),
        "m00 m02 m03 m04 m05 m11 m07 m01".replace(" m01", " m06")
    );
}

#[test]
fn quit_says_what_it_stops() {
    let view = |n: usize| {
        Watcher::default().view(
            &facts((0..n).map(|i| model(&i.to_string(), ModelState::Ready)).collect()),
            now(),
        )
    };
    assert_eq!(
        (view(0).quit, view(1).quit, view(2).quit),
        (
            "Quit".into(),
            "Quit (stops 1 model)".into(),
            "Quit (stops 2 models)".into()
        )
    );
    assert!(view(1).can_free && !view(0).can_free);
}

#[test]
fn models_of_one_name_are_told_apart_by_key() {
    let named = |key: &str, name: &str| {
        let mut fact = model(key, ModelState::Unloaded);
        Arc::make_mut(&mut fact.entry).display_name = name.into();
        fact
    };
    let view = Watcher::default().view(
        &facts(vec![named("a", "Llama"), named("b", "Llama"), named("c", "Other")]),
        now(),
    );
    assert_eq!(
        view.models.iter().map(|line| line.label.as_str()).collect::<Vec<_>>(),
        ["a", "b", "Other"]
    );
}
