//! Jobs from outside: one per target, exact pauses and cancels, restarts, a killed process (promise D6).
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code may panic"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::{EventKind, JobId, JobState, JobView};
use downloads::{DownloadDeps, DownloadError, DownloadSettings, Downloads, Job, Landed, Source, Tuning};
use ollama_store::Access;
use store::Store;
use telemetry::EventBus;
use testkit::{FakeOrigin, HubRepo, OriginFault, OriginLayer};

mod ends;
mod killed;
mod life;
mod speech;

const LIMIT: Duration = Duration::from_secs(30);

/// What survives a restart.
struct Home {
    dir: tempfile::TempDir,
    database: Store,
    free: Arc<AtomicU64>,
    looked: Arc<AtomicUsize>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            database: Store::open(&dir.path().join("store.db")).unwrap(),
            dir,
            free: Arc::new(AtomicU64::new(1 << 40)),
            looked: Arc::default(),
        }
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    async fn downloads(
        &self,
        origin: &FakeOrigin,
        change: impl FnOnce(&mut DownloadSettings),
    ) -> (Downloads, EventBus) {
        let looked = Arc::clone(&self.looked);
        let landed: Landed = Arc::new(move |view, files| {
            // The files are there, and nobody has been told yet.
            assert!(view.state != JobState::Completed && files.iter().all(|file| file.exists()));
            looked.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        });
        self.downloads_with(origin, change, landed).await
    }

    async fn downloads_with(
        &self,
        origin: &FakeOrigin,
        change: impl FnOnce(&mut DownloadSettings),
        landed: Landed,
    ) -> (Downloads, EventBus) {
        let mut settings = settings(self.dir.path(), &origin.url());
        change(&mut settings);
        let free = Arc::clone(&self.free);
        let bus = EventBus::new();
        let deps = DownloadDeps {
            store: self.database.clone(),
            ollama_store: ollama_store::Store::open(self.dir.path().join("ollama"), Access::Write).unwrap(),
            bus: bus.clone(),
            disk_free: Arc::new(move |_| Some(free.load(Ordering::Relaxed))),
            landed,
        };
        (Downloads::start(settings, deps).await, bus)
    }
}

fn settings(home: &Path, origin: &str) -> DownloadSettings {
    DownloadSettings {
        tuning: Tuning {
            part_size: 64 << 10,
            parts_at_once: 2,
            retries: 3,
            back_off: Duration::from_millis(1),
            back_off_max: Duration::from_millis(10),
            stall: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            disk_reserve: 0,
            save_every: Duration::from_millis(20),
        },
        ..DownloadSettings::below(home).asking(origin)
    }
}

/// A sound model file of about this many bytes, different for each seed.
fn model(bytes: u64, seed: &str) -> Vec<u8> {
    let mut file = gguf::craft::Craft::new()
        .text("general.architecture", "llama")
        .text("general.name", seed)
        .tensor("w", &[bytes / 4], 0)
        .build();
    let length = file.len();
    for (i, byte) in file.iter_mut().enumerate().skip(length - bytes as usize) {
        *byte = (i * 31 + i / 251) as u8 ^ seed.len() as u8;
    }
    file
}

fn url(url: &str) -> Source {
    Source::Url {
        url: url.to_owned(),
        file_name: None,
    }
}

fn ollama(name: &str) -> Source {
    Source::Ollama {
        name: name.to_owned(),
        insecure: true,
    }
}

async fn reaches(job: &Job, what: &str, reached: impl Fn(&JobView) -> bool) -> JobView {
    let mut view = job.watch();
    let found = tokio::time::timeout(LIMIT, view.wait_for(|view| reached(view))).await;
    found
        .unwrap_or_else(|_| panic!("{what}: {:?}", job.view()))
        .unwrap()
        .clone()
}

async fn ends(job: &Job) -> Result<JobView, DownloadError> {
    tokio::time::timeout(LIMIT, job.wait()).await.expect("it ends")
}

/// Every file below a folder, with its path from there.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
