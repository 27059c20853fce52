//! The database from outside: what is acknowledged stays, damaged files never stop a start.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

use std::io::{BufRead, BufReader};
use std::path::Path;

use domain::{JobId, JobKind, JobState, JobView};
use store::{JobRow, ResponseKind, ResponseRow, Store};

fn job(number: i64, state: JobState) -> JobRow {
    let id = JobId(format!("job_{number:010x}"));
    JobRow {
        id: id.clone(),
        target: format!("ollama m{number}"),
        source: "{}".into(),
        view: JobView {
            id,
            kind: JobKind::Registry,
            name: format!("m{number}"),
            quantization: None,
            state,
            files: Vec::new(),
            bytes_done: 0,
            bytes_total: Some(7),
            bytes_per_second: 0,
            error: None,
            verified: true,
            model: None,
            started_ms: number,
            ended_ms: None,
        },
    }
}

fn response(id: &str, parent: Option<&str>, created_ms: i64) -> ResponseRow {
    ResponseRow {
        id: id.into(),
        kind: ResponseKind::OpenAi,
        parent: parent.map(Into::into),
        model: "m".into(),
        created_ms,
        messages: format!("[\"{id}\"]"),
        body: "{}".into(),
    }
}

fn ids(rows: &[ResponseRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

#[tokio::test]
async fn jobs_come_back_as_they_were_last_put() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(&path).unwrap();
    for number in [3, 1, 2] {
        store.put_job(job(number, JobState::Queued)).await.unwrap();
    }
    store.put_job(job(1, JobState::Completed)).await.unwrap();
    store.delete_job(&job(2, JobState::Queued).id).await.unwrap();
    store.delete_job(&JobId("unknown".into())).await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(
        store.jobs().await.unwrap(),
        [job(1, JobState::Completed), job(3, JobState::Queued)]
    );
}

#[tokio::test]
async fn answers_are_found_with_all_they_continue() {
    let store = Store::in_memory().unwrap();
    for (id, parent, at) in [
        ("a", None, 1),
        ("b", Some("a"), 2),
        ("c", Some("b"), 3),
        ("branch", Some("a"), 4),
    ] {
        store.put_response(response(id, parent, at)).await.unwrap();
    }
    let openai = ResponseKind::OpenAi;
    assert_eq!(
        store.response(openai, "b").await.unwrap(),
        Some(response("b", Some("a"), 2))
    );
    assert_eq!(ids(&store.response_chain(openai, "c").await.unwrap()), ["a", "b", "c"]);
    assert_eq!(
        ids(&store.response_chain(openai, "branch").await.unwrap()),
        ["a", "branch"]
    );
    assert_eq!(
        ids(&store.response_chain(openai, "x").await.unwrap()),
        Vec::<&str>::new()
    );
    // Another dialect's ids are other ids.
    assert_eq!(store.response(ResponseKind::LmStudio, "b").await.unwrap(), None);
    assert!(!store.delete_response(ResponseKind::LmStudio, "b").await.unwrap());
    assert!(store.delete_response(openai, "b").await.unwrap());
    assert!(!store.delete_response(openai, "b").await.unwrap());
    assert_eq!(ids(&store.response_chain(openai, "c").await.unwrap()), ["c"]);
    // A ring in damaged data ends too.
    store.put_response(response("a", Some("branch"), 1)).await.unwrap();
    assert!(store.response_chain(openai, "branch").await.unwrap().len() >= 2);
}

#[tokio::test]
async fn answers_are_pruned_by_age_and_count() {
    const DAY: i64 = 24 * 3600 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(&path).unwrap();
    let now = 1_700_000_000_000;
    store.put_response(response("old", None, now - 31 * DAY)).await.unwrap();
    store
        .put_response(response("young", None, now - 29 * DAY))
        .await
        .unwrap();
    store.put_response(response("new", None, now)).await.unwrap();
    let openai = ResponseKind::OpenAi;
    assert_eq!(store.response(openai, "old").await.unwrap(), None);
    assert!(store.response(openai, "young").await.unwrap().is_some());
    drop(store);
    // Ten thousand more, written past the store for speed.
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
         INSERT INTO responses SELECT 'r' || i, 'openai', NULL, 'm', ?1 + i, '[]', '{}' FROM n",
        [now],
    )
    .unwrap();
    drop(db);
    let store = Store::open(&path).unwrap();
    store.put_response(response("newest", None, now + DAY)).await.unwrap();
    assert_eq!(store.response(openai, "young").await.unwrap(), None);
    assert_eq!(store.response(openai, "new").await.unwrap(), None);
    assert!(store.response(openai, "r1").await.unwrap().is_some());
    assert!(store.response(openai, "newest").await.unwrap().is_some());
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_the_start_goes_on() {
    let good = {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).unwrap();
        for number in 0..200 {
            store.put_job(job(number, JobState::Queued)).await.unwrap();
        }
        drop(store);
        std::fs::read(dir.path().join("store.db")).unwrap()
    };
    let mut torn = good.clone();
    let middle = good.len() / 2;
    torn[4096..middle].fill(0xaa);
    let damaged: [(&str, Vec<u8>); 4] = [
        (
            "no database",
            b"this is a text and no database at all, long enough to be read as a header, or so".repeat(9),
        ),
        ("zeros", vec![0; good.len()]),
        ("cut", good[..good.len() / 2].to_vec()),
        ("torn", torn),
    ];
    for (what, bytes) in damaged {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(dir.path().join("store.db-wal"), b"rubbish").unwrap();
        let store = Store::open(&path).unwrap();
        store.put_job(job(7, JobState::Paused)).await.unwrap();
        assert_eq!(
            store.jobs().await.unwrap().last(),
            Some(&job(7, JobState::Paused)),
            "{what}"
        );
        let aside = names(dir.path())
            .into_iter()
            .find(|name| name.starts_with("store.db.damaged-"));
        let aside = aside.unwrap_or_else(|| panic!("{what}: {:?}", names(dir.path())));
        assert!(
            std::fs::read(dir.path().join(aside)).unwrap() == bytes,
            "{what}: kept as it was"
        );
    }
}

#[tokio::test]
async fn damage_in_a_large_file_is_met_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(&path).unwrap();
    for number in 0..300 {
        store.put_job(job(number, JobState::Queued)).await.unwrap();
    }
    let large = ResponseRow {
        body: "x".repeat(20 << 20),
        ..response("large", None, 1)
    };
    store.put_response(large).await.unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5 * 4096..20 * 4096].fill(0xaa);
    std::fs::write(&path, bytes).unwrap();
    let store = Store::open(&path).unwrap();
    assert!(matches!(store.jobs().await, Err(store::StoreError::Damaged(_))));
    store.put_job(job(1, JobState::Queued)).await.unwrap();
    assert_eq!(store.jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_newer_form_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    drop(Store::open(&path).unwrap());
    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let store = Store::open(&path).unwrap();
    store.put_job(job(1, JobState::Queued)).await.unwrap();
    assert_eq!(store.jobs().await.unwrap().len(), 1, "in memory");
    drop(store);
    let version: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
    assert!(names(dir.path()).iter().all(|name| !name.contains("damaged")));
}

#[tokio::test]
async fn what_is_in_the_way_and_not_damaged_stays() {
    let dir = tempfile::tempdir().unwrap();
    // As little openable as a file without rights to it, also for root.
    let path = dir.path().join("store.db");
    std::fs::create_dir(&path).unwrap();
    let store = Store::open(&path).unwrap();
    store.put_job(job(1, JobState::Queued)).await.unwrap();
    assert_eq!(store.jobs().await.unwrap().len(), 1);
    assert_eq!(names(dir.path()), ["store.db"]);
}

#[tokio::test]
async fn without_a_place_rows_live_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("no/such/folder/store.db")).unwrap();
    store.put_job(job(1, JobState::Queued)).await.unwrap();
    assert_eq!(store.jobs().await.unwrap().len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_this_user_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.db")).unwrap();
    store.put_job(job(1, JobState::Queued)).await.unwrap();
    for name in names(dir.path()) {
        let mode = std::fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

/// Run by [`what_was_acknowledged_survives_a_kill`] in a process of its own.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(path) = std::env::var_os("LR_TEST_STORE") else {
        return;
    };
    let first: i64 = std::env::var("LR_TEST_FIRST").unwrap().parse().unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    for number in first.. {
        store.put_job(job(number, JobState::Downloading)).await.unwrap();
        println!("kept {number}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut kept = 0;
    for round in 0..10_i64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env("LR_TEST_STORE", &path)
            .env("LR_TEST_FIRST", kept.to_string())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 5 + round * 3 {
            let line = lines.next().expect("the child writes").unwrap();
            if line.contains("kept ") {
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was still in the pipe counts too.
        seen += lines
            .map_while(Result::ok)
            .filter(|line| line.contains("kept "))
            .count() as i64;
        kept += seen;
        let jobs = Store::open(&path).unwrap().jobs().await.unwrap();
        assert!(jobs.len() as i64 >= kept, "{} of {kept} in round {round}", jobs.len());
        for (number, row) in jobs.iter().enumerate() {
            assert_eq!(*row, job(number as i64, JobState::Downloading));
        }
        kept = jobs.len() as i64;
    }
    assert!(names(dir.path()).iter().all(|name| !name.contains("damaged")));
}
