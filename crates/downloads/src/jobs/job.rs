use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use domain::{JobId, JobState, JobView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kept::Kept;
use super::queue;
use crate::{DownloadError, Source};

/// A download. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Job {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    id: JobId,
    target: String,
    view: watch::Sender<JobView>,
    live: Mutex<Live>,
    waiters: AtomicUsize,
    /// Held by whoever changes whether it runs, so that each change sees the end of the one before.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) downloads: Weak<queue::Inner>,
}

/// What changes and is not shown.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) kept: Kept,
    /// Set while it runs.
    pub(super) run: Option<Run>,
    /// Why it failed or paused by itself, in full; of an earlier life only the text is known.
    pub(super) failure: Option<DownloadError>,
    /// Everything was there before it began.
    pub(super) was_present: bool,
}

/// A running job's strings.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Ends the work.
    pub(super) stop: CancellationToken,
    /// Cancelled when the work has ended and the state says so.
    pub(super) ended: CancellationToken,
    /// What shall become of it.
    pub(super) why: Option<Why>,
}

/// Why a running job was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Pause,
    Cancel,
    Shutdown,
}

/// Somebody waits for a job. When the last one of a job that nobody else asked for leaves, the job pauses and keeps what
/// is there (Ollama contract 3.7).
#[derive(Debug)]
#[must_use = "dropping it says that nobody waits any more"]
pub struct Interest {
    job: Job,
}

impl Deref for Interest {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        if self.job.inner.waiters.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(downloads) = self.job.inner.downloads.upgrade()
        {
            downloads.deserted(&self.job);
        }
    }
}

impl Job {
    pub(super) fn new(target: String, kept: Kept, view: JobView, downloads: Weak<queue::Inner>) -> Self {
        let live = Live {
            kept,
            failure: view.error.clone().map(DownloadError::Origin),
            ..Live::default()
        };
        Self {
            inner: Arc::new(Inner {
                id: view.id.clone(),
                target,
                view: watch::Sender::new(view),
                live: Mutex::new(live),
                waiters: AtomicUsize::new(0),
                turn: tokio::sync::Mutex::default(),
                downloads,
            }),
        }
    }

    /// Its id.
    pub fn id(&self) -> JobId {
        self.inner.id.clone()
    }

    /// How it stands now.
    pub fn view(&self) -> JobView {
        self.inner.view.borrow().clone()
    }

    /// Where it stands now.
    pub fn state(&self) -> JobState {
        self.inner.view.borrow().state
    }

    /// Follows it; about ten changes per second at most.
    pub fn watch(&self) -> watch::Receiver<JobView> {
        self.inner.view.subscribe()
    }

    /// What it fetches.
    pub fn source(&self) -> Option<Source> {
        self.live().kept.source.clone()
    }

    /// Everything was there already; nothing was fetched.
    pub fn was_present(&self) -> bool {
        self.live().was_present
    }

    /// Waits until it is known what there is to fetch (`files`, `bytes_total` where published), or until it ended. A model
    /// that was there already ends at once as completed.
    ///
    /// # Errors
    /// It failed or was stopped before that.
    pub async fn planned(&self) -> Result<JobView, DownloadError> {
        self.until(|view| !view.files.is_empty() && !self.was_present()).await
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It failed, was paused (also by a full disk) or cancelled, or the program ends.
    pub async fn wait(&self) -> Result<JobView, DownloadError> {
        self.until(|_| false).await
    }

    async fn until(&self, reached: impl Fn(&JobView) -> bool) -> Result<JobView, DownloadError> {
        let mut view = self.watch();
        loop {
            let now = view.borrow_and_update().clone();
            let failure = || self.live().failure.clone();
            match now.state {
                JobState::Completed => return Ok(now),
                JobState::Cancelled => return Err(DownloadError::Cancelled),
                JobState::Failed => {
                    let unknown = || DownloadError::Origin(now.error.clone().unwrap_or_default());
                    return Err(failure().unwrap_or_else(unknown));
                }
                JobState::Paused => return Err(failure().unwrap_or(DownloadError::Paused)),
                JobState::Queued | JobState::Resolving | JobState::Downloading | JobState::Verifying => {}
            }
            if reached(&now) {
                return Ok(now);
            }
            // The sender lives as long as this handle.
            if view.changed().await.is_err() {
                return Err(DownloadError::ShuttingDown);
            }
        }
    }

    /// Says that the caller waits too.
    pub fn interest(&self) -> Interest {
        self.inner.waiters.fetch_add(1, Ordering::AcqRel);
        Interest { job: self.clone() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.inner.waiters.load(Ordering::Acquire) > 0 || self.live().kept.held
    }

    pub(super) fn target(&self) -> &str {
        &self.inner.target
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kept(&self) -> Kept {
        self.live().kept.clone()
    }

    pub(super) fn is_running(&self) -> bool {
        self.live().run.is_some()
    }

    /// Changes what is shown; nobody is woken when nothing changed.
    pub(super) fn change(&self, change: impl FnOnce(&mut JobView)) -> bool {
        self.inner.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        })
    }

    /// Tells a running job to stop and waits until it has. False when it was not running.
    pub(super) async fn stop(&self, why: Why) -> bool {
        let run = {
            let mut live = self.live();
            let Some(run) = &mut live.run else { return false };
            // A cancel outranks a pause that is under way.
            run.why = Some(run.why.map_or(why, |old| if old == Why::Cancel { old } else { why }));
            run.stop.cancel();
            run.clone()
        };
        run.ended.cancelled().await;
        true
    }
}
