//! What a job's end claims and leaves.

use super::*;

fn hub(repo: &str) -> Source {
    Source::Hub {
        repo: repo.to_owned(),
        file_or_quant: None,
    }
}

#[tokio::test]
async fn what_lay_there_before_is_not_called_verified() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let bytes = model(1000, "right");
    origin.add_hub_repo("org/m", HubRepo::new().lfs("m-Q4_K_M.gguf", bytes.clone()));
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let job = downloads.start_job(hub("org/m")).await.unwrap();
    assert!(ends(&job).await.unwrap().verified);
    let path = home.models().join(files(&home.models()).pop().unwrap());
    // As long as the published file, and another one.
    std::fs::write(&path, vec![7; bytes.len()]).unwrap();
    let again = downloads.start_job(hub("org/m")).await.unwrap();
    let view = ends(&again).await.unwrap();
    assert!(again.was_present() && !view.verified, "{view:?}");
}

#[tokio::test]
async fn a_panic_ends_the_job_and_it_can_be_tried_again() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let address = origin.add_file("/models/x.gguf", model(1000, "x"));
    let panics = Arc::new(AtomicUsize::new(1));
    let left = Arc::clone(&panics);
    let landed: Landed = Arc::new(move |_, _| {
        assert!(left.swap(0, Ordering::Relaxed) == 0, "a fault in the library");
        Box::pin(std::future::ready(()))
    });
    let (downloads, _) = home.downloads_with(&origin, |_| {}, landed).await;
    let job = downloads.start_job(url(&address)).await.unwrap();
    assert!(matches!(ends(&job).await, Err(DownloadError::Io(_))));
    assert_eq!(job.state(), JobState::Failed);
    assert!(
        downloads.resume(&job.id()).await.unwrap(),
        "it does not count as running"
    );
    assert_eq!(ends(&job).await.unwrap().state, JobState::Completed);
}

#[tokio::test]
async fn a_forgotten_failure_leaves_no_unfinished_file_but_those_of_others() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let shared = model(200_000, "shared");
    for name in ["one", "two"] {
        origin.add_ollama_model(&format!("library/{name}:latest"), &[OriginLayer::model(shared.clone())]);
    }
    let hex = ollama_store::Digest::of(&shared).hex();
    let (downloads, _) = home.downloads(&origin, |settings| settings.tuning.retries = 1).await;
    let cut = || {
        origin.fault(&hex, OriginFault::Cut { after: 0 });
    };
    let partials = || {
        let all = files(&home.dir.path().join("ollama/blobs"));
        all.iter().filter(|name| name.contains(".partial")).count()
    };
    let mut failed = Vec::new();
    for name in ["one", "two"] {
        cut();
        let job = downloads.start_job(ollama(name)).await.unwrap();
        assert!(ends(&job).await.is_err());
        assert_eq!((job.state(), partials()), (JobState::Failed, 2));
        failed.push(job);
    }
    assert!(downloads.forget(&failed[0].id()).await.unwrap());
    assert_eq!(partials(), 2, "the other may be gone on with");
    assert!(downloads.forget(&failed[1].id()).await.unwrap());
    assert_eq!(partials(), 0);
}

#[tokio::test]
async fn a_cancel_leaves_what_another_job_completed() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let mut repo = HubRepo::new();
    for part in 1..=2 {
        let name = format!("big-Q4_K_M-0000{part}-of-00002.gguf");
        repo = repo.lfs(&name, model(50_000 * part, &format!("part {part}")));
    }
    origin.add_hub_repo("org/big", repo);
    let (downloads, _) = home
        .downloads(&origin, |settings| {
            settings.max_parallel = 1;
            settings.tuning.retries = 1;
        })
        .await;
    origin.fault(
        "00002-of-00002",
        OriginFault::Status {
            status: 404,
            retry_after: None,
            body: String::new(),
        },
    );
    let first = downloads.start_job(hub("org/big")).await.unwrap();
    assert!(ends(&first).await.is_err());
    assert_eq!(first.state(), JobState::Failed);
    origin.clear_faults();
    let second = downloads.start_job(hub("org/big")).await.unwrap();
    assert_ne!(second.id(), first.id());
    ends(&second).await.unwrap();
    assert!(downloads.cancel(&first.id()).await.unwrap());
    assert_eq!(files(&home.models()).len(), 2, "the model is whole");
}
