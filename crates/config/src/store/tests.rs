use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::copies::{beside, file_name};
use super::*;
use crate::atomic_file::{ARMED, FAILPOINTS};
use crate::schema::default_text;

fn open(path: &Path) -> ConfigStore {
    ConfigStore::open(path, Overrides::default()).unwrap()
}

/// A store on a file with this text, and its updates.
fn store(text: &str) -> (TempDir, PathBuf, ConfigStore, Receiver<Update>, Subscription) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, text).unwrap();
    let store = open(&path);
    let (sender, receiver) = channel();
    let subscription = store.subscribe(move |update| sender.send(update.clone()).unwrap());
    (folder, path, store, receiver, subscription)
}

fn next(updates: &Receiver<Update>) -> Update {
    updates
        .recv_timeout(Duration::from_secs(20))
        .expect("an update within 20 s")
}

fn applied(update: Update) -> Change {
    match update {
        Update::Applied(change) => change,
        Update::Refused(why) => panic!("refused: {why}"),
    }
}

#[test]
fn first_start_makes_a_private_file_with_defaults() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/config.json");
    let first = open(&path);
    assert_eq!(*first.snapshot(), Config::default());
    assert_eq!(fs::read_to_string(&path).unwrap(), default_text(None));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    assert_eq!(first.status().warnings, Vec::<String>::new());
    assert_eq!(*open(&path).snapshot(), Config::default());
}

#[test]
fn set_keeps_unknown_fields_order_and_old_copies() {
    let (folder, path, store, updates, _subscription) =
        store(r#"{"zebra": {"x": [1, {"y": null}]}, "scheduler": {"future": true, "max_queue": 3}, "alpha": 1e3}"#);
    assert_eq!(store.status().warnings.len(), 3);
    let revision = store.set("/scheduler/max_queue", &json!(4), None).unwrap();
    assert_eq!(store.snapshot().scheduler.max_queue, 4);
    let change = applied(next(&updates));
    assert_eq!((change.old.scheduler.max_queue, change.new.scheduler.max_queue), (3, 4));
    assert_eq!(change.sections, ["scheduler"]);
    let text = fs::read_to_string(&path).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value,
        json!({"zebra": {"x": [1, {"y": null}]}, "scheduler": {"future": true, "max_queue": 4}, "alpha": 1000.0})
    );
    assert_eq!(
        value.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["zebra", "scheduler", "alpha"]
    );
    assert_eq!(store.status().revision, revision);
    let backups = fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .filter(|e| file_name(&e.path()).contains(".backup."));
    assert_eq!(backups.count(), 1);
    store.remove("/scheduler/max_queue", Some(&revision)).unwrap();
    assert_eq!(store.snapshot().scheduler.max_queue, 512);
    let stale = store
        .set("/scheduler/max_queue", &json!(5), Some(&revision))
        .unwrap_err();
    assert!(matches!(stale, ConfigError::Stale(_)), "{stale}");
}

#[test]
fn a_refused_value_is_never_written() {
    let (_folder, path, store, updates, _subscription) = store("{}");
    for (pointer, value) in [
        ("/scheduler/max_queue", json!("many")),
        ("/proxies/ollama/host", json!("0.0.0.0")),
        ("/proxies/ollama/port", json!(1234)),
        ("", json!([])),
        ("no pointer", json!(1)),
    ] {
        store.set(pointer, &value, None).unwrap_err();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    assert!(updates.try_recv().is_err());
    assert!(store.status().ok);
}

#[test]
fn only_ten_old_copies_are_kept() {
    let (folder, path, store, ..) = store("{}");
    for unix in 0..15 {
        fs::write(beside(&path, &format!("backup.{unix}")), "{}").unwrap();
    }
    store.set("/scheduler/max_queue", &json!(4), None).unwrap();
    let kept = |name: &str| folder.path().join(name).exists();
    assert!(!kept("config.json.backup.5"), "too old");
    assert!(kept("config.json.backup.6"));
}

#[test]
fn damaged_files_are_restored_from_the_good_copy() {
    for damage in [&b""[..], b"  \n", &[0; 300], b"\xff\xfe{}", b"{\0}"] {
        let (folder, path, store, ..) = store("{}");
        store.set("/scheduler/max_queue", &json!(7), None).unwrap();
        let good = fs::read(&path).unwrap();
        drop(store);
        fs::write(&path, damage).unwrap();
        let store = open(&path);
        assert_eq!(store.snapshot().scheduler.max_queue, 7);
        assert_eq!(fs::read(&path).unwrap(), good);
        assert!(store.status().warnings[0].contains("last good copy was restored"));
        let aside = fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .find(|e| file_name(&e.path()).contains(".broken."));
        assert_eq!(fs::read(aside.unwrap().path()).unwrap(), damage);
    }
}

#[test]
fn a_damaged_file_without_good_copy_is_reported_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, [0; 8]).unwrap();
    let error = ConfigStore::open(&path, Overrides::default()).unwrap_err();
    assert!(matches!(error, ConfigError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), [0; 8]);
}

/// Promise C1: whatever is put on disk, the answers stay the same until a good file comes.
#[test]
fn forty_broken_files_change_nothing() {
    let good = r#"{"scheduler": {"max_queue": 77}, "proxies": {"ollama": {"port": 11500}}}"#;
    let (_folder, path, store, updates, _subscription) = store(good);
    let before = store.snapshot();
    let text = default_text(None);
    let mut broken: Vec<Vec<u8>> = (1..8).map(|n| text.as_bytes()[..text.len() * n / 8].to_vec()).collect();
    broken.extend([
        vec![],
        vec![0; 500],
        b"\xff\xff".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\"x\"".to_vec(),
    ]);
    let mut with_nul = text.clone().into_bytes();
    with_nul[20] = 0;
    broken.push(with_nul);
    let texts = [
        "{",
        "}",
        "{}}",
        "{} {}",
        "{\"a\":}",
        "{,}",
        "{'a':1}",
        "{\"a\":1,}",
        "// x\n{}",
        "{\"a\":NaN}",
        "{\"a\":\"\u{1}\"}",
        r#"{"scheduler": 1}"#,
        r#"{"scheduler": null}"#,
        r#"{"scheduler": {"max_queue": -1}}"#,
        r#"{"scheduler": {"max_queue": 1.5}}"#,
        r#"{"scheduler": {"max_queue": "9"}}"#,
        r#"{"scheduler": {"max_queue": 0}}"#,
        r#"{"scheduler": {"preload": "x"}}"#,
        r#"{"scheduler": {"max_queue": 1, "max_queue": 2}}"#,
        r#"{"models": {"entries": {"a": {}, "a": {}}}}"#,
        r#"{"models": {"dirs": [1]}}"#,
        r#"{"models": {"entries": {"ps": {}}}}"#,
        r#"{"models": {"entries": {"by-id": {}}}}"#,
        r#"{"models": {"entries": {"a": {"aliases": ["x"]}, "b": {"aliases": ["X"]}}}}"#,
        r#"{"models": {"entries": {"a": {"group": "none"}}}}"#,
        r#"{"model_aliases": {"a": "a"}}"#,
        r#"{"proxies": {"ollama": {"port": 1234}}}"#,
        r#"{"proxies": {"ollama": {"port": 70000}}}"#,
        r#"{"proxies": {"ollama": {"host": "0.0.0.0"}}}"#,
        r#"{"proxies": {"ollama": {"host": "example.org"}}}"#,
        r#"{"proxies": {"ollama": {"enabled": "yes"}}}"#,
        r#"{"defaults": {"context": "big"}}"#,
        r#"{"defaults": {"context": 1}}"#,
        r#"{"defaults": {"keep_alive": "soon"}}"#,
        r#"{"defaults": {"kv_cache_type": "--host"}}"#,
        r#"{"engines": {"llama_server": {"env": {"A=B": "x"}}}}"#,
        r#"{"logging": {"level": "loud"}}"#,
        r#"{"ui": {"theme": "pink"}}"#,
        r#"{"auth": {"inference_keys": [{"env": "A"}]}}"#,
        r#"{"auth": {"require_management_auth": true}}"#,
        r#"{"groups": {"a": {"members": ["m"]}, "b": {"members": ["m"]}}}"#,
    ];
    broken.extend(texts.iter().map(|t| t.as_bytes().to_vec()));
    assert!(broken.len() >= 40);
    for contents in broken {
        let shown = String::from_utf8_lossy(&contents).into_owned();
        fs::write(&path, &contents).unwrap();
        assert!(!store.reload(), "accepted: {shown}");
        assert_eq!(store.snapshot(), before, "{shown}");
        let status = store.status();
        assert!(!status.ok && status.error.is_some(), "{shown}");
        assert!(store.set("/desktop/autostart", &json!(true), None).is_err(), "{shown}");
        assert_eq!(
            fs::read(&path).unwrap(),
            contents,
            "a change must not overwrite a broken edit"
        );
    }
    assert!(updates.try_iter().all(|u| matches!(u, Update::Refused(_))));
    fs::write(&path, r#"{"scheduler": {"max_queue": 78}}"#).unwrap();
    assert!(store.reload());
    assert_eq!(store.snapshot().scheduler.max_queue, 78);
    assert!(store.status().ok);
}

#[test]
fn messages_name_file_line_column_and_field() {
    let error = |text: &str| Config::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("{\n  \"scheduler\": {\n    \"max_queue\": \"x\"\n  }\n}"),
        "config.json line 3, column 18: scheduler.max_queue: invalid type: string \"x\", expected u32"
    );
    assert_eq!(
        error("{\n \"proxies\": {\"lmstudio\": {\"port\": 11434}}}"),
        "config.json line 2, column 35: proxies.lmstudio.port: port 11434 is also the port of proxies.ollama; each listener needs its own"
    );
    assert_eq!(
        error("{\n \"a\": 1,\n}"),
        "config.json line 3, column 1: this is not valid JSON: trailing comma"
    );
    assert_eq!(
        error("{\"a\": 1,\n \"a\": 2}"),
        "config.json line 2, column 2: a: this key is there twice"
    );
    assert_eq!(
        error("{\"models\": {\"entries\": {\"a/b\": {\"context\": \"big\"}}}}"),
        "config.json line 1, column 44: models.entries.a/b.context: invalid type: string \"big\", expected u32 or \"auto\""
    );
    let warning = &Config::parse("{\n\n \"logging\": {\"levle\": 1}}").unwrap().warnings[0];
    assert_eq!(
        warning,
        "config.json line 3: \"levle\" is not a setting. Did you mean \"level\"?"
    );
}

#[test]
fn edits_by_hand_are_noticed_however_the_editor_saves() {
    let (folder, path, store, updates, _subscription) = store("{}");
    let text = |n: u32| format!(r#"{{"scheduler": {{"max_queue": {n}}}}}"#);
    let heard = |n: u32| assert_eq!(applied(next(&updates)).new.scheduler.max_queue, n);
    // In place.
    fs::write(&path, text(1)).unwrap();
    heard(1);
    // A new file renamed over the old one.
    fs::write(folder.path().join("tmp"), text(2)).unwrap();
    fs::rename(folder.path().join("tmp"), &path).unwrap();
    heard(2);
    // The old one moved away first.
    fs::rename(&path, folder.path().join("config.json~")).unwrap();
    fs::write(&path, text(3)).unwrap();
    loop {
        // The moment without a file may be reported or not.
        if let Update::Applied(change) = next(&updates) {
            assert_eq!(change.new.scheduler.max_queue, 3);
            break;
        }
    }
    // A broken save is reported, the repair is heard.
    fs::write(&path, "{").unwrap();
    assert!(matches!(next(&updates), Update::Refused(_)));
    assert_eq!(store.snapshot().scheduler.max_queue, 3);
    fs::write(&path, text(4)).unwrap();
    heard(4);
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed_and_kept() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, queue) in [("one", 1), ("two", 2)] {
        fs::create_dir(at(name)).unwrap();
        fs::write(
            at(name).join("real.json"),
            format!(r#"{{"scheduler":{{"max_queue":{queue}}}}}"#),
        )
        .unwrap();
    }
    fs::create_dir(at("etc")).unwrap();
    let path = at("etc").join("config.json");
    std::os::unix::fs::symlink(at("one/real.json"), &path).unwrap();
    let store = open(&path);
    let (sender, updates) = channel();
    let _subscription = store.subscribe(move |update| sender.send(update.clone()).unwrap());
    assert_eq!(store.snapshot().scheduler.max_queue, 1);
    // The target changes.
    fs::write(at("one/real.json"), r#"{"scheduler":{"max_queue":11}}"#).unwrap();
    assert_eq!(applied(next(&updates)).new.scheduler.max_queue, 11);
    // The link moves.
    std::os::unix::fs::symlink(at("two/real.json"), at("etc/new")).unwrap();
    fs::rename(at("etc/new"), &path).unwrap();
    assert_eq!(applied(next(&updates)).new.scheduler.max_queue, 2);
    // Our own change goes to the target, the link stays.
    store.set("/scheduler/max_queue", &json!(22), None).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(fs::read_to_string(at("two/real.json")).unwrap().contains("22"));
}

/// Promise C3: what was acknowledged is in the file, whoever else writes.
#[test]
fn concurrent_writers_lose_nothing() {
    let (_folder, path, store, ..) = store("{}");
    std::thread::scope(|scope| {
        for writer in 0..50 {
            let store = &store;
            scope.spawn(move || {
                let alias = json!(format!("target {writer}"));
                store
                    .set(&format!("/model_aliases/name {writer}"), &alias, None)
                    .unwrap();
            });
        }
    });
    // An edit by hand, then another change: both are there.
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value["by_hand"] = json!(true);
    fs::write(&path, pretty(&value)).unwrap();
    store.set("/model_aliases/last", &json!("t"), None).unwrap();
    let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(value["model_aliases"].as_object().unwrap().len(), 51);
    assert_eq!(value["by_hand"], json!(true));
    assert_eq!(store.snapshot().model_aliases.len(), 51);
}

const CHILD: &str = "store::tests::child_that_is_killed_while_writing";

/// Run by [`killed_at_every_step`] in a process of its own.
#[test]
fn child_that_is_killed_while_writing() {
    let Some(path) = std::env::var_os("CONFIG_KILL_TEST") else {
        return;
    };
    let store = open(Path::new(&path));
    ARMED.store(true, Ordering::Relaxed);
    store.set("/scheduler/max_queue", &json!(2), None).unwrap();
}

/// Promise C2: killed at any step, the file is the old or the new one byte for byte, and the next start works.
#[test]
fn killed_at_every_step() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    let old = r#"{"kept": "1", "scheduler": {"max_queue": 1}}"#;
    let new = "{\n  \"kept\": \"1\",\n  \"scheduler\": {\n    \"max_queue\": 2\n  }\n}\n";
    for step in FAILPOINTS {
        for _ in 0..3 {
            fs::write(&path, old).unwrap();
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", CHILD])
                .env("CONFIG_KILL_TEST", &path)
                .env("CONFIG_FAILPOINT", step)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{step}: the child must die");
            let expected = if matches!(step, "renamed" | "folder-synced") {
                new
            } else {
                old
            };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{step}");
            assert!(open(&path).status().ok, "{step}");
        }
    }
}

/// Promise C4: an editor that saves without end, half a file at a time, leaves the last state in effect.
#[test]
fn a_storm_of_partial_saves_ends_with_the_last_one() {
    let (_folder, path, store, updates, _subscription) = store("{}");
    let text = |n: u32| format!(r#"{{"scheduler": {{"max_queue": {n}}}}}"#);
    for n in 1..=100 {
        let text = text(n);
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        fs::write(&path, &text).unwrap();
        assert!(store.snapshot().scheduler.max_queue <= 512);
    }
    while store.snapshot().scheduler.max_queue != 100 {
        next(&updates);
    }
    assert!(store.status().ok);
}
