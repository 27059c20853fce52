use std::path::PathBuf;

use http::HeaderMap;
use ollama_store::Digest;
use tempfile::TempDir;
use testkit::{FakeOrigin, OriginFault};

use super::*;
use crate::DownloadSettings;

mod disk;
mod flow;
mod odd;
mod resume;

/// Not a divisor of anything below.
const LENGTH: usize = 10_007;

/// Bytes that differ at every place, so that a shifted piece shows.
fn content(seed: u8) -> Vec<u8> {
    (0..LENGTH).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

pub(crate) fn quick() -> Tuning {
    Tuning {
        part_size: 1000,
        parts_at_once: 3,
        retries: 4,
        back_off: Duration::from_millis(1),
        back_off_max: Duration::from_millis(5),
        stall: Duration::from_secs(2),
        connect: Duration::from_secs(5),
        disk_reserve: 0,
        save_every: Duration::from_millis(5),
    }
}

pub(crate) fn settings(tuning: Tuning) -> DownloadSettings {
    DownloadSettings {
        allow_private_hosts: true,
        tuning,
        ..DownloadSettings::below(Path::new("/nowhere"))
    }
}

struct Case {
    origin: FakeOrigin,
    dir: TempDir,
    cx: Context,
    bytes: Vec<u8>,
    file: PlannedFile,
}

impl Case {
    /// A file at the origin, its size and hash published.
    async fn new(tuning: Tuning) -> Self {
        let origin = FakeOrigin::start().await.unwrap();
        let bytes = content(0);
        let url = origin.add_file("/model.bin", bytes.clone()).parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = PlannedFile {
            url,
            headers: HeaderMap::new(),
            sha256: Some(Digest::of(&bytes)),
            git_sha1: None,
            size: Some(LENGTH as u64),
            path: dir.path().join("org/repo/model.bin"),
            label: "model.bin".into(),
        };
        let cx = Context {
            http: Http::new(&settings(tuning.clone())),
            tuning,
            throttle: Arc::new(Throttle::new(None)),
            disk_free: Arc::new(|_| None),
        };
        Self {
            origin,
            dir,
            cx,
            bytes,
            file,
        }
    }

    /// Neither hash nor size published.
    async fn unpublished(tuning: Tuning) -> Self {
        let mut case = Self::new(tuning).await;
        (case.file.sha256, case.file.size) = (None, None);
        case
    }

    async fn fetch(&self) -> Result<Fetched, DownloadError> {
        self.fetch_until(&CancellationToken::new()).await
    }

    async fn fetch_until(&self, stop: &CancellationToken) -> Result<Fetched, DownloadError> {
        let progress = Progress::new(self.file.size);
        let limit = Duration::from_mins(1);
        tokio::time::timeout(limit, fetch(&self.cx, self.dir.path(), &self.file, &progress, stop))
            .await
            .expect("it ends")
    }

    /// The file is there, and it is the right one, and nothing unfinished is left beside it.
    fn assert_whole(&self, what: &str) {
        assert!(
            std::fs::read(&self.file.path).unwrap() == self.bytes,
            "{what}: other bytes"
        );
        assert_eq!(self.names(), ["model.bin"], "{what}");
    }

    fn assert_invisible(&self, what: &str) {
        assert!(!self.file.path.exists(), "{what}: visible");
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.file.path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.origin.requests();
        requests.iter().map(|r| r.range().map(str::to_owned)).collect()
    }
}

/// Every hundredth and the edges.
fn cuts() -> Vec<u64> {
    let n = LENGTH as u64;
    let mut cuts: Vec<u64> = (0..100).map(|percent| n * percent / 100).collect();
    cuts.extend([1, n - 1, n]);
    cuts
}

fn whole_at_once() -> Tuning {
    Tuning {
        part_size: 1 << 20,
        ..quick()
    }
}
