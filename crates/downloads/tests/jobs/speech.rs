//! Speech models come whole or not at all.

use testkit::WhisperCraft;

use super::*;

const REPO: &str = "Systran/faster-whisper-base";
const FOLDER: &str = "Systran__faster-whisper-base";

/// The files of a model with weights of about this size.
fn files_of(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = WhisperCraft::default().files();
    for (name, contents) in &mut files {
        if *name == "model.bin" {
            contents.extend((0..size).map(|i| (i * 31 + i / 251) as u8));
        }
    }
    files
}

/// Offers a model as the hub does: weights in large-file storage, beside much that nobody wants.
fn offer(origin: &FakeOrigin, size: usize, change: impl FnOnce(HubRepo) -> HubRepo) -> String {
    let mut repo = HubRepo::new()
        .plain("README.md", &b"hello"[..])
        .plain(".gitattributes", &b"x"[..])
        .plain("deep/config.json", &b"{}"[..])
        .lfs("model.safetensors", vec![1; 1000]);
    let mut hex = String::new();
    for (name, contents) in files_of(size) {
        if name == "model.bin" {
            hex = ollama_store::Digest::of(&contents).hex();
            repo = repo.lfs(name, contents);
        } else {
            repo = repo.plain(name, contents);
        }
    }
    origin.add_hub_repo(REPO, change(repo));
    hex
}

fn whisper(name: &str) -> Source {
    Source::whisper(name).unwrap_or_else(|| panic!("{name}"))
}

impl Home {
    fn speech(&self) -> PathBuf {
        self.models().join("whisper")
    }
}

fn assert_whole(home: &Home, size: usize) {
    let found = files(&home.speech());
    let mut wanted: Vec<String> = files_of(size)
        .iter()
        .map(|(name, _)| format!("{FOLDER}/{name}"))
        .collect();
    wanted.sort();
    assert_eq!(found, wanted, "exactly the wanted files, and nothing unfinished");
    for (name, contents) in files_of(size) {
        assert!(
            std::fs::read(home.speech().join(FOLDER).join(name)).unwrap() == contents,
            "{name}"
        );
    }
}

#[tokio::test]
async fn whole_under_every_name_by_one_job() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let hex = offer(&origin, 300_000, |repo| repo);
    origin.fault(&hex, OriginFault::Stall { after: 100_000 });
    let (downloads, _) = home
        .downloads(&origin, |settings| settings.tuning.stall = Duration::from_millis(200))
        .await;
    let hub = |repo: &str| Source::Hub {
        repo: repo.to_owned(),
        file_or_quant: None,
    };
    let job = downloads.start_job(whisper("base")).await.unwrap();
    let view = reaches(&job, "the files are known", |view| !view.files.is_empty()).await;
    assert_eq!(view.name, REPO);
    assert!(
        !home.speech().join(FOLDER).exists(),
        "nothing is visible before all is there"
    );
    for same in [
        whisper("openai/whisper-base"),
        whisper(REPO),
        hub("systran/FASTER-whisper-base"),
        hub("base"),
        ollama("whisper-base"),
        ollama("hf.co/Systran/faster-whisper-base:latest"),
    ] {
        assert_eq!(
            downloads.start_job(same.clone()).await.unwrap().id(),
            job.id(),
            "{same:?}"
        );
    }
    origin.clear_faults();
    let view = ends(&job).await.unwrap();
    assert_eq!(
        (view.state, view.model.as_deref()),
        (JobState::Completed, Some("whisper-base"))
    );
    assert!(view.verified, "hashes of all files are published and were compared");
    assert_eq!(view.bytes_total, Some(view.bytes_done));
    assert_whole(&home, 300_000);
    assert!(origin.requests_to("GET", "safetensors").is_empty() && origin.leaks().is_empty());

    let again = downloads.start_job(whisper("whisper-base")).await.unwrap();
    ends(&again).await.unwrap();
    assert!(again.was_present() && again.id() != job.id());
}

#[tokio::test]
async fn stopped_and_gone_on_with_after_a_restart() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let hex = offer(&origin, 400_000, |repo| repo);
    origin.fault(
        &hex,
        OriginFault::Slow {
            bytes_per_second: 200_000,
        },
    );
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let job = downloads.start_job(whisper("base")).await.unwrap();
    reaches(&job, "half", |view| view.bytes_done > 600_000).await;
    downloads.shutdown().await;
    assert!(!home.speech().join(FOLDER).exists());
    origin.clear_faults();
    origin.clear_requests();
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let job = downloads.jobs().pop().unwrap();
    let view = ends(&job).await.unwrap();
    assert!(view.state == JobState::Completed && view.verified);
    assert_whole(&home, 400_000);
    let again = |name: &str| origin.requests_to("GET", name).len();
    assert_eq!(again("vocabulary.json"), 0, "what was complete is not fetched again");
}

#[tokio::test]
async fn other_bytes_than_published_are_refused() {
    for small in [false, true] {
        let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
        let hex = offer(&origin, 50_000, |repo| repo);
        let path = if small { "main/tokenizer.json" } else { hex.as_str() };
        origin.fault(path, OriginFault::FlipByte { at: 3 });
        let (downloads, _) = home.downloads(&origin, |_| {}).await;
        let job = downloads.start_job(whisper("base")).await.unwrap();
        let error = ends(&job).await.unwrap_err();
        assert!(matches!(error, DownloadError::Digest { .. }), "{error:?}");
        assert!(!home.speech().join(FOLDER).exists());
        origin.clear_faults();
        assert!(downloads.resume(&job.id()).await.unwrap());
        assert!(ends(&job).await.unwrap().verified);
        assert_whole(&home, 50_000);
    }
}

#[tokio::test]
async fn a_cancel_leaves_nothing_and_takes_nothing_that_was_there() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let hex = offer(&origin, 50_000, |repo| repo);
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    ends(&downloads.start_job(whisper("base")).await.unwrap())
        .await
        .unwrap();
    assert_whole(&home, 50_000);
    // A newer version, which breaks off.
    offer(&origin, 300_000, |repo| repo);
    let newer = ollama_store::Digest::of(&files_of(300_000)[2].1).hex();
    assert_ne!(hex, newer);
    origin.fault(
        &newer,
        OriginFault::Slow {
            bytes_per_second: 100_000,
        },
    );
    let job = downloads.start_job(whisper("base")).await.unwrap();
    reaches(&job, "the weights begin", |view| {
        view.files
            .iter()
            .any(|file| file.name == "model.bin" && file.done > 10_000)
    })
    .await;
    assert!(downloads.cancel(&job.id()).await.unwrap());
    assert_whole(&home, 50_000);
    // And once more, to the end: the new one takes the place of the old.
    origin.clear_faults();
    ends(&downloads.start_job(whisper("base")).await.unwrap())
        .await
        .unwrap();
    assert_whole(&home, 300_000);
}

#[tokio::test]
async fn what_cannot_be_had_is_said() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let failure = async |source: Source| {
        let job = downloads.start_job(source).await.unwrap();
        ends(&job).await.unwrap_err()
    };
    let repo = |repo: &str| Source::Whisper { repo: repo.to_owned() };
    offer(&origin, 10, |repo| repo.gated("hf_good"));
    let error = failure(whisper("base")).await;
    assert!(
        matches!(&error, DownloadError::Unauthorized(text) if text.contains("is gated: accept its licence at")),
        "{error:?}"
    );
    let error = failure(whisper("tiny")).await;
    assert!(
        matches!(&error, DownloadError::NotFound(text) if text.contains("faster-whisper-tiny")),
        "{error:?}"
    );
    origin.add_hub_repo(
        "o/chat",
        HubRepo::new().plain("config.json", &b"{}"[..]).lfs("x.gguf", &b"x"[..]),
    );
    assert_eq!(
        failure(repo("o/chat")).await,
        DownloadError::Unsupported(
            "o/chat is not a speech model in CTranslate2's form: it has no model.bin, tokenizer.json, vocabulary.json"
                .into()
        )
    );
    for name in ["..", "o/..", "../x/y", "o/nul", "https://elsewhere.example/o/x", ""] {
        let error = failure(repo(name)).await;
        assert!(matches!(error, DownloadError::InvalidName(_)), "{name}: {error:?}");
    }
    assert_eq!(files(&home.speech()), [""; 0]);
    // Nobody there.
    let url = "http://127.0.0.1:9";
    let (downloads, _) = home
        .downloads(&origin, |settings| settings.huggingface_base_url = url.to_owned())
        .await;
    let job = downloads.start_job(whisper("small")).await.unwrap();
    let error = ends(&job).await.unwrap_err();
    assert!(
        matches!(&error, DownloadError::Network(text) if text.contains("cannot be reached")),
        "{error:?}"
    );
}

#[tokio::test]
async fn any_converted_repository_by_the_hubs_name() {
    let (origin, home) = (FakeOrigin::start().await.unwrap(), Home::new());
    for name in ["me/own-ct2", "me/own-too"] {
        let repo = files_of(10)
            .into_iter()
            .fold(HubRepo::new(), |repo, (name, contents)| repo.lfs(name, contents));
        origin.add_hub_repo(name, repo);
    }
    let (downloads, _) = home.downloads(&origin, |_| {}).await;
    let hub = Source::Hub {
        repo: "me/own-ct2".to_owned(),
        file_or_quant: None,
    };
    let view = ends(&downloads.start_job(hub).await.unwrap()).await.unwrap();
    assert_eq!(view.model.as_deref(), Some("me/own-ct2"));
    ends(&downloads.start_job(ollama("hf.co/me/own-too")).await.unwrap())
        .await
        .unwrap();
    for folder in ["me__own-ct2", "me__own-too"] {
        assert!(home.speech().join(folder).join("model.bin").is_file(), "{folder}");
    }
}
