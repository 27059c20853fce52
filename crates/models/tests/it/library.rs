//! Which models come out of a folder, and what is known of them.

use std::collections::BTreeMap;

use crate::support::{Library, fixtures, keys, resolve};
use domain::{Capability, EngineKind, KeepAlive, LaunchOptions, ModelSource};
use gguf::craft::Craft;
use models::{EntrySettings, Registry};

fn problems(registry: &Registry) -> Vec<String> {
    let text = |problem: models::Problem| match problem.path {
        Some(path) => format!("{}: {}", path.file_name().unwrap().to_string_lossy(), problem.reason),
        None => problem.reason,
    };
    registry.problems().into_iter().map(text).collect()
}

#[tokio::test]
async fn the_repositorys_own_models() {
    let mut library = Library::new();
    library.settings.dirs = vec![fixtures()];
    library.settings.builtin = Some(fixtures().join("tiny-chat.gguf"));
    let registry = library.open();
    assert_eq!(
        keys(&registry),
        ["tiny-chat", "tiny-embed", "tiny-rerank", "tiny-whisper"]
    );
    assert_eq!(registry.problems(), []);
    let catalog = registry.catalog();
    let chat = catalog.resolve("tiny-chat").unwrap();
    assert_eq!(chat.source, ModelSource::BuiltIn);
    assert_eq!(
        chat.description.as_deref(),
        Some("Demonstration model: knows a few hundred sentences.")
    );
    assert_eq!(chat.engine, EngineKind::LlamaServer);
    assert_eq!(
        (chat.indexed_path.as_str(), chat.publisher.as_str()),
        ("tiny-chat.gguf", "")
    );
    assert_eq!(chat.digest.len(), 64);
    assert_eq!(chat.size, 1_798_016);
    assert!(chat.can(Capability::Chat) && chat.can(Capability::Tools) && chat.can(Capability::Thinking));
    assert!(catalog.resolve("tiny-embed").unwrap().can(Capability::Embedding));
    assert!(catalog.resolve("tiny-rerank").unwrap().can(Capability::Rerank));
    for name in [
        "TINY-CHAT",
        " tiny-chat:latest ",
        "tiny-chat:f16",
        "tiny-chat@F16",
        "tiny-chat.gguf",
        "tiny_chat:local",
    ] {
        assert_eq!(resolve(&registry, name).as_deref(), Some("tiny-chat"), "{name}");
    }
    assert_eq!(
        catalog.nearest("tiny-chta").map(|key| key.to_string()).as_deref(),
        Some("tiny-chat")
    );
    assert_eq!(catalog.nearest("gpt-4"), None);
    registry.shutdown().await;
    assert_eq!(keys(&registry).len(), 4, "the catalogue stays readable");
    assert_eq!(registry.rescan().await.models, 0);
}

#[test]
fn show_details() {
    let library = Library::new();
    library.write(
        "vl-Q8_0.gguf",
        &Craft::model("VL")
            .text("general.license", "CC0")
            .ints("llama.list", &[1, -2]),
    );
    library.write("mmproj-F16.gguf", &Craft::projector(64));
    let registry = library.open();
    let entry = registry.catalog().resolve("vl").unwrap();
    let brief = models::details(&entry, false).unwrap();
    assert_eq!(brief.metadata["general.architecture"], "llama");
    assert_eq!(brief.metadata["llama.context_length"], 2048);
    assert_eq!(brief.metadata["general.parameter_count"], 512);
    assert!(brief.metadata["llama.list"].is_null());
    assert!(!brief.metadata.contains_key("general.name") && !brief.metadata.contains_key("tokenizer.chat_template"));
    assert_eq!(brief.template.as_deref(), Some("{{ messages }}"));
    assert_eq!(brief.license.as_deref(), Some("CC0"));
    assert_eq!(brief.tensors[0].shape, [64, 8]);
    assert_eq!(brief.tensors[0].kind, "F16");
    assert_eq!(brief.projector.unwrap()["clip.has_vision_encoder"], true);
    let full = models::details(&entry, true).unwrap();
    assert_eq!(full.metadata["llama.list"], serde_json::json!([1, -2]));
    std::fs::remove_file(&entry.path).unwrap();
    let error = models::details(&entry, false).unwrap_err().to_string();
    assert!(error.contains("vl-Q8_0.gguf") && !error.contains('/'), "{error}");
}

#[test]
fn split_models_are_one() {
    let library = Library::new();
    let part = |number: u32, count: u32, tensors: u32| {
        let base = if number == 0 {
            Craft::model("big")
        } else {
            Craft::new().tensor("x", &[64], 1)
        };
        let base = base.uint("split.no", number).uint("split.count", count);
        if tensors > 0 {
            base.uint("split.tensors.count", tensors)
        } else {
            base
        }
    };
    library.write("whole-Q4_K_M-00001-of-00003.gguf", &part(0, 3, 3));
    library.write("whole-Q4_K_M-00002-of-00003.gguf", &part(1, 3, 0));
    library.write("whole-Q4_K_M-00003-of-00003.gguf", &part(2, 3, 0));
    library.write("gap-00001-of-00003.gguf", &part(0, 3, 3));
    library.write("gap-00003-of-00003.gguf", &part(2, 3, 0));
    library.write("headless-00002-of-00002.gguf", &part(1, 2, 0));
    library.write("swapped-00001-of-00003.gguf", &part(0, 3, 3));
    library.write("swapped-00002-of-00003.gguf", &part(2, 3, 0));
    library.write("swapped-00003-of-00003.gguf", &part(1, 3, 0));
    library.write("short-00001-of-00002.gguf", &part(0, 2, 9));
    library.write("short-00002-of-00002.gguf", &part(1, 2, 0));
    library.write("renamed.gguf", &part(0, 2, 0));
    library.write("single-00001-of-00001.gguf", &Craft::model("single"));
    let registry = library.open();
    assert_eq!(keys(&registry), ["single", "whole"]);
    let whole = registry.catalog().resolve("whole").unwrap();
    assert_eq!(
        whole.parts,
        [
            library.at("whole-Q4_K_M-00002-of-00003.gguf"),
            library.at("whole-Q4_K_M-00003-of-00003.gguf")
        ]
    );
    assert_eq!(whole.facts.parameters, 512 + 64 + 64);
    let bytes: u64 = whole.files().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert_eq!(whole.size, bytes);
    assert_eq!(models::details(&whole, false).unwrap().tensors.len(), 3);
    let mut problems = problems(&registry);
    problems.sort();
    assert_eq!(
        problems,
        [
            "gap-00001-of-00003.gguf: part 2 of 3 is missing",
            "headless-00002-of-00002.gguf: part 1 of 2 is missing",
            "renamed.gguf: is part 1 of 2, but its name does not say so: the engine could not find the others",
            "short-00001-of-00002.gguf: the parts hold 2 tensors, the first one promises 9",
            "swapped-00001-of-00003.gguf: part 2 does not belong to the others",
        ]
    );
}

#[test]
fn projectors_join_their_models() {
    let library = Library::new();
    library.write("google/gemma-GGUF/gemma-Q4_K_M.gguf", &Craft::model("Gemma"));
    library.write("google/gemma-GGUF/gemma-Q8_0.gguf", &Craft::model("Gemma"));
    library.write("google/gemma-GGUF/mmproj-gemma-f16.gguf", &Craft::projector(2560));
    library.write("flat/one.gguf", &Craft::model("One"));
    library.write("flat/two.gguf", &Craft::model("Two"));
    library.write("flat/mmproj-two.gguf", &Craft::projector(1));
    let registry = library.open();
    assert_eq!(keys(&registry), ["gemma@q4_k_m", "gemma@q8_0", "one", "two"]);
    for (name, projector) in [
        ("gemma:q4_k_m", true),
        ("gemma:q8_0", true),
        ("one", false),
        ("two", true),
    ] {
        let entry = registry.catalog().resolve(name).unwrap();
        assert_eq!(
            (entry.mmproj.is_some(), entry.can(Capability::Vision)),
            (projector, projector),
            "{name}"
        );
        assert_eq!(entry.files().count(), 1 + usize::from(projector));
    }
}

#[test]
fn what_is_no_model_is_left_out() {
    let library = Library::new();
    let model = Craft::model("m").build();
    for name in [
        "a.gguf.partial",
        "b.gguf.part",
        "c.partial.gguf",
        ".hidden.gguf",
        ".cache/d.gguf",
        "e.bin",
        "gguf",
        ".gguf",
    ] {
        library.write_bytes(name, &model);
    }
    library.write("lora.gguf", &Craft::model("lora").text("general.type", "adapter"));
    library.write("vocab.gguf", &Craft::new().text("general.architecture", "llama"));
    library.write_bytes("cut.gguf", &model[..model.len() - 1]);
    library.write_bytes("html.gguf", b"<!DOCTYPE html>");
    library.write_bytes("empty.gguf", b"");
    std::fs::create_dir(library.at("folder.gguf")).unwrap();
    library.write_bytes("folder.gguf/Inside.GGUF", &model);
    std::os::unix::fs::symlink(library.at("nowhere"), library.at("dangling.gguf")).unwrap();
    // Links in circles, and a second way to a file that is there already.
    std::os::unix::fs::symlink(library.at(""), library.at("folder.gguf/loop")).unwrap();
    std::os::unix::fs::symlink(library.at("folder.gguf"), library.at("again")).unwrap();
    std::os::unix::fs::symlink(library.at("folder.gguf/Inside.GGUF"), library.at("linked.gguf")).unwrap();
    let registry = library.open();
    assert_eq!(keys(&registry), ["inside"]);
    let mut problems = problems(&registry);
    problems.sort();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(
        problems[0].starts_with("cut.gguf: the file is incomplete"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("dangling.gguf: this link leads nowhere"),
        "{problems:?}"
    );
    assert_eq!(
        problems[2..],
        ["empty.gguf: not a GGUF file", "html.gguf: not a GGUF file"]
    );
}

#[tokio::test]
async fn settings_name_and_adjust_models() {
    let mut library = Library::new();
    library.write("chat-Q4_0.gguf", &Craft::model("Chat"));
    library.write("pub/repo/other-F16.gguf", &Craft::model("Other"));
    let outside = library.home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("far.gguf"), Craft::model("Far").build()).unwrap();
    std::fs::write(outside.join("eyes.gguf"), Craft::projector(64).build()).unwrap();
    let launch = |context| LaunchOptions {
        context: Some(context),
        ..LaunchOptions::default()
    };
    let entry = |path: Option<&str>| EntrySettings {
        path: path.map(|p| outside.join(p)),
        ..EntrySettings::default()
    };
    library.settings.entries = BTreeMap::from([
        (
            "Chat".to_owned(),
            EntrySettings {
                launch: launch(777),
                keep_alive: Some(KeepAlive::Forever),
                pinned: true,
                mmproj: Some(outside.join("eyes.gguf")),
                aliases: vec!["gpt-4".to_owned(), "Fast One".to_owned()],
                ..entry(None)
            },
        ),
        (
            "Far Away/Model:tag".to_owned(),
            EntrySettings {
                unlisted: true,
                launch: launch(5),
                ..entry(Some("far.gguf"))
            },
        ),
        (
            "far-2".to_owned(),
            EntrySettings {
                display_name: Some("Second".into()),
                ..entry(Some("far.gguf"))
            },
        ),
        ("gone".to_owned(), entry(Some("gone.gguf"))),
        ("load".to_owned(), entry(Some("far.gguf"))),
        (
            "nobody".to_owned(),
            EntrySettings {
                pinned: true,
                ..entry(None)
            },
        ),
        (
            "repo-file".to_owned(),
            EntrySettings {
                path: Some(library.at("pub/repo/other-F16.gguf")),
                ..EntrySettings::default()
            },
        ),
    ]);
    library.settings.aliases = BTreeMap::from([
        ("gpt-3.5-turbo".to_owned(), "CHAT:latest".to_owned()),
        ("far-2".to_owned(), "chat".to_owned()),
        ("loop".to_owned(), "loop".to_owned()),
        ("lost".to_owned(), "nothing".to_owned()),
    ]);
    let registry = library.open();
    assert_eq!(
        keys(&registry),
        ["Far Away/Model:tag", "chat", "far-2", "load-model", "repo-file"]
    );
    let catalog = registry.catalog();
    let chat = catalog.resolve("chat").unwrap();
    assert_eq!(
        (chat.launch.context, chat.keep_alive, chat.pinned),
        (Some(777), Some(KeepAlive::Forever), true)
    );
    assert!(chat.can(Capability::Vision) && chat.mmproj.is_some());
    assert_eq!(chat.aliases[..4], ["Fast One", "far-2", "gpt-3.5-turbo", "gpt-4"]);
    let far = catalog.resolve("far away/model:TAG").unwrap();
    assert_eq!(
        (far.source, far.unlisted, far.launch.context),
        (ModelSource::Config, true, Some(5))
    );
    assert_eq!(catalog.listed().count(), 4);
    for (name, wanted) in [
        ("GPT-4", "chat"),
        ("gpt-4:latest", "chat"),
        ("gpt-3.5-turbo", "chat"),
        ("fast one", "chat"),
        ("far-2", "chat"),
        ("load", "load-model"),
        ("pub/repo/other-F16.gguf", "repo-file"),
        ("pub/repo", "repo-file"),
        ("other", "repo-file"),
    ] {
        assert_eq!(resolve(&registry, name).as_deref(), Some(wanted), "{name}");
    }
    assert_eq!(resolve(&registry, "loop"), None);
    let mut problems = problems(&registry);
    problems.sort();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(
        problems[0].starts_with("gone.gguf: models.entries.gone.path"),
        "{problems:?}"
    );
    assert_eq!(
        problems[1..],
        [
            "model_aliases.loop: there is no model 'loop'",
            "model_aliases.lost: there is no model 'nothing'",
            "models.entries.nobody: there is no such model"
        ]
    );

    // New settings take effect without a restart, and are told to everyone.
    let mut events = library.bus.subscribe();
    library.settings.entries.clear();
    registry.apply(library.settings.clone());
    let report = registry.rescan().await;
    assert_eq!(
        (report.models, report.read, report.changed),
        (2, 0, false),
        "the scan after apply found the change"
    );
    assert!(events.try_recv().is_ok());
    assert_eq!(keys(&registry), ["chat", "other"]);
    assert_eq!(resolve(&registry, "gpt-3.5-turbo").as_deref(), Some("chat"));
    assert_eq!(resolve(&registry, "gpt-4"), None);
}

#[test]
fn a_copy_of_the_demonstration_model_hides_it() {
    let mut library = Library::new();
    library.settings.builtin = Some(fixtures().join("tiny-chat.gguf"));
    let alone = library.open();
    assert_eq!(keys(&alone), ["tiny-chat"]);
    library.write_bytes(
        "tiny-chat.gguf",
        &std::fs::read(fixtures().join("tiny-chat.gguf")).unwrap(),
    );
    let copied = library.open();
    assert_eq!(keys(&copied), ["tiny-chat"]);
    assert_eq!(copied.catalog().entries()[0].source, ModelSource::Folder);
    library.write("tiny-chat.gguf", &Craft::model("another model of that name"));
    assert_eq!(keys(&library.open()), ["tiny-chat", "tiny-chat-2"]);
    library.settings.builtin = Some(library.at("not-there.gguf"));
    let registry = library.open();
    assert_eq!((keys(&registry).len(), registry.problems().len()), (1, 1));
}
