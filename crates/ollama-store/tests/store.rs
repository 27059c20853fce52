//! The store from outside: any order of changes, any moment of death.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ollama_store::{Access, Digest, Layer, Manifest, Name, Store, StoreError, media};
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn open(root: &Path) -> Store {
    Store::open(root, Access::Write).unwrap()
}

fn layer(store: &Store, contents: &str) -> Layer {
    store.put_layer(media::MODEL, contents.as_bytes()).unwrap()
}

fn manifest(store: &Store, contents: &[&str]) -> Vec<u8> {
    let config = store.put_layer(media::CONFIG, b"{}").unwrap();
    let layers = contents.iter().map(|text| layer(store, text)).collect();
    Manifest::new(config, layers).to_bytes()
}

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.root().join("blobs")).unwrap().count()
}

/// Every model that shows is whole, and its blobs are what their names say.
fn check(store: &Store) {
    let listing = store.list();
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    for model in &listing.models {
        for layer in model.manifest.all() {
            let path = store.blob_path(&layer.digest);
            assert_eq!(Digest::of_file(&path).unwrap(), layer.digest, "{}", model.name);
            assert_eq!(store.blob_size(&layer.digest), Some(layer.size));
        }
        for path in store.model_paths(&model.manifest) {
            assert!(path.is_file(), "{} of {}", path.display(), model.name);
        }
    }
}

#[test]
fn manifests_keep_their_bytes_and_need_their_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // Spacing as a registry may send it.
    let mut bytes = manifest(&store, &["weights"]);
    bytes.extend_from_slice(b"\n ");
    let (stored, removed) = store.write_manifest(&name("x"), &bytes).unwrap();
    assert_eq!((stored, removed), (name("x"), false));
    let (read, kept) = store.read_bytes(&name("X")).unwrap();
    assert_eq!((read.digest, kept), (Digest::of(&bytes), bytes.clone()));
    let lost = Layer {
        digest: Digest::of(b"lost"),
        ..layer(&store, "weights")
    };
    let half = Manifest::new(lost.clone(), vec![]).to_bytes();
    assert!(matches!(
        store.write_manifest(&name("half"), &half),
        Err(StoreError::MissingBlob(digest)) if digest == lost.digest
    ));
    assert!(matches!(
        store.write_manifest(&name("bad"), b"{"),
        Err(StoreError::InvalidManifest(_))
    ));
    assert_eq!(store.list().models.len(), 1);
}

#[test]
fn a_stored_spelling_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes = manifest(&store, &["a"]);
    store.write_manifest(&name("Ann/Model:Q4"), &bytes).unwrap();
    for (asked, kept) in [
        ("ann/model:q4", "Ann/Model:Q4"),
        ("ANN/MODEL:q8", "Ann/Model:q8"),
        ("ann/other", "Ann/other:latest"),
        ("bob/model", "bob/model:latest"),
    ] {
        assert_eq!(store.write_manifest(&name(asked), &bytes).unwrap().0.to_string(), kept);
    }
    assert_eq!(
        store.copy(&name("ANN/model:Q4"), &name("BOB/Model")).unwrap(),
        name("bob/model")
    );
    assert!(matches!(
        store.copy(&name("no"), &name("x")),
        Err(StoreError::NotFound(_))
    ));
    store.delete(&name("ann/MODEL:q4")).unwrap();
    assert!(store.find(&name("Ann/Model:Q4")).is_none());
    assert!(matches!(
        store.delete(&name("ann/model:q4")),
        Err(StoreError::NotFound(_))
    ));
}

#[test]
fn blobs_go_with_their_last_name_unless_somebody_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .write_manifest(&name("a"), &manifest(&store, &["one", "two"]))
        .unwrap();
    store
        .write_manifest(&name("b"), &manifest(&store, &["two", "three"]))
        .unwrap();
    assert_eq!(blobs(&store), 4);
    store.delete(&name("a")).unwrap();
    assert_eq!(blobs(&store), 3, "what b shares stays");
    let hold = store.hold([Digest::of(b"three")]);
    let (_, removed) = store.write_manifest(&name("b"), &manifest(&store, &["two"])).unwrap();
    assert!(!removed);
    assert!(store.has_blob(&Digest::of(b"three")), "it is held");
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 0);
    drop(hold);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 5);
    assert_eq!(store.prune(Duration::from_hours(1)).unwrap(), 0);
    store.delete(&name("b")).unwrap();
    assert_eq!(blobs(&store), 0);
    assert_eq!(
        fs::read_dir(folder.path().join("manifests")).unwrap().count(),
        0,
        "empty folders go too"
    );
}

#[test]
fn a_manifest_nobody_can_read_keeps_every_blob() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write_manifest(&name("a"), &manifest(&store, &["one"])).unwrap();
    let odd = folder.path().join("manifests/registry.ollama.ai/library/odd/latest");
    fs::create_dir_all(odd.parent().unwrap()).unwrap();
    fs::write(&odd, "{").unwrap();
    store.delete(&name("a")).unwrap();
    assert_eq!(blobs(&store), 2, "the unreadable one may use them");
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 0);
    assert_eq!(store.list().problems.len(), 1);
    store.delete(&name("odd")).unwrap();
}

/// A folder that cannot be looked into, also not by root: a link that leads to itself.
#[cfg(unix)]
#[test]
fn a_folder_nobody_can_read_keeps_every_blob() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write_manifest(&name("a"), &manifest(&store, &["one"])).unwrap();
    let unreadable = folder.path().join("manifests/host.example");
    std::os::unix::fs::symlink(&unreadable, &unreadable).unwrap();
    store.delete(&name("a")).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 0);
    assert_eq!(blobs(&store), 2, "a model in there may use them");
    assert_eq!(store.list().problems.len(), 1);
    fs::remove_file(&unreadable).unwrap();
    // A link to nothing hides nothing.
    std::os::unix::fs::symlink("nowhere", &unreadable).unwrap();
    store.prune(Duration::ZERO).unwrap();
    assert_eq!(blobs(&store), 0);
}

#[test]
fn unfinished_blobs_go_unless_somebody_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.write_manifest(&name("a"), &manifest(&store, &["one"])).unwrap();
    let partial = |digest: &Digest, end: &str| {
        fs::write(
            folder.path().join(format!("blobs/sha256-{}{end}", digest.hex())),
            "part",
        )
        .unwrap();
    };
    let (held, left, used) = (Digest::of(b"held"), Digest::of(b"left"), Digest::of(b"one"));
    for digest in [&held, &left, &used] {
        for end in [".partial", ".partial.json", ".partial.json.new"] {
            partial(digest, end);
        }
    }
    fs::write(folder.path().join("blobs/notes.partial"), "not ours").unwrap();
    let hold = store.hold([held]);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(store.prune(Duration::from_hours(1)).unwrap(), 0);
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 6 * 4);
    assert!(store.has_blob(&used));
    drop(hold);
    assert_eq!(store.prune(Duration::ZERO).unwrap(), 3 * 4);
    assert_eq!(blobs(&store), 3, "the model's two and a file that is no blob");
}

#[test]
fn parts_of_a_split_model_have_numbered_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .write_manifest(&name("big"), &manifest(&store, &["p1", "p2", "p3"]))
        .unwrap();
    let stored = store.read(&name("big")).unwrap();
    let paths = store.model_paths(&stored.manifest);
    let names: Vec<&str> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00003.gguf",
            "model-00002-of-00003.gguf",
            "model-00003-of-00003.gguf"
        ]
    );
    assert_eq!(fs::read_to_string(&paths[2]).unwrap(), "p3");
    check(&store);
    store.delete(&name("big")).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("links")).unwrap().count(), 0);
}

#[test]
fn another_programs_store_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("theirs");
    let store = Store::open(&root, Access::Read).unwrap();
    let refused = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::ReadOnly)));
    refused(store.new_blob().map(drop));
    refused(store.put_layer(media::SYSTEM, b"x").map(drop));
    refused(store.write_manifest(&name("x"), b"{}").map(drop));
    refused(store.copy(&name("x"), &name("y")).map(drop));
    refused(store.delete(&name("x")));
    refused(store.prune(Duration::ZERO).map(drop));
    refused(store.adopt(folder.path(), None).map(drop));
    refused(store.scratch().map(drop));
    assert!(store.list().models.is_empty());
    assert!(!root.exists());
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_store_is_not_followed_for_writing() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("store"), folder.path().join("outside"));
    let store = open(&root);
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("manifests/evil.example")).unwrap();
    let bytes = manifest(&store, &["x"]);
    assert!(store.write_manifest(&name("evil.example/a/b"), &bytes).is_err());
    assert!(!outside.join("a/b/latest").exists());
}

#[test]
fn files_from_elsewhere_are_referred_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    let file = folder.path().join("model.gguf");
    fs::write(&file, "weights").unwrap();
    assert_eq!(store.adopt(&file, None).unwrap(), (Digest::of(b"weights"), 7));
    assert!(store.has_blob(&Digest::of(b"weights")));
    let made = store.scratch().unwrap();
    fs::write(&made, "made").unwrap();
    assert_eq!(store.take_in(made).unwrap(), (Digest::of(b"made"), 4));
    let dropped = store.scratch().unwrap().to_path_buf();
    assert!(!dropped.exists());
    check(&store);
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<usize>),
    Copy(usize, usize),
    Delete(usize),
    Prune,
    /// An upload that is cut, and the program's next start.
    CutAndReopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..6_usize, proptest::collection::vec(0..5_usize, 0..4)).prop_map(|(n, c)| Change::Write(n, c)),
        2 => (0..6_usize, 0..6_usize).prop_map(|(a, b)| Change::Copy(a, b)),
        2 => (0..6_usize).prop_map(Change::Delete),
        1 => Just(Change::Prune),
        1 => Just(Change::CutAndReopen),
    ]
}

/// The same names in other spellings, so that case matters.
const NAMES: [&str; 6] = ["a", "A", "ann/b:1", "Ann/B:1", "ann/b:2", "c"];
const CONTENTS: [&str; 5] = ["zero", "one", "two", "three", "four"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_order_of_changes(changes in proptest::collection::vec(change(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        // Lower-case name → digest of its manifest.
        let mut model: BTreeMap<String, Digest> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Write(at, contents) => {
                    let contents: Vec<&str> = contents.into_iter().map(|at| CONTENTS[at]).collect();
                    let bytes = manifest(&store, &contents);
                    store.write_manifest(&name(NAMES[at]), &bytes).unwrap();
                    model.insert(NAMES[at].to_lowercase(), Digest::of(&bytes));
                }
                Change::Copy(from, to) => match model.get(&NAMES[from].to_lowercase()).copied() {
                    Some(digest) => {
                        store.copy(&name(NAMES[from]), &name(NAMES[to])).unwrap();
                        model.insert(NAMES[to].to_lowercase(), digest);
                    }
                    None => prop_assert!(store.copy(&name(NAMES[from]), &name(NAMES[to])).is_err()),
                },
                Change::Delete(at) => {
                    let was = model.remove(&NAMES[at].to_lowercase()).is_some();
                    prop_assert_eq!(store.delete(&name(NAMES[at])).is_ok(), was);
                }
                Change::Prune => drop(store.prune(Duration::ZERO).unwrap()),
                Change::CutAndReopen => {
                    let mut writer = store.new_blob().unwrap();
                    writer.write(b"half of").unwrap();
                    // As if the process had been killed: its destructors do not run.
                    std::mem::forget(writer);
                    store = open(folder.path());
                    prop_assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
                }
            }
            check(&store);
            let listed: BTreeMap<String, Digest> = store
                .list()
                .models
                .into_iter()
                .map(|stored| (stored.name.to_string().replace(":latest", "").to_lowercase(), stored.digest))
                .collect();
            prop_assert_eq!(&listed, &model);
        }
        for at in NAMES {
            let _ = store.delete(&name(at));
        }
        std::thread::sleep(Duration::from_millis(2));
        store.prune(Duration::ZERO).unwrap();
        prop_assert_eq!(blobs(&store), 0);
    }
}

const VICTIM: &str = "OLLAMA_STORE_VICTIM";

/// Not a test by itself: the process that the next test kills. Makes models without end.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&root));
    for round in 0_u32.. {
        let contents = [format!("first {round}"), format!("second {}", round / 3)];
        let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
        let which = format!("m{}", round % 4);
        store
            .write_manifest(&name(&which), &manifest(&store, &contents))
            .unwrap();
        if round % 5 == 4 {
            store.delete(&name(&which)).unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment_it_shows_no_half_model() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..12_u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--test-threads=1"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Different moments of its work, not a wait for an event.
        std::thread::sleep(Duration::from_millis(30 + 17 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        // Looked at as it was left, then as the next start finds it.
        check(&Store::open(folder.path(), Access::Read).unwrap());
        check(&open(folder.path()));
    }
    assert!(
        !open(folder.path()).list().models.is_empty(),
        "the victim did some work"
    );
}
