use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::{JobId, JobView};
use futures_util::future::BoxFuture;
use store::Store;
use telemetry::EventBus;

use crate::{DownloadError, DownloadSettings, Job, Source};

/// Called when a job's files are in place, before it counts as completed: the library looks at its folders, so that
/// whoever hears of the completion finds the model.
pub type Landed = Arc<dyn Fn(JobView, Vec<PathBuf>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What downloads work with.
#[derive(Clone)]
pub struct DownloadDeps {
    /// Where jobs are kept.
    pub store: Store,
    /// Where progress is told.
    pub bus: EventBus,
    /// Free bytes on the disk that holds a path; `None` when unknown.
    pub disk_free: Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>,
    /// See [`Landed`].
    pub landed: Landed,
}

/// All downloads. Clones are the same.
#[derive(Clone)]
pub struct Downloads {
    deps: Arc<DownloadDeps>,
}

impl Downloads {
    /// Brings back the jobs of an earlier life and goes on with those that were interrupted, if the settings say so.
    pub async fn start(settings: DownloadSettings, deps: DownloadDeps) -> Result<Self, DownloadError> {
        let _ = settings;
        std::future::ready(Ok(Self { deps: Arc::new(deps) })).await
    }

    /// Asks for something to be fetched that somebody waits for: hold [`Job::interest`] of it. An unfinished job of the same
    /// target is joined (a paused one goes on); otherwise a new one starts.
    pub async fn pull(&self, source: Source) -> Result<Job, DownloadError> {
        let _ = (&self.deps, source);
        std::future::ready(Err(DownloadError::Unsupported("not offered yet".into()))).await
    }

    /// As [`Downloads::pull`], for callers that do not wait: the job goes on whoever leaves.
    pub async fn start_job(&self, source: Source) -> Result<Job, DownloadError> {
        self.pull(source).await
    }

    /// All known jobs, oldest first.
    pub fn jobs(&self) -> Vec<Job> {
        Vec::new()
    }

    /// The job with this id.
    pub fn job(&self, id: &JobId) -> Option<Job> {
        let _ = id;
        None
    }

    /// Stops a job for now; what is there is kept. `Ok(false)`: it was paused already or is at its end.
    pub async fn pause(&self, id: &JobId) -> Result<bool, DownloadError> {
        let _ = id;
        std::future::ready(Ok(false)).await
    }

    /// Goes on with a paused or failed job. `Ok(false)`: it was not paused.
    pub async fn resume(&self, id: &JobId) -> Result<bool, DownloadError> {
        let _ = id;
        std::future::ready(Ok(false)).await
    }

    /// Stops a job for good and removes what was there of its unfinished files. `Ok(false)`: it was at its end already.
    pub async fn cancel(&self, id: &JobId) -> Result<bool, DownloadError> {
        let _ = id;
        std::future::ready(Ok(false)).await
    }

    /// Puts changed settings in effect; running transfers keep what they began with, except for the two limits.
    pub fn apply(&self, settings: DownloadSettings) {
        let _ = settings;
    }

    /// Stops everything; unfinished jobs are unfinished jobs at the next start.
    pub async fn shutdown(&self) {
        std::future::ready(()).await;
    }
}
