//! The index, the speed, and the watching of folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::{Library, keys, resolve, until};
use gguf::craft::Craft;

#[tokio::test]
async fn unchanged_files_are_not_opened_again() {
    let library = Library::new();
    library.write("a.gguf", &Craft::model("a"));
    library.write("b.gguf", &Craft::model("b"));
    library.write_bytes("bad.gguf", b"GGUF");
    library.open().shutdown().await;
    let index = &library.settings.index_path;
    assert_eq!(fs::metadata(index).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(index.parent().unwrap()).unwrap().count(),
        1,
        "no temporary file is left"
    );

    let registry = library.open();
    let report = registry.rescan().await;
    assert_eq!(
        (report.models, report.files, report.read, report.changed),
        (2, 3, 0, false)
    );
    assert_eq!(report.problems.len(), 1, "a bad file is remembered as bad");
    let digest = registry.catalog().entries()[0].digest.clone();

    library.write("a.gguf", &Craft::model("a").uint("llama.expert_count", 8));
    let report = registry.rescan().await;
    assert_eq!((report.read, report.changed), (1, true));
    let a = registry.catalog().resolve("a").unwrap();
    assert_eq!(a.facts.expert_count, Some(8));
    assert_ne!(a.digest, digest);

    fs::remove_file(library.at("b.gguf")).unwrap();
    let report = registry.rescan().await;
    assert_eq!((report.models, report.read, report.changed), (1, 0, true));
    assert!(
        !fs::read_to_string(index).unwrap().contains("b.gguf"),
        "a deleted file is forgotten"
    );

    // Whatever happens to the index, the models stay.
    let whole = fs::read(index).unwrap();
    let old = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("\"version\":1", "\"version\":0", 1)
        .into_bytes();
    for broken in [
        b"".to_vec(),
        b"null".to_vec(),
        b"{\"version\":1,\"files\":7}".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        old,
    ] {
        fs::write(index, broken).unwrap();
        let registry = library.open();
        assert_eq!(keys(&registry), ["a"]);
        registry.shutdown().await;
        assert_eq!(fs::read(index).unwrap(), whole, "the index is written anew");
    }
    // An index that cannot be written costs time, not models.
    fs::remove_file(index).unwrap();
    fs::create_dir(index).unwrap();
    assert_eq!(keys(&library.open()), ["a"]);
}

#[tokio::test]
async fn two_thousand_files() {
    const FILES: usize = 2000;
    let library = Library::new();
    let tokens: Vec<String> = (0..4000).map(|n| format!("token-{n}")).collect();
    let craft = Craft::model("many")
        .texts("tokenizer.ggml.tokens", &tokens)
        .ints("tokenizer.ggml.token_type", &[1; 4000]);
    for n in 0..FILES {
        library.write(&format!("pub{}/repo{}/model-{n}-Q4_K_M.gguf", n % 7, n % 100), &craft);
    }
    let start = Instant::now();
    let registry = library.open();
    let report = registry.rescan().await;
    let cold = start.elapsed();
    assert_eq!((report.models, report.read, report.problems.len()), (FILES, 0, 0));
    let start = Instant::now();
    registry.rescan().await;
    let again = start.elapsed();
    registry.shutdown().await;

    let start = Instant::now();
    let registry = library.open();
    let warm = start.elapsed();
    assert_eq!(registry.catalog().entries().len(), FILES);
    let start = Instant::now();
    assert_eq!(resolve(&registry, "pub1/repo1/model-1").as_deref(), Some("model-1"));
    println!(
        "{FILES} files of {} KiB: cold {cold:?}, start with index {warm:?}, rescan {again:?}, worst look-up {:?}",
        craft.build().len() / 1024,
        start.elapsed()
    );
    // The aim is a second in a release build on an idle machine; this is a debug build among other tests.
    assert!(
        cold < Duration::from_secs(10) && warm < Duration::from_secs(6),
        "cold {cold:?}, warm {warm:?}"
    );
}

#[tokio::test]
async fn changes_in_folders_are_noticed() {
    let mut library = Library::new();
    library.settings.watch = true;
    let late = library.home.path().join("later/still");
    library.settings.dirs.push(late.clone());
    library.write("first.gguf", &Craft::model("first"));
    let registry = library.open();
    let mut events = library.bus.subscribe();
    let now = || keys(&registry).join(" ");
    assert_eq!(now(), "first");

    library.write("pub/repo/second.gguf", &Craft::model("second"));
    until(&mut events, "a file in a new folder", || now() == "first second").await;

    // A download: written under another name, then renamed.
    library.write("third.gguf.partial", &Craft::model("third"));
    fs::rename(library.at("third.gguf.partial"), library.at("third.gguf")).unwrap();
    until(&mut events, "a finished download", || now() == "first second third").await;

    // A copy that grows: half of the file is no model yet.
    let bytes = Craft::model("fourth").build();
    library.write_bytes("fourth.gguf", &bytes[..bytes.len() / 2]);
    library.write_bytes("fourth.gguf", &bytes);
    until(&mut events, "a finished copy", || now() == "first fourth second third").await;

    fs::rename(library.at("first.gguf"), library.at("renamed.gguf")).unwrap();
    until(&mut events, "a rename", || now() == "fourth renamed second third").await;

    fs::remove_dir_all(library.at("pub")).unwrap();
    until(&mut events, "a deleted folder", || now() == "fourth renamed third").await;

    fs::create_dir_all(&late).unwrap();
    fs::write(late.join("late.gguf"), Craft::model("late").build()).unwrap();
    until(&mut events, "a models folder that came later", || {
        now() == "fourth late renamed third"
    })
    .await;

    fs::remove_dir_all(library.at("")).unwrap();
    until(&mut events, "the models folder itself deleted", || now() == "late").await;
    fs::create_dir(library.at("")).unwrap();
    library.write("back.gguf", &Craft::model("back"));
    until(&mut events, "the models folder made again", || now() == "back late").await;
    library.write("more.gguf", &Craft::model("more"));
    until(&mut events, "a file in the folder made again", || {
        now() == "back late more"
    })
    .await;

    // Nothing is told when nothing changed.
    registry.rescan().await;
    let seen = library.bus.last_seq();
    fs::write(library.at("notes.txt"), "not a model").unwrap();
    library.write_bytes("big.gguf.partial", b"GGUF");
    assert!(!registry.rescan().await.changed);
    assert_eq!(library.bus.last_seq(), seen);
    registry.shutdown().await;
}

#[tokio::test]
async fn the_thread_ends_with_the_last_handle() {
    let mut library = Library::new();
    library.settings.watch = true;
    let registry = library.open();
    let copy = registry.clone();
    drop(registry);
    assert_eq!(copy.rescan().await.models, 0);
    assert!(copy.rescan().await.problems.is_empty());
    copy.shutdown().await;
    copy.shutdown().await;
}
