//! A process killed at any moment.

use super::*;

/// Run by [`killed_at_random_twenty_jobs_end_whole`] in a process of its own.
#[tokio::test]
async fn child_that_is_killed() {
    let (Some(home), Some(origin)) = (std::env::var_os("LR_TEST_HOME"), std::env::var_os("LR_TEST_ORIGIN")) else {
        return;
    };
    let (home, origin) = (PathBuf::from(home), origin.into_string().unwrap());
    let settings = DownloadSettings {
        bandwidth_limit: Some(3_000_000),
        ..settings(&home, &origin)
    };
    let deps = DownloadDeps {
        store: Store::open(&home.join("store.db")).unwrap(),
        ollama_store: ollama_store::Store::open(home.join("ollama"), Access::Write).unwrap(),
        bus: EventBus::new(),
        disk_free: Arc::new(|_| None),
        landed: Arc::new(|_, _| Box::pin(std::future::ready(()))),
    };
    let downloads = Downloads::start(settings, deps).await;
    for number in 0..JOBS {
        let known = downloads
            .jobs()
            .iter()
            .any(|job| job.source() == Some(numbered(&origin, number)));
        if !known {
            downloads.start_job(numbered(&origin, number)).await.unwrap();
        }
    }
    for job in downloads.jobs() {
        job.wait().await.unwrap();
    }
}

const JOBS: usize = 20;

/// Half of them of a registry, half plain files.
fn numbered(origin: &str, number: usize) -> Source {
    if number.is_multiple_of(2) {
        ollama(&format!("m{number}"))
    } else {
        url(&format!("{origin}/models/m{number}.gguf"))
    }
}

#[cfg(unix)]
#[tokio::test]
async fn killed_at_random_twenty_jobs_end_whole() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), tempfile::tempdir().unwrap());
    let mut contents = Vec::new();
    for number in 0..JOBS {
        let bytes = model(150_000, &"x".repeat(number + 1));
        if number.is_multiple_of(2) {
            origin.add_ollama_model(
                &format!("library/m{number}:latest"),
                &[OriginLayer::model(bytes.clone())],
            );
        } else {
            origin.add_file(&format!("/models/m{number}.gguf"), bytes.clone());
        }
        contents.push(bytes);
    }
    let child = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::child_that_is_killed", "--nocapture"])
            .env("LR_TEST_HOME", home.path())
            .env("LR_TEST_ORIGIN", origin.url())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut seed = u64::from(std::process::id());
    let mut kills = 0;
    let last = loop {
        let mut child = child();
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_millis(20 + (seed >> 33) % 250);
        let begin = Instant::now();
        // The last lives may come to their end.
        let left_alone = kills >= 12;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if !left_alone && begin.elapsed() >= life {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break None;
            }
            assert!(begin.elapsed() < Duration::from_mins(1), "the last life does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        // Whatever moment it was: what is visible is whole.
        for file in files(home.path()) {
            let path = home.path().join(&file);
            if path.extension().is_some_and(|extension| extension == "gguf") {
                let bytes = std::fs::read(&path).unwrap();
                assert!(contents.contains(&bytes), "{file} is visible and not whole");
            }
        }
        if let Some(status) = status {
            break status;
        }
    };
    assert!(last.success() && kills >= 3, "{last:?} after {kills} kills");
    let database = Store::open(&home.path().join("store.db")).unwrap();
    let jobs = database.jobs().await.unwrap();
    assert_eq!(jobs.len(), JOBS);
    assert!(jobs.iter().all(|job| job.view.state == JobState::Completed), "{jobs:?}");
    let store = ollama_store::Store::open(home.path().join("ollama"), Access::Read).unwrap();
    for (number, bytes) in contents.iter().enumerate() {
        if number.is_multiple_of(2) {
            let name = ollama_store::Name::parse(&format!("{}/library/m{number}", origin.host()));
            let known = [format!("m{number}")]
                .iter()
                .filter_map(|n| ollama_store::Name::parse(n))
                .chain(name)
                .any(|name| store.read(&name).is_ok());
            assert!(known, "m{number}");
        } else {
            let found = files(&home.path().join("models"))
                .into_iter()
                .find(|file| file.ends_with(&format!("m{number}.gguf")))
                .unwrap();
            assert!(std::fs::read(home.path().join("models").join(found)).unwrap() == *bytes);
        }
    }
    let left: Vec<String> = files(home.path())
        .into_iter()
        .filter(|file| file.contains(".partial"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
