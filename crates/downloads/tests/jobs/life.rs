//! The life of a job in one process, and over an orderly restart.

use super::*;

#[tokio::test]
async fn one_target_is_one_job_whoever_asks() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let weights = model(200_000, "shared");
    origin.add_ollama_model("library/m:latest", &[OriginLayer::model(weights.clone())]);
    origin.add_ollama_model("library/twin:latest", &[OriginLayer::model(weights)]);
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let mut pulls = Vec::new();
    for name in ["m", "m:latest", "library/m", "M"] {
        pulls.push(downloads.pull(ollama(name)).await.unwrap());
    }
    let started = downloads.start_job(ollama("m")).await.unwrap();
    assert!(pulls.iter().all(|pull| pull.id() == started.id()));
    let id = started.id().0;
    assert!(
        id.len() == 14 && id.starts_with("job_") && id[4..].bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    // Another model with the same layer waits for it instead of fetching it again.
    let twin = downloads.pull(ollama("twin")).await.unwrap();
    for job in [&started, &*twin] {
        let view = ends(job).await.unwrap();
        assert_eq!(
            (view.state, view.bytes_total),
            (JobState::Completed, Some(view.bytes_done))
        );
        assert!(view.verified && view.model.is_some() && view.ended_ms.is_some());
    }
    let parts: Vec<String> = origin
        .requests()
        .iter()
        .filter(|r| r.host == testkit::OriginHost::Cdn)
        .filter_map(|r| r.range().map(str::to_owned))
        .collect();
    let mut once = parts.clone();
    once.sort();
    once.dedup();
    assert_eq!(parts.len(), once.len(), "{parts:?}");
    assert_eq!(home.looked.load(Ordering::Relaxed), 2);
    // Asked again, it is there already.
    let again = downloads.pull(ollama("m")).await.unwrap();
    let view = ends(&again).await.unwrap();
    assert!(again.was_present() && again.id() != started.id() && view.state == JobState::Completed);
}

#[tokio::test]
async fn pause_resume_and_cancel_are_exact() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let bytes = model(400_000, "paused");
    let address = origin.add_file("/models/p.gguf", bytes.clone());
    origin.fault(
        "p.gguf",
        OriginFault::Slow {
            bytes_per_second: 80_000,
        },
    );
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let job = downloads.start_job(url(&address)).await.unwrap();
    reaches(&job, "some bytes", |view| view.bytes_done > 50_000).await;
    assert!(downloads.pause(&job.id()).await.unwrap());
    assert_eq!(job.state(), JobState::Paused);
    assert!(!downloads.pause(&job.id()).await.unwrap());
    let held = job.view().bytes_done;
    assert!(held > 50_000 && held < bytes.len() as u64);
    assert_eq!(home.database.jobs().await.unwrap()[0].view.state, JobState::Paused);
    assert_eq!(ends(&job).await, Err(DownloadError::Paused));
    let names = files(&home.models());
    assert!(names.iter().all(|name| name.contains(".partial")), "{names:?}");
    let asked = origin.requests().len();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(origin.requests().len(), asked, "nothing goes on");

    assert!(downloads.resume(&job.id()).await.unwrap());
    assert!(!downloads.resume(&job.id()).await.unwrap());
    origin.clear_faults();
    let view = ends(&job).await.unwrap();
    assert_eq!(view.bytes_done, bytes.len() as u64);
    assert!(!view.verified, "no hash was published");
    let names = files(&home.models());
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(std::fs::read(home.models().join(&names[0])).unwrap(), bytes);
    for refused in [downloads.cancel(&job.id()).await, downloads.resume(&job.id()).await] {
        assert_eq!(refused, Ok(false));
    }
    assert_eq!(files(&home.models()).len(), 1, "a completed job keeps its file");
    assert!(downloads.forget(&job.id()).await.unwrap());
    assert!(downloads.job(&job.id()).is_none() && home.database.jobs().await.unwrap().is_empty());
    let unknown = JobId("job_0000000000".into());
    assert!(matches!(
        downloads.pause(&unknown).await,
        Err(DownloadError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_cancel_removes_what_was_there() {
    for paused_first in [false, true] {
        let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
        let mut repo = HubRepo::new();
        for part in 1..=2 {
            repo = repo.lfs(
                &format!("big-Q4_K_M-0000{part}-of-00002.gguf"),
                model(100_000 * part, &format!("part {part}")),
            );
        }
        origin.add_hub_repo("org/big", repo);
        origin.fault(
            "",
            OriginFault::Slow {
                bytes_per_second: 100_000,
            },
        );
        let (downloads, _) = home.downloads(&origin, |settings| settings.max_parallel = 1).await;
        let source = Source::Hub {
            repo: "org/big".into(),
            file_or_quant: Some("Q4_K_M".into()),
        };
        let job = downloads.start_job(source).await.unwrap();
        reaches(&job, "the second part", |view| {
            view.files.len() == 2 && view.files[0].size == Some(view.files[0].done) && view.files[1].done > 0
        })
        .await;
        if paused_first {
            assert!(downloads.pause(&job.id()).await.unwrap());
        }
        assert!(downloads.cancel(&job.id()).await.unwrap());
        assert_eq!(job.state(), JobState::Cancelled);
        assert_eq!(ends(&job).await, Err(DownloadError::Cancelled));
        assert_eq!(files(&home.models()), Vec::<String>::new());
        assert!(!home.models().join("org").exists());
        assert_eq!(home.database.jobs().await.unwrap()[0].view.state, JobState::Cancelled);
        assert!(!downloads.cancel(&job.id()).await.unwrap());
    }
}

#[tokio::test]
async fn when_the_last_who_waits_leaves_it_pauses_and_keeps_what_is_there() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let weights = model(300_000, "waited for");
    origin.add_ollama_model("library/m:latest", &[OriginLayer::model(weights)]);
    origin.fault(
        "",
        OriginFault::Slow {
            bytes_per_second: 80_000,
        },
    );
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let first = downloads.pull(ollama("m")).await.unwrap();
    let second = downloads.pull(ollama("m")).await.unwrap();
    let job = Job::clone(&first);
    reaches(&job, "some bytes", |view| view.bytes_done > 60_000).await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(job.state(), JobState::Downloading, "one still waits");
    drop(second);
    reaches(&job, "the pause", |view| view.state == JobState::Paused).await;
    assert!(job.view().bytes_done > 60_000);
    origin.clear_requests();
    // Whoever asks again goes on with it.
    let third = downloads.pull(ollama("m")).await.unwrap();
    assert_eq!(third.id(), job.id());
    reaches(&job, "going on", |view| view.state == JobState::Downloading).await;
    // One who does not wait keeps it going.
    downloads.start_job(ollama("m")).await.unwrap();
    drop(third);
    origin.clear_faults();
    ends(&job).await.unwrap();
    let starts: Vec<u64> = origin
        .requests()
        .iter()
        .filter(|r| r.host == testkit::OriginHost::Cdn)
        .filter_map(|r| r.range()?.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok())
        .collect();
    assert!(!starts.contains(&0), "from the start again: {starts:?}");
}

#[tokio::test]
async fn a_restart_goes_on_or_waits_as_the_settings_say() {
    for resume in [true, false] {
        let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
        let bytes = model(300_000, "restarted");
        let address = origin.add_file("/models/r.gguf", bytes.clone());
        origin.fault(
            "r.gguf",
            OriginFault::Slow {
                bytes_per_second: 100_000,
            },
        );
        let (downloads, _) = home.downloads(&origin, |_| {}).await;
        let job = downloads.start_job(url(&address)).await.unwrap();
        let paused = downloads
            .start_job(url(&origin.add_file("/models/other.gguf", bytes.clone())))
            .await
            .unwrap();
        reaches(&job, "some bytes", |view| view.bytes_done > 50_000).await;
        downloads.pause(&paused.id()).await.unwrap();
        let was_paused = paused.state() == JobState::Paused;
        let (waited, ()) = tokio::join!(job.wait(), downloads.shutdown());
        assert_eq!(waited, Err(DownloadError::ShuttingDown));
        assert!(downloads.start_job(url(&address)).await.is_err());
        drop(downloads);
        origin.clear_faults();
        origin.clear_requests();

        let (downloads, _) = home
            .downloads(&origin, |settings| settings.resume_on_start = resume)
            .await;
        let again = downloads.job(&job.id()).unwrap();
        if !resume {
            assert_eq!(again.state(), JobState::Paused);
            assert!(downloads.resume(&again.id()).await.unwrap());
        }
        let view = ends(&again).await.unwrap();
        assert_eq!(view.bytes_done, bytes.len() as u64);
        let from_zero = origin
            .requests_to("GET", "/models/r.gguf")
            .iter()
            .filter(|r| r.range().is_none_or(|range| range.starts_with("bytes=0-")))
            .count();
        assert_eq!(from_zero, 0, "what was there is used");
        if was_paused {
            assert_eq!(
                downloads.job(&paused.id()).unwrap().state(),
                JobState::Paused,
                "a pause outlives a restart"
            );
        }
    }
}

#[tokio::test]
async fn progress_is_told_at_most_four_times_a_second() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let address = origin.add_file("/models/e.gguf", model(300_000, "told"));
    origin.fault(
        "e.gguf",
        OriginFault::Slow {
            bytes_per_second: 75_000,
        },
    );
    let (downloads, bus) = home.downloads(&origin, |_| {}).await;
    let mut events = bus.subscribe();
    let begin = Instant::now();
    let job = downloads.start_job(url(&address)).await.unwrap();
    ends(&job).await.unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    let (mut progress, mut states) = (0, Vec::new());
    while let Ok(event) = events.try_recv() {
        if let EventKind::Download { job } = &event.kind {
            if states.last() == Some(&job.state) {
                progress += 1;
            } else {
                states.push(job.state);
            }
        }
    }
    use JobState::{Completed, Downloading, Queued, Resolving, Verifying};
    assert_eq!(states, [Queued, Resolving, Queued, Downloading, Verifying, Completed]);
    assert!(progress >= 2, "{progress} in {seconds} s");
    assert!(f64::from(progress) <= seconds * 4.0 + 1.0, "{progress} in {seconds} s");
    assert!(job.view().bytes_per_second == 0);
}

#[tokio::test]
async fn a_full_disk_pauses_and_says_how_much_is_missing() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let bytes = model(100_000, "full");
    home.free.store(bytes.len() as u64 - 40_000, Ordering::Relaxed);
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    // The size is published (a registry's), so the room is looked at before a byte comes.
    origin.add_ollama_model("library/f:latest", &[OriginLayer::model(bytes.clone())]);
    let job = downloads.start_job(ollama("f")).await.unwrap();
    let error = ends(&job).await.unwrap_err();
    let view = job.view();
    // The weights and the small configuration beside them.
    let missing = view.bytes_total.unwrap() - home.free.load(Ordering::Relaxed);
    assert!((40_000..41_000).contains(&missing));
    assert_eq!(error, DownloadError::DiskFull { missing });
    assert_eq!(view.state, JobState::Paused);
    assert_eq!(
        view.error.as_deref(),
        Some("not enough disk space: 40.3 kB more are needed")
    );
    home.free.store(1 << 40, Ordering::Relaxed);
    assert!(downloads.resume(&job.id()).await.unwrap());
    ends(&job).await.unwrap();
    assert_eq!(job.view().error, None);
}

#[tokio::test]
async fn all_files_of_a_job_must_fit_together() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let parts = [model(100_000, "part 1"), model(100_000, "part 2")];
    let total: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let mut repo = HubRepo::new();
    for (number, part) in parts.into_iter().enumerate() {
        repo = repo.lfs(&format!("two-Q4_K_M-0000{}-of-00002.gguf", number + 1), part);
    }
    origin.add_hub_repo("org/two", repo);
    home.free.store(total - 1, Ordering::Relaxed);
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let source = Source::Hub {
        repo: "org/two".into(),
        file_or_quant: Some("Q4_K_M".into()),
    };
    let job = downloads.start_job(source).await.unwrap();
    assert_eq!(ends(&job).await, Err(DownloadError::DiskFull { missing: 1 }));
    assert!(
        origin.requests().iter().all(|r| r.host == testkit::OriginHost::Origin),
        "no file was asked for"
    );
    assert_eq!(files(&home.models()), Vec::<String>::new());
}

#[tokio::test]
async fn a_failure_says_why_and_the_next_pull_tries_anew() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let address = origin.add_file("/models/x.gguf", model(1000, "x"));
    origin.fault(
        "x.gguf",
        OriginFault::Status {
            status: 404,
            retry_after: None,
            body: String::new(),
        },
    );
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let job = downloads.start_job(url(&address)).await.unwrap();
    let error = ends(&job).await.unwrap_err();
    assert!(matches!(error, DownloadError::NotFound(_)), "{error:?}");
    let view = job.view();
    assert_eq!((view.state, view.error), (JobState::Failed, Some(error.to_string())));
    origin.clear_faults();
    let again = downloads.pull(url(&address)).await.unwrap();
    assert_ne!(again.id(), job.id());
    ends(&again).await.unwrap();
    drop(downloads);
    // The text survives; a failed job is not taken up again by itself.
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let old = downloads.job(&job.id()).unwrap();
    assert_eq!(ends(&old).await.unwrap_err().to_string(), error.to_string());
}

#[tokio::test]
async fn changed_limits_reach_running_downloads() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let address = origin.add_file("/models/l.gguf", model(300_000, "limited"));
    let (downloads, _) = home
        .downloads(&origin, |settings| settings.bandwidth_limit = Some(10_000))
        .await;
    let job = downloads.start_job(url(&address)).await.unwrap();
    reaches(&job, "a beginning", |view| view.state == JobState::Downloading).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(job.view().bytes_done < 300_000, "held back");
    downloads.apply(settings(home.dir.path(), &origin.url()));
    ends(&job).await.unwrap();
}
