use std::sync::Arc;
use std::time::Duration;

use downloads::http::Http;
use downloads::sources::resolve;
use downloads::{DownloadError, DownloadSettings, Origin, Plan, Source, Tuning};
use ollama_store::{Access, Store};
use testkit::FakeOrigin;

/// A fake origin and what asks it.
pub(crate) struct Rig {
    pub(crate) fake: FakeOrigin,
    pub(crate) origin: Origin,
    _home: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut DownloadSettings)) -> Self {
        let fake = FakeOrigin::start().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut settings = DownloadSettings {
            tuning: Tuning {
                back_off: Duration::from_millis(1),
                back_off_max: Duration::from_millis(5),
                ..Tuning::default()
            },
            ..DownloadSettings::below(home.path()).asking(&fake.url())
        };
        change(&mut settings);
        let origin = Origin {
            http: Http::new(&settings),
            ollama_store: Store::open(home.path().join("ollama"), Access::Write).unwrap(),
            settings: Arc::new(settings),
        };
        Self {
            fake,
            origin,
            _home: home,
        }
    }

    pub(crate) async fn ollama(&self, name: &str) -> Result<Plan, DownloadError> {
        self.ollama_with(name, false).await
    }

    pub(crate) async fn ollama_with(&self, name: &str, insecure: bool) -> Result<Plan, DownloadError> {
        let name = name.to_owned();
        resolve(&Source::Ollama { name, insecure }, &self.origin).await
    }

    pub(crate) async fn hub(&self, repo: &str, what: Option<&str>) -> Result<Plan, DownloadError> {
        let source = Source::Hub {
            repo: repo.to_owned(),
            file_or_quant: what.map(str::to_owned),
        };
        resolve(&source, &self.origin).await
    }

    pub(crate) async fn url(&self, url: &str, file_name: Option<&str>) -> Result<Plan, DownloadError> {
        let source = Source::Url {
            url: url.to_owned(),
            file_name: file_name.map(str::to_owned),
        };
        resolve(&source, &self.origin).await
    }

    /// Files relative to the plan's root.
    pub(crate) fn paths(plan: &Plan) -> Vec<String> {
        let below = |path: &std::path::Path| path.strip_prefix(&plan.root).unwrap().to_string_lossy().into_owned();
        plan.files.iter().map(|file| below(&file.path)).collect()
    }
}

pub(crate) fn said<T: std::fmt::Debug>(result: Result<T, DownloadError>) -> String {
    result.unwrap_err().to_string()
}
