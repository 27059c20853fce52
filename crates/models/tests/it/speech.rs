//! Speech models: folders of speech-to-text models, voice engines, and what names in audio requests mean.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use domain::audio::Task;
use domain::{Capability, EngineKind, ModelEntry, ModelSource};
use gguf::craft::Craft;
use models::{EntrySettings, Registry, SpeechName, VoiceEngine};
use proptest::prelude::*;
use testkit::WhisperCraft;

use crate::support::{Library, fixtures, keys, resolve, until};

fn problems(registry: &Registry) -> Vec<String> {
    let text = |problem: models::Problem| match problem.path {
        Some(path) => format!("{}: {}", path.file_name().unwrap().to_string_lossy(), problem.reason),
        None => problem.reason,
    };
    registry.problems().into_iter().map(text).collect()
}

fn entry(registry: &Registry, name: &str) -> ModelEntry {
    ModelEntry::clone(&registry.catalog().resolve(name).expect(name))
}

fn capabilities(entry: &ModelEntry) -> Vec<&'static str> {
    entry.capabilities.iter().map(Capability::as_str).collect()
}

/// What a name means, in one word and a name.
fn heard(registry: &Registry, name: &str) -> String {
    told(registry.catalog().listener(Some(name), Task::Transcribe))
}

fn told(name: SpeechName) -> String {
    match name {
        SpeechName::Found(entry) => format!("found {}", entry.key),
        SpeechName::Known(known) => format!("known {} as {}", known.repository, known.key),
        SpeechName::NotSpeech(entry) => format!("not speech: {}", entry.key),
        SpeechName::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn the_real_one() {
    let mut library = Library::new();
    library.settings.dirs = vec![fixtures()];
    let registry = library.open();
    let whisper = entry(&registry, "tiny-whisper");
    assert_eq!(whisper.engine, EngineKind::FasterWhisper);
    assert_eq!(capabilities(&whisper), ["transcription", "translation"]);
    assert!(whisper.is_speech() && whisper.facts.is_multilingual());
    assert_eq!(whisper.path, fixtures().join("tiny-whisper"));
    assert_eq!(whisper.size, 1106 + 233 + 6_551_657 + 1_642_407 + 563_641);
    assert_eq!(whisper.display_name, "tiny-whisper");
    assert_eq!(
        whisper.description.as_deref(),
        Some("Speech to text in many languages, and to English.")
    );
    let facts = &whisper.facts;
    assert_eq!(
        (
            facts.architecture.as_str(),
            facts.quantization.as_str(),
            facts.vocab_size
        ),
        ("whisper", "INT8", Some(51_865))
    );
    assert_eq!((facts.embedding_length, facts.block_count), (Some(96), Some(2)));
    assert!(
        (5_000_000..7_000_000).contains(&facts.parameters),
        "{}",
        facts.parameters
    );
    assert_eq!(whisper.digest.len(), 64);
    for name in [
        "whisper-1",
        "tiny-whisper",
        "TINY-WHISPER:latest",
        "tiny-whisper@int8",
        "gpt-4o-transcribe",
        "",
    ] {
        assert_eq!(heard(&registry, name), "found tiny-whisper", "{name}");
    }
    assert_eq!(heard(&registry, "tiny-chat"), "not speech: tiny-chat");
    assert_eq!(
        heard(&registry, "tiny"),
        "known Systran/faster-whisper-tiny as whisper-tiny"
    );
    let details = models::details(&whisper, false).unwrap();
    assert_eq!(details.metadata["general.architecture"], "whisper");
    assert_eq!(details.metadata["whisper.vocab_size"], 51_865);
}

#[test]
fn the_vocabulary_tells_which_languages_a_model_knows_and_not_its_name() {
    let library = Library::new();
    let english = WhisperCraft {
        vocabulary: 51_864,
        ..WhisperCraft::default()
    };
    WhisperCraft::default()
        .write(&library.at("mine/faster-whisper-tiny.en"), &[])
        .unwrap();
    WhisperCraft::default().write(&library.at("mine/all.end"), &[]).unwrap();
    english.write(&library.at("mine/many-languages"), &[]).unwrap();
    let registry = library.open();
    for (name, multilingual) in [("tiny.en", true), ("all.end", true), ("many-languages", false)] {
        let found = entry(&registry, name);
        assert_eq!(found.facts.is_multilingual(), multilingual, "{name}");
        assert_eq!(found.can(Capability::Translation), multilingual, "{name}");
    }
}

#[test]
fn names_and_abilities_of_known_models() {
    let mut library = Library::new();
    let downloads = library.home.path().join("data/whisper");
    library.settings.speech_dir = Some(downloads.clone());
    let multilingual = WhisperCraft::default();
    let english = WhisperCraft {
        vocabulary: 51_864,
        kind: 4,
        ..WhisperCraft::default()
    };
    let turbo = WhisperCraft {
        layers: (4, 1),
        mel_bands: 128,
        vocabulary: 51_866,
        ..WhisperCraft::default()
    };
    multilingual
        .write(&downloads.join("Systran__faster-whisper-base"), &[])
        .unwrap();
    english
        .write(&downloads.join("Systran__faster-whisper-tiny.en"), &[])
        .unwrap();
    turbo
        .write(&downloads.join("mobiuslabsgmbh__faster-whisper-large-v3-turbo"), &[])
        .unwrap();
    // Renamed, but built like one that was distilled.
    turbo.write(&library.at("mine/my whisper"), &[]).unwrap();
    multilingual
        .write(&library.at("some.thing/faster-whisper-small"), &[])
        .unwrap();
    let registry = library.open();
    assert_eq!(
        keys(&registry),
        [
            "my-whisper",
            "whisper-base",
            "whisper-large-v3-turbo",
            "whisper-small",
            "whisper-tiny.en"
        ]
    );
    assert_eq!(problems(&registry), [""; 0]);
    let base = entry(&registry, "whisper-base");
    assert_eq!(
        (base.display_name.as_str(), base.publisher.as_str()),
        ("Whisper base", "Systran")
    );
    assert_eq!(base.indexed_path, "Systran/faster-whisper-base/model.bin");
    for name in [
        "base",
        "whisper-base",
        "faster-whisper-base",
        "openai/whisper-base",
        "Systran/faster-whisper-base",
        "systran/FASTER-whisper-base",
        "whisper-base:int8",
        "base:latest",
    ] {
        assert_eq!(heard(&registry, name), "found whisper-base", "{name}");
    }
    assert_eq!(resolve(&registry, "whisper-base:f16"), None);
    for name in [
        "turbo",
        "large-v3-turbo",
        "whisper-turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    ] {
        assert_eq!(heard(&registry, name), "found whisper-large-v3-turbo", "{name}");
    }
    assert_eq!(capabilities(&base), ["transcription", "translation"]);
    for name in ["turbo", "tiny.en", "my-whisper"] {
        assert_eq!(capabilities(&entry(&registry, name)), ["transcription"], "{name}");
    }
    assert!(!entry(&registry, "tiny.en").facts.is_multilingual());
    assert_eq!(entry(&registry, "tiny.en").facts.quantization, "F16");
    let catalog = registry.catalog();
    assert_eq!(told(catalog.listener(None, Task::Translate)), "found whisper-base");
    assert_eq!(
        catalog.best_listener(Task::Translate).unwrap().key.as_str(),
        "whisper-base"
    );
    assert_eq!(
        heard(&registry, "large"),
        "known Systran/faster-whisper-large-v3 as whisper-large-v3"
    );
    assert_eq!(
        heard(&registry, "someone/whisper-large-v3-ct2"),
        "known someone/whisper-large-v3-ct2 as whisper-large-v3-ct2"
    );
    for name in [
        "llama3",
        "whisper",
        "openai/whisper-huge",
        "../faster-whisper-base",
        "a/b/whisper",
        "someone/model",
        ".x/whisper",
    ] {
        assert_eq!(heard(&registry, name), "unknown", "{name}");
    }
}

#[test]
fn a_folder_by_its_path_only_where_the_settings_say() {
    let library = Library::new();
    WhisperCraft::default().write(&library.at("mine"), &[]).unwrap();
    let outside = library.home.path().join("outside");
    WhisperCraft::default().write(&outside, &[]).unwrap();
    library.write("chat.gguf", &Craft::model("Chat"));
    let registry = library.open();
    let path = |path: &Path| path.display().to_string();
    assert_eq!(heard(&registry, &path(&library.at("mine"))), "found mine");
    assert_eq!(
        heard(&registry, &format!("{}/", path(&library.at("mine")))),
        "found mine"
    );
    for name in [
        path(&outside),
        path(&library.at("mine/../../outside")),
        path(&library.at("chat.gguf")),
        path(&library.at("")),
        "mine/model.bin".to_owned(),
        "/".to_owned(),
    ] {
        assert_eq!(heard(&registry, &name), "unknown", "{name}");
    }
}

#[test]
fn defaults_aliases_and_other_models_of_the_same_name() {
    let mut library = Library::new();
    WhisperCraft::default()
        .write(&library.at("faster-whisper-small"), &[])
        .unwrap();
    WhisperCraft {
        layers: (4, 4),
        ..WhisperCraft::default()
    }
    .write(&library.at("faster-whisper-medium"), &[])
    .unwrap();
    library.write("small.gguf", &Craft::model("Small"));
    library.settings.aliases = [
        ("dictation".to_owned(), "small".to_owned()),
        ("ear".to_owned(), "whisper-small".to_owned()),
    ]
    .into();
    let registry = library.open();
    assert_eq!(
        resolve(&registry, "small").as_deref(),
        Some("small"),
        "a chat model keeps its name"
    );
    assert_eq!(
        heard(&registry, "small"),
        "found whisper-small",
        "in an audio request it is a size"
    );
    assert_eq!(heard(&registry, "ear"), "found whisper-small");
    assert_eq!(heard(&registry, "dictation"), "not speech: small");
    assert_eq!(heard(&registry, "whisper-1"), "found whisper-medium", "the largest");

    library.settings.default_listener = Some("faster-whisper-small".to_owned());
    library.settings.aliases = [("whisper-1".to_owned(), "small".to_owned())].into();
    let registry = library.open();
    assert_eq!(heard(&registry, ""), "found whisper-small");
    assert_eq!(heard(&registry, "gpt-4o-mini-transcribe"), "found whisper-small");
    assert_eq!(
        heard(&registry, "whisper-1"),
        "not speech: small",
        "an alias comes first"
    );

    library.settings.default_listener = Some("large".to_owned());
    let registry = library.open();
    assert_eq!(
        heard(&registry, ""),
        "known Systran/faster-whisper-large-v3 as whisper-large-v3"
    );

    let empty = Library::new();
    let registry = empty.open();
    assert_eq!(
        heard(&registry, "whisper-1"),
        "known Systran/faster-whisper-base as whisper-base"
    );
    assert_eq!(registry.catalog().best_listener(Task::Transcribe), None);
}

#[test]
fn a_model_of_llama_cpp_that_hears() {
    let library = Library::new();
    library.write("omni.gguf", &Craft::model("Omni"));
    library.write(
        "mmproj-omni.gguf",
        &Craft::projector(64).flag("clip.has_audio_encoder", true),
    );
    let registry = library.open();
    assert!(entry(&registry, "omni").can(Capability::Audio));
    assert_eq!(heard(&registry, "omni"), "found omni");
    assert_eq!(
        heard(&registry, "whisper-1"),
        "known Systran/faster-whisper-base as whisper-base",
        "it is not what callers of Whisper mean"
    );
}

#[test]
fn incomplete_folders_say_what_is_missing() {
    let library = Library::new();
    let whisper = WhisperCraft::default();
    whisper.write(&library.at("a"), &["tokenizer.json"]).unwrap();
    whisper
        .write(&library.at("b"), &["config.json", "vocabulary.json", "tokenizer.json"])
        .unwrap();
    whisper.write(&library.at("c"), &["model.bin"]).unwrap();
    WhisperCraft {
        mel_bands: 128,
        ..whisper.clone()
    }
    .write(&library.at("d"), &["preprocessor_config.json"])
    .unwrap();
    whisper.write(&library.at("e"), &["preprocessor_config.json"]).unwrap();
    // Of other programs, and none of our business.
    WhisperCraft {
        specification: "TransformerSpec",
        ..whisper.clone()
    }
    .write(&library.at("f"), &["tokenizer.json"])
    .unwrap();
    library.write_bytes("g/model.bin", b"anything");
    library.write_bytes("h/config.json", b"{}");
    library.write_bytes("h/vocabulary.json", b"[]");
    library.write_bytes("i/tokenizer.json", b"{}");
    whisper.write(&library.at("j"), &["vocabulary.json"]).unwrap();
    library.write_bytes("j/vocabulary.txt", b"a\nb\n");
    whisper.write(&library.at("k"), &[]).unwrap();
    library.write_bytes("k/model.bin", &whisper.weights()[..200]);
    whisper.write(&library.at("l"), &[]).unwrap();
    library.write_bytes("l/vocabulary.json", b"{\"a\": 1}");
    whisper.write(&library.at("m"), &[]).unwrap();
    library.write_bytes("m/config.json", b"\xff");
    fs::create_dir(library.at("n")).unwrap();
    fs::create_dir(library.at("n/model.bin")).unwrap();
    library.write("h/chat.gguf", &Craft::model("Chat"));
    let registry = library.open();
    assert_eq!(keys(&registry), ["chat", "e", "j"]);
    assert!(!entry(&registry, "j").facts.is_multilingual());
    let again = "download it again, or copy what is missing";
    assert_eq!(
        problems(&registry),
        [
            format!("a: is a speech model without tokenizer.json: {again}"),
            format!(
                "b: is a speech model without config.json, tokenizer.json and vocabulary.json or vocabulary.txt: {again}"
            ),
            format!("c: is a speech model without model.bin: {again}"),
            format!("d: is a speech model without preprocessor_config.json: {again}"),
            "k: model.bin is cut short: download it again".to_owned(),
            "l: the vocabulary is not what it should be: download the model again".to_owned(),
            "m: config.json is not what it should be: download the model again".to_owned(),
        ]
    );
    let folders = models::speech_folders(&library.at(""));
    assert_eq!(folders.usable, 2);
    let of = |problems: Vec<models::Problem>| problems.into_iter().map(|problem| problem.reason).collect::<Vec<_>>();
    assert_eq!(of(folders.problems), of(registry.problems()));
}

#[cfg(unix)]
#[test]
fn a_named_pipe_in_place_of_a_file_does_not_hold_up_the_library() {
    let library = Library::new();
    library.write_bytes("pipe/vocabulary.json", b"[]");
    let made = std::process::Command::new("mkfifo")
        .arg(library.at("pipe/config.json"))
        .status()
        .unwrap();
    assert!(made.success());
    WhisperCraft::default().write(&library.at("whole"), &[]).unwrap();
    assert_eq!(keys(&library.open()), ["whole"]);
}

#[test]
fn the_hubs_cache() {
    let library = Library::new();
    let repository = library.at("models--Systran--faster-whisper-tiny");
    let snapshot = |revision: &str, kind: u8| {
        let folder = repository.join("snapshots").join(revision);
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        for (name, contents) in (WhisperCraft {
            kind,
            ..WhisperCraft::default()
        })
        .files()
        {
            let blob = format!("{revision}-{name}-hash");
            fs::write(repository.join("blobs").join(&blob), contents).unwrap();
            symlink(format!("../../blobs/{blob}"), folder.join(name)).unwrap();
        }
    };
    snapshot("aaa", 0);
    snapshot("bbb", 4);
    snapshot("ccc", 1);
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "bbb").unwrap();
    let registry = library.open();
    assert_eq!(keys(&registry), ["whisper-tiny"]);
    let tiny = entry(&registry, "Systran/faster-whisper-tiny");
    assert_eq!(tiny.source, ModelSource::HuggingFaceCache);
    assert_eq!(tiny.path, repository.join("snapshots/bbb"), "the revision in use");
    assert_eq!(tiny.facts.quantization, "F16");

    // A link that leads nowhere, to a folder, or round in circles is a missing file.
    let folder = repository.join("snapshots/bbb");
    for target in ["nowhere", "..", "tokenizer.json"] {
        fs::remove_file(folder.join("tokenizer.json")).unwrap();
        symlink(target, folder.join("tokenizer.json")).unwrap();
        let registry = library.open();
        assert_eq!(
            entry(&registry, "tiny").path,
            repository.join("snapshots/ccc"),
            "{target}: the newest whole one"
        );
    }
}

#[test]
fn a_copy_of_a_model_that_is_there_is_not_shown() {
    let mut library = Library::new();
    let downloads = library.home.path().join("whisper");
    library.settings.speech_dir = Some(downloads.clone());
    let own = downloads.join("Systran__faster-whisper-base");
    WhisperCraft::default().write(&own, &[]).unwrap();
    let cached = library.at("models--Systran--faster-whisper-base/snapshots/abc");
    WhisperCraft::default().write(&cached, &[]).unwrap();
    let other = WhisperCraft {
        kind: 4,
        layers: (3, 3),
        ..WhisperCraft::default()
    };
    other
        .write(&library.at("guillaumekln__faster-whisper-base"), &[])
        .unwrap();
    let registry = library.open();
    assert_eq!(keys(&registry), ["whisper-base@f16", "whisper-base@int8"]);
    assert_eq!(entry(&registry, "whisper-base@int8").path, own);
    assert_eq!(
        heard(&registry, "Systran/faster-whisper-base"),
        "found whisper-base@int8"
    );
    assert_eq!(
        heard(&registry, "guillaumekln/faster-whisper-base"),
        "found whisper-base@f16"
    );
    assert!(heard(&registry, "base").starts_with("found whisper-base@"));
    fs::remove_dir_all(&own).unwrap();
    let registry = library.open();
    assert_eq!(entry(&registry, "whisper-base@int8").path, cached);
}

#[test]
fn an_entry_of_the_settings() {
    let mut library = Library::new();
    let outside = library.home.path().join("elsewhere/model-x");
    WhisperCraft::default().write(&outside, &[]).unwrap();
    WhisperCraft::default().write(&library.at("inside"), &[]).unwrap();
    let of = |path: &Path| EntrySettings {
        path: Some(path.to_owned()),
        ..EntrySettings::default()
    };
    library.settings.entries = [
        (
            "Ear".to_owned(),
            EntrySettings {
                aliases: vec!["hear".to_owned()],
                pinned: true,
                ..of(&outside)
            },
        ),
        ("by-weights".to_owned(), of(&library.at("inside/model.bin"))),
        ("wrong".to_owned(), of(library.home.path())),
        (
            "engine".to_owned(),
            EntrySettings {
                engine: Some(EngineKind::LlamaServer),
                ..of(&outside)
            },
        ),
    ]
    .into();
    let registry = library.open();
    assert_eq!(keys(&registry), ["Ear", "by-weights", "engine"]);
    let ear = entry(&registry, "hear");
    assert_eq!(
        (ear.source, ear.engine, ear.pinned),
        (ModelSource::Config, EngineKind::FasterWhisper, true)
    );
    assert_eq!(heard(&registry, "EAR"), "found Ear");
    assert_eq!(entry(&registry, "by-weights").path, library.at("inside"));
    assert_eq!(entry(&registry, "engine").engine, EngineKind::FasterWhisper);
    assert_eq!(
        problems(&registry)
            .iter()
            .map(|text| text.split_once(": ").unwrap().1)
            .collect::<Vec<_>>(),
        [
            "models.entries.wrong.path does not name a model",
            "this engine cannot run the model's files"
        ]
    );
}

#[test]
fn voice_engines_are_models() {
    let mut library = Library::new();
    library.write("kokoro.gguf", &Craft::model("Kokoro"));
    WhisperCraft::default()
        .write(&library.at("faster-whisper-base"), &[])
        .unwrap();
    let voice = |key: &str, engine: EngineKind| VoiceEngine {
        key: key.to_owned(),
        engine,
        backend: key.to_owned(),
        path: "/usr/bin/voice".into(),
        display_name: format!("The {key}"),
        description: Some("Says things.".to_owned()),
        size: 12,
        aliases: vec![format!("{key}-voice")],
        ..VoiceEngine::default()
    };
    library.settings.voices = vec![
        voice("kokoro", EngineKind::Speech),
        voice("espeak-ng", EngineKind::Speech),
        voice("mine", EngineKind::Custom),
    ];
    let registry = library.open();
    assert_eq!(
        keys(&registry),
        ["espeak-ng", "kokoro", "kokoro-2", "mine", "whisper-base"]
    );
    let kokoro = entry(&registry, "kokoro-voice");
    assert_eq!((kokoro.key.as_str(), kokoro.engine), ("kokoro-2", EngineKind::Speech));
    assert_eq!(capabilities(&kokoro), ["speech"]);
    assert_eq!((kokoro.facts.architecture.as_str(), kokoro.size), ("kokoro", 12));
    assert_eq!(entry(&registry, "mine").engine, EngineKind::Custom);
    let catalog = registry.catalog();
    let espeak = catalog.resolve("espeak-ng").unwrap();
    assert!(espeak.is_speech() && espeak.runs_as.is_none() && espeak.digest != kokoro.digest);
    for name in [None, Some(""), Some("tts-1"), Some("TTS-1-HD"), Some("gpt-4o-mini-tts")] {
        assert_eq!(
            told(catalog.speaker(name)),
            "found kokoro-2",
            "{name:?}: the first of the settings"
        );
    }
    assert_eq!(told(catalog.speaker(Some("espeak-ng"))), "found espeak-ng");
    assert_eq!(told(catalog.speaker(Some("kokoro"))), "not speech: kokoro");
    assert_eq!(told(catalog.speaker(Some("whisper-base"))), "not speech: whisper-base");
    assert_eq!(told(catalog.speaker(Some("nobody"))), "unknown");
    assert_eq!(heard(&registry, "espeak-ng"), "not speech: espeak-ng");
    library.settings.default_speaker = Some("mine".to_owned());
    let registry = library.open();
    assert_eq!(told(registry.catalog().speaker(Some("tts-1"))), "found mine");
    library.settings.voices = Vec::new();
    let registry = library.open();
    assert_eq!(told(registry.catalog().speaker(None)), "unknown");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Files of a stranger, whatever is in them: a model, another thing or a problem, and never a panic.
    #[test]
    fn any_contents(
        contents in proptest::collection::vec((0_usize..6, proptest::collection::vec(any::<u8>(), 0..80)), 1..6),
        folder in "[a-zA-Z0-9._ -]{0,12}(__|--)?[a-zA-Z0-9._ -]{1,12}",
    ) {
        const NAMES: [&str; 6] =
            ["model.bin", "config.json", "tokenizer.json", "vocabulary.json", "vocabulary.txt", "preprocessor_config.json"];
        let library = Library::new();
        let at = library.at(&folder);
        let small = WhisperCraft { vocabulary: 10, ..WhisperCraft::default() };
        if small.write(&at, &[]).is_err() {
            // `..`, and what else is no name.
            return Ok(());
        }
        for (file, bytes) in contents {
            fs::write(at.join(NAMES[file]), bytes).unwrap();
        }
        let registry = library.open();
        prop_assert!(registry.catalog().entries().len() + registry.problems().len() <= 1);
    }

    #[test]
    fn any_name(name in "\\PC{0,60}") {
        let catalog = models::Catalog::default();
        let heard = catalog.listener(Some(&name), Task::Transcribe);
        prop_assert!(matches!(heard, SpeechName::Known(_) | SpeechName::Unknown));
        if let SpeechName::Known(known) = heard {
            prop_assert!(known.repository.split('/').count() == 2 && !known.repository.contains(".."), "{:?}", known);
        }
        prop_assert_eq!(catalog.speaker(Some(&name)), SpeechName::Unknown);
    }
}

#[tokio::test]
async fn folders_are_watched_and_read_once() {
    let mut library = Library::new();
    let downloads = library.home.path().join("later/whisper");
    library.settings.speech_dir = Some(downloads.clone());
    library.settings.watch = true;
    let mut events = library.bus.subscribe();
    let registry = library.open();
    assert_eq!(
        problems(&registry),
        [""; 0],
        "the folder of downloads need not be there"
    );
    let staged = downloads.join(".incoming/Systran__faster-whisper-base");
    WhisperCraft::default().write(&staged, &[]).unwrap();
    let report = registry.rescan().await;
    assert_eq!(
        (report.models, report.read),
        (0, 0),
        "not visible before it is complete"
    );
    fs::rename(&staged, downloads.join("Systran__faster-whisper-base")).unwrap();
    until(&mut events, "the model appears", || {
        heard(&registry, "base") == "found whisper-base"
    })
    .await;
    assert_eq!(registry.rescan().await.read, 0, "an unchanged folder is not read again");
    fs::remove_file(downloads.join("Systran__faster-whisper-base/tokenizer.json")).unwrap();
    until(&mut events, "the model goes", || keys(&registry).is_empty()).await;
    registry.shutdown().await;
}
