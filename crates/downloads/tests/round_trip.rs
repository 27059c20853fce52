//! Pulls and pushes from end to end, against the fake origin.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::JobState;
use downloads::push::{PushStep, push};
use downloads::{DownloadDeps, DownloadError, DownloadSettings, Downloads, Source, Tuning};
use ollama_store::{Access, Digest, Manifest, Name, Store, media};
use testkit::{FakeOrigin, HubRepo, OriginFault, OriginLayer};

/// A computer that downloads.
struct Computer {
    downloads: Downloads,
    store: Store,
    home: tempfile::TempDir,
}

impl Computer {
    async fn new(fake: &FakeOrigin) -> Self {
        Self::with_token(fake, None).await
    }

    async fn with_token(fake: &FakeOrigin, hub_token: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let settings = DownloadSettings {
            hub_token: hub_token.map(str::to_owned),
            tuning: Tuning {
                part_size: 64 << 10,
                back_off: Duration::from_millis(1),
                back_off_max: Duration::from_millis(5),
                disk_reserve: 0,
                ..Tuning::default()
            },
            ..DownloadSettings::below(home.path()).asking(&fake.url())
        };
        let store = Store::open(home.path().join("ollama"), Access::Write).unwrap();
        let deps = DownloadDeps {
            store: store::Store::in_memory().unwrap(),
            ollama_store: store.clone(),
            bus: telemetry::EventBus::new(),
            disk_free: Arc::new(|_: &Path| None),
            landed: Arc::new(|_, _: Vec<PathBuf>| Box::pin(std::future::ready(()))),
        };
        Self {
            downloads: Downloads::start(settings, deps).await,
            store,
            home,
        }
    }

    async fn pull(&self, name: &str, insecure: bool) -> Result<(), DownloadError> {
        let name = name.to_owned();
        let job = self.downloads.start_job(Source::Ollama { name, insecure }).await?;
        let view = job.wait().await?;
        assert_eq!(view.state, JobState::Completed, "{view:?}");
        Ok(())
    }

    async fn push(&self, name: &str, insecure: bool) -> Result<Vec<PushStep>, DownloadError> {
        let mut steps = Vec::new();
        let origin = self.downloads.origin();
        push(&origin, &self.store, name, insecure, |step| steps.push(step)).await?;
        Ok(steps)
    }

    fn manifest(&self, name: &str) -> Vec<u8> {
        self.store.read_bytes(&Name::parse(name).unwrap()).unwrap().1
    }
}

/// Longer than one chunk of a push, and no two parts alike.
fn weights() -> Vec<u8> {
    (0..9_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn layers() -> [OriginLayer; 3] {
    [
        OriginLayer::model(weights()),
        OriginLayer::new("template", &b"{{ .Prompt }}"[..]),
        OriginLayer::new("params", &br#"{"stop":["x"]}"#[..]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_pushed_and_pulled_again_is_equal() {
    let (library, mine) = (FakeOrigin::start().await.unwrap(), FakeOrigin::start().await.unwrap());
    let model = library.add_ollama_model("big", &layers());
    let first = Computer::new(&library).await;
    first.pull("big", false).await.unwrap();
    assert_eq!(first.manifest("big"), model.manifest);
    assert!(library.leaks().is_empty());

    let there = format!("{}/me/big:v1", mine.host());
    first
        .store
        .copy(&Name::parse("big").unwrap(), &Name::parse(&there).unwrap())
        .unwrap();
    mine.require_token("t0", None);
    let steps = first.push(&there, true).await.unwrap();
    assert_eq!(steps.first(), Some(&PushStep::RetrievingManifest));
    assert_eq!(steps.last(), Some(&PushStep::PushingManifest));
    let total = weights().len() as u64;
    let of_weights: Vec<u64> = steps
        .iter()
        .filter_map(|step| match step {
            PushStep::Pushing { digest, completed, .. } if *digest == model.layers[0] => Some(*completed),
            _ => None,
        })
        .collect();
    assert_eq!(of_weights, [0, 8 << 20, total]);
    assert_eq!(mine.manifest("me/big:v1").unwrap(), model.manifest);
    let requests = mine.requests();
    assert_eq!(
        requests.last().map(|last| last.path.as_str()),
        Some("/v2/me/big/manifests/v1")
    );

    let second = Computer::new(&library).await;
    second.pull(&there, true).await.unwrap();
    assert_eq!(second.manifest(&there), model.manifest);
    for digest in model.layers.iter().chain([&model.config]) {
        let digest: Digest = digest.parse().unwrap();
        let bytes = |store: &Store| std::fs::read(store.blob_path(&digest)).unwrap();
        assert!(bytes(&first.store) == bytes(&second.store) && Digest::of(&bytes(&second.store)) == digest);
    }
    assert!(mine.leaks().is_empty());

    // What is there is not sent again.
    mine.clear_requests();
    let again = first.push(&there, true).await.unwrap();
    assert!(mine.requests_to("PATCH", "").is_empty() && mine.requests_to("POST", "").is_empty());
    assert_eq!(again.len(), 2 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_fail_say_why() {
    let fake = FakeOrigin::start().await.unwrap();
    fake.add_ollama_model("small", &layers()[1..]);
    let computer = Computer::new(&fake).await;
    computer.pull("small", false).await.unwrap();
    let there = format!("{}/me/small", fake.host());
    let missing = computer.push(&there, true).await.unwrap_err();
    assert_eq!(
        missing,
        DownloadError::NotFound(format!("model '{there}:latest' not found"))
    );
    computer
        .store
        .copy(&Name::parse("small").unwrap(), &Name::parse(&there).unwrap())
        .unwrap();
    assert_eq!(
        computer.push("http://x/y/z", false).await.unwrap_err().to_string(),
        "insecure protocol http"
    );
    let refuse = |path: &str, status, body: &str| {
        let (retry_after, body) = (None, body.to_owned());
        fake.clear_faults();
        fake.fault(
            path,
            OriginFault::Status {
                status,
                retry_after,
                body,
            },
        );
    };
    refuse("/blobs/uploads/", 403, "not your namespace");
    // The layers are known to this registry already under another name: only what it lacks is uploaded.
    computer.push(&there, true).await.unwrap();
    let other = FakeOrigin::start().await.unwrap();
    let there = format!("{}/me/small", other.host());
    computer
        .store
        .copy(&Name::parse("small").unwrap(), &Name::parse(&there).unwrap())
        .unwrap();
    other.fault(
        "/blobs/uploads/",
        OriginFault::Status {
            status: 403,
            retry_after: None,
            body: "not your namespace".into(),
        },
    );
    assert_eq!(
        computer.push(&there, true).await.unwrap_err(),
        DownloadError::Unauthorized("403: not your namespace".into())
    );
    assert_eq!(other.manifest("me/small"), None);
    other.clear_faults();
    // A connection that breaks in the middle begins this blob anew.
    other.fault_times("/blobs/uploads/upload-1", 1, OriginFault::Drop);
    computer.push(&there, true).await.unwrap();
    assert_eq!(other.manifest("me/small").unwrap(), computer.manifest("small"));
    let realm = "https://elsewhere.example/token".to_owned();
    other.fault("/blobs/", OriginFault::Unauthorized { realm });
    let refused = computer.push(&there, true).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("realm host \"elsewhere.example\" does not match"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_gated_repository_lands_in_the_store() {
    let fake = FakeOrigin::start().await.unwrap();
    let part = |n: u32| {
        let craft = gguf::craft::Craft::model("tiny")
            .uint("split.no", n)
            .uint("split.count", 2);
        craft.build()
    };
    let repo = HubRepo::new()
        .lfs("Q8_0/tiny-Q8_0-00001-of-00002.gguf", part(0))
        .lfs("Q8_0/tiny-Q8_0-00002-of-00002.gguf", part(1))
        .lfs("mmproj-F16.gguf", gguf::craft::Craft::projector(4).build())
        .plain("params", &br#"{"temperature":0}"#[..]);
    fake.add_hub_repo("o/tiny", repo.gated("hf_good"));
    let refused = Computer::new(&fake)
        .await
        .pull("hf.co/o/tiny", false)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("accept its licence"), "{refused}");
    let computer = Computer::with_token(&fake, Some("hf_good")).await;
    computer.pull("hf.co/o/tiny", false).await.unwrap();
    assert!(fake.leaks().is_empty());
    assert!(
        fake.requests()
            .iter()
            .any(|request| request.host == testkit::OriginHost::Cdn)
    );
    let stored = computer.store.read(&Name::parse("hf.co/o/tiny").unwrap()).unwrap();
    assert_eq!(stored.name.to_string(), "hf.co/o/tiny:latest");
    let kinds: Vec<&str> = stored
        .manifest
        .layers
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    assert_eq!(kinds, [media::MODEL, media::MODEL, media::PROJECTOR, media::PARAMS]);
    let paths = computer.store.model_paths(&stored.manifest);
    let read: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(read, [part(0), part(1)]);
    let config = computer.store.read_text(&stored.manifest.config).unwrap();
    assert!(
        config.contains(r#""model_format":"gguf","model_family":"llama""#),
        "{config}"
    );
    // Once more: nothing is fetched.
    fake.clear_requests();
    computer.pull("hf.co/o/tiny", false).await.unwrap();
    assert!(fake.requests_to("GET", "/resolve/main/Q8_0").is_empty());
    assert_eq!(computer.store.list().models.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_replaces_and_removes_what_nobody_uses() {
    let fake = FakeOrigin::start().await.unwrap();
    let old = fake.add_ollama_model("small", &[OriginLayer::model(&b"old weights"[..])]);
    let computer = Computer::new(&fake).await;
    computer.pull("small", false).await.unwrap();
    let new = fake.add_ollama_model("small", &[OriginLayer::model(&b"new weights"[..])]);
    computer.pull("small", false).await.unwrap();
    assert_eq!(computer.manifest("small"), new.manifest);
    let has = |digest: &str| computer.store.has_blob(&digest.parse().unwrap());
    assert!(has(&new.layers[0]) && !has(&old.layers[0]));
    assert_eq!(Manifest::parse(&computer.manifest("small")).unwrap().layers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_hub_and_of_addresses() {
    let fake = FakeOrigin::start().await.unwrap();
    let model = gguf::craft::Craft::model("tiny").build();
    fake.add_hub_repo("o/tiny", HubRepo::new().lfs("tiny-Q4_K_M.gguf", model.clone()));
    let url = fake.add_redirected_file("/files/tiny.gguf", model.clone());
    let computer = Computer::new(&fake).await;
    let hub = Source::Hub {
        repo: "o/tiny".into(),
        file_or_quant: None,
    };
    for (source, path, verified) in [
        (hub, "models/o/tiny/tiny-Q4_K_M.gguf", true),
        (
            Source::Url { url, file_name: None },
            "models/127.0.0.1/tiny/tiny.gguf",
            false,
        ),
    ] {
        let view = computer
            .downloads
            .start_job(source.clone())
            .await
            .unwrap()
            .wait()
            .await
            .unwrap();
        assert_eq!(std::fs::read(computer.home.path().join(path)).unwrap(), model, "{path}");
        assert_eq!(view.verified, verified, "{path}");
        assert_eq!(view.model.as_deref(), path.strip_prefix("models/"));
        // Once more: it is known at once that it is there.
        let again = computer.downloads.start_job(source).await.unwrap();
        assert_eq!(again.planned().await.unwrap().state, JobState::Completed);
        assert!(again.was_present());
    }
    assert!(fake.leaks().is_empty());
}
