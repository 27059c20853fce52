use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{EventKind, JobId, JobState, JobView};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use store::Store;
use telemetry::EventBus;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::{Interest, Job, Run, Why};
use super::kept::{self, Kept};
use super::slots::{FileLocks, Slots};
use crate::http::Http;
use crate::transfer::{self, Context, DiskFree, Throttle};
use crate::{DownloadError, DownloadSettings, Origin, Source};

/// Jobs at their end that are kept for lists; older ones are forgotten.
const KEEP_ENDED: usize = 200;

/// Called when a job's files are in place, before it counts as completed: the library looks at its folders, so that
/// whoever hears of the completion finds the model.
pub type Landed = Arc<dyn Fn(JobView, Vec<PathBuf>) -> BoxFuture<'static, ()> + Send + Sync>;

/// What downloads work with.
#[derive(Clone)]
pub struct DownloadDeps {
    /// Where jobs are kept.
    pub store: Store,
    /// Our own store in Ollama's layout: the handle that the API works with, so that one hold is seen by the other.
    pub ollama_store: ollama_store::Store,
    /// Where progress is told.
    pub bus: EventBus,
    /// Free bytes on the disk that holds a path; `None` when unknown.
    pub disk_free: DiskFree,
    /// See [`Landed`].
    pub landed: Landed,
}

/// All downloads. Clones are the same.
#[derive(Clone)]
pub struct Downloads {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) deps: DownloadDeps,
    settings: Mutex<Arc<DownloadSettings>>,
    http: Mutex<Http>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) slots: Slots,
    pub(super) files: FileLocks,
    jobs: Mutex<Vec<Job>>,
    pub(super) tasks: TaskTracker,
    pub(super) ending: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloads").finish_non_exhaustive()
    }
}

impl Downloads {
    /// Brings back the jobs of an earlier life and goes on with those that were interrupted, if the settings say so. Jobs that
    /// cannot be read are left out with a warning.
    pub async fn start(settings: DownloadSettings, deps: DownloadDeps) -> Self {
        let inner = Arc::new(Inner {
            http: Mutex::new(Http::new(&settings)),
            throttle: Arc::new(Throttle::new(settings.bandwidth_limit)),
            slots: Slots::new(settings.max_parallel),
            files: FileLocks::default(),
            jobs: Mutex::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            settings: Mutex::new(Arc::new(settings)),
            deps,
        });
        inner.bring_back().await;
        Self { inner }
    }

    /// Asks for something to be fetched that the caller waits for: while nobody holds its [`Interest`], and nobody asked for
    /// it without waiting, it pauses. An unfinished job of the same target is joined (a paused one goes on); otherwise a new
    /// one starts.
    ///
    /// # Errors
    /// The program is ending.
    pub async fn pull(&self, source: Source) -> Result<Interest, DownloadError> {
        self.inner.begin(source, false).await
    }

    /// As [`Downloads::pull`], for callers that do not wait: the job goes on whoever leaves.
    ///
    /// # Errors
    /// The program is ending.
    pub async fn start_job(&self, source: Source) -> Result<Job, DownloadError> {
        let interest = self.inner.begin(source, true).await?;
        Ok(Job::clone(&interest))
    }

    /// All known jobs, oldest first.
    pub fn jobs(&self) -> Vec<Job> {
        self.inner.table().clone()
    }

    /// The job with this id.
    pub fn job(&self, id: &JobId) -> Option<Job> {
        self.inner.table().iter().find(|job| job.id() == *id).cloned()
    }

    /// Stops a job for now; what is there is kept. `Ok(false)`: it was paused already or is at its end.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn pause(&self, id: &JobId) -> Result<bool, DownloadError> {
        let job = self.known(id)?;
        let _turn = job.inner.turn.lock().await;
        Ok(job.stop(Why::Pause).await && job.state() == JobState::Paused)
    }

    /// Goes on with a paused or failed job. `Ok(false)`: it runs, or there is nothing left to do.
    ///
    /// # Errors
    /// There is no such job, or the program is ending.
    pub async fn resume(&self, id: &JobId) -> Result<bool, DownloadError> {
        let job = self.known(id)?;
        let _turn = job.inner.turn.lock().await;
        if job.is_running() || !matches!(job.state(), JobState::Paused | JobState::Failed) {
            return Ok(false);
        }
        job.live().kept.held = true;
        self.inner.run(&job, false).await?;
        Ok(true)
    }

    /// Stops a job for good and removes what was there of its unfinished files. `Ok(false)`: it was completed or cancelled
    /// already.
    ///
    /// # Errors
    /// There is no such job, or its files cannot be removed.
    pub async fn cancel(&self, id: &JobId) -> Result<bool, DownloadError> {
        let job = self.known(id)?;
        let _turn = job.inner.turn.lock().await;
        if job.stop(Why::Cancel).await {
            return Ok(job.state() == JobState::Cancelled);
        }
        if matches!(job.state(), JobState::Completed | JobState::Cancelled) {
            return Ok(false);
        }
        self.inner.remove_files(&job).await?;
        self.inner.settle(&job, JobState::Cancelled, None).await;
        Ok(true)
    }

    /// Forgets a job that is at its end, and what was there of its unfinished files. `Ok(false)`: it is not.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn forget(&self, id: &JobId) -> Result<bool, DownloadError> {
        let job = self.known(id)?;
        let _turn = job.inner.turn.lock().await;
        if !job.state().is_final() {
            return Ok(false);
        }
        self.inner.table().retain(|other| other.id() != *id);
        self.inner.forget(&job).await;
        Ok(true)
    }

    /// What origins are asked with, as the settings are now: for searches in the hub and for pushes.
    pub fn origin(&self) -> Origin {
        self.inner.origin()
    }

    /// Puts changed settings in effect; running transfers keep what they began with, except for the two limits.
    pub fn apply(&self, settings: DownloadSettings) {
        let inner = &self.inner;
        inner.throttle.set(settings.bandwidth_limit);
        inner.slots.resize(settings.max_parallel);
        *inner.http.lock().unwrap_or_else(PoisonError::into_inner) = Http::new(&settings);
        *inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Stops everything; unfinished jobs are unfinished jobs at the next start.
    pub async fn shutdown(&self) {
        self.inner.ending.cancel();
        let jobs = self.jobs();
        join_all(jobs.iter().map(|job| job.stop(Why::Shutdown))).await;
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn known(&self, id: &JobId) -> Result<Job, DownloadError> {
        self.job(id)
            .ok_or_else(|| DownloadError::NotFound(format!("There is no download '{id}'.")))
    }
}

impl Inner {
    pub(super) fn table(&self) -> MutexGuard<'_, Vec<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> Arc<DownloadSettings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            http: self.http.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ollama_store: self.deps.ollama_store.clone(),
            settings: self.settings(),
        }
    }

    pub(super) fn context(&self) -> Context {
        let origin = self.origin();
        Context {
            http: origin.http,
            tuning: origin.settings.tuning.clone(),
            throttle: Arc::clone(&self.throttle),
            disk_free: Arc::clone(&self.deps.disk_free),
        }
    }

    async fn bring_back(self: &Arc<Self>) {
        let rows = self.deps.store.jobs().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the downloads of earlier cannot be read");
            Vec::new()
        });
        let go_on = self.settings().resume_on_start;
        let mut interrupted = Vec::new();
        for row in rows {
            let kept: Kept = match serde_json::from_str(&row.source) {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::warn!(%error, id = %row.id, "a stored download cannot be read and is left out");
                    continue;
                }
            };
            let unfinished = !row.view.state.is_final() && row.view.state != JobState::Paused;
            let job = Job::new(row.target, kept, row.view, Arc::downgrade(self));
            job.change(|view| view.bytes_per_second = 0);
            if unfinished {
                if go_on && job.kept().source.is_some() {
                    // Nobody who waited for it is there any more.
                    job.live().kept.held = true;
                    interrupted.push(job.clone());
                } else {
                    self.settle(&job, JobState::Paused, None).await;
                }
            }
            self.table().push(job);
        }
        for job in interrupted {
            tracing::info!(name = job.view().name, "going on with an interrupted download");
            // Fails only while the program ends.
            let _ = self.run(&job, true).await;
        }
    }

    async fn begin(self: &Arc<Self>, source: Source, held: bool) -> Result<Interest, DownloadError> {
        let source = source.normal();
        let target = kept::target(&source);
        let (interest, fresh) = {
            let mut table = self.table();
            let unfinished = |job: &&Job| job.target() == target && !job.state().is_final();
            if let Some(job) = table.iter().find(unfinished) {
                (job.interest(), false)
            } else {
                let job = self.new_job(source, target)?;
                table.push(job.clone());
                (job.interest(), true)
            }
        };
        {
            let _turn = interest.inner.turn.lock().await;
            interest.live().kept.held |= held;
            let idle = !interest.is_running();
            if idle && (fresh || interest.state() == JobState::Paused) {
                self.run(&interest, false).await?;
            }
        }
        self.prune().await;
        Ok(interest)
    }

    fn new_job(self: &Arc<Self>, source: Source, target: String) -> Result<Job, DownloadError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| DownloadError::Io(format!("no random numbers: {error}")))?;
        // Forty bits: ten digits.
        let digits = format!("{:010x}", u64::from_le_bytes(random) >> 24);
        let quantization = match &source {
            Source::Hub { file_or_quant, .. } => file_or_quant
                .clone()
                .filter(|text| !text.to_ascii_lowercase().ends_with(".gguf")),
            Source::Ollama { .. } | Source::Whisper { .. } | Source::Voices { .. } | Source::Url { .. } => None,
        };
        let view = JobView {
            id: JobId(format!("job_{digits}")),
            kind: source.kind(),
            name: source.name().to_owned(),
            quantization,
            state: JobState::Queued,
            files: Vec::new(),
            bytes_done: 0,
            bytes_total: None,
            bytes_per_second: 0,
            error: None,
            verified: true,
            model: None,
            started_ms: telemetry::now_ms(),
            ended_ms: None,
        };
        let kept = Kept {
            source: Some(source),
            ..Kept::default()
        };
        Ok(Job::new(target, kept, view, Arc::downgrade(self)))
    }

    /// Starts the work of a job that is not running. The caller holds its turn.
    async fn run(self: &Arc<Self>, job: &Job, patient: bool) -> Result<(), DownloadError> {
        if self.ending.is_cancelled() {
            return Err(DownloadError::ShuttingDown);
        }
        let run = Run {
            stop: self.ending.child_token(),
            ended: CancellationToken::new(),
            why: None,
        };
        {
            let mut live = job.live();
            live.run = Some(run.clone());
            live.failure = None;
        }
        self.note(job, |view| {
            view.state = JobState::Queued;
            view.error = None;
            view.ended_ms = None;
        })
        .await;
        let (inner, job) = (Arc::clone(self), job.clone());
        self.tasks.spawn(async move {
            // Nobody must wait for ever, whatever happens.
            let _ended = run.ended.drop_guard();
            let work = AssertUnwindSafe(inner.work(&job, &run.stop, patient));
            if work.catch_unwind().await.is_err() {
                let error = DownloadError::Io("the download broke off for a reason inside LlamaRunner".into());
                tracing::error!(%error, name = job.view().name, "a download panicked");
                inner.settle(&job, JobState::Failed, Some(error)).await;
                job.live().run = None;
            }
        });
        Ok(())
    }

    /// The last one who waited left.
    pub(super) fn deserted(self: &Arc<Self>, job: &Job) {
        if self.ending.is_cancelled() {
            return;
        }
        let job = job.clone();
        self.tasks.spawn(async move {
            let _turn = job.inner.turn.lock().await;
            if !job.is_wanted() && job.stop(Why::Pause).await {
                tracing::info!(
                    name = job.view().name,
                    "paused a download that nobody waits for any more"
                );
            }
        });
    }

    /// Changes what is shown, keeps it and tells it.
    pub(super) async fn note(&self, job: &Job, change: impl FnOnce(&mut JobView)) {
        // In the database first: what anybody sees survives a crash.
        let mut view = job.view();
        change(&mut view);
        match kept::row(job) {
            Ok(row) => {
                let row = store::JobRow {
                    view: view.clone(),
                    ..row
                };
                if let Err(error) = self.deps.store.put_job(row).await {
                    tracing::warn!(%error, "a download's state could not be kept");
                }
            }
            Err(error) => tracing::warn!(%error, "a download's state could not be written"),
        }
        job.change(|shown| *shown = view);
        self.tell(job);
    }

    /// Brings a job that does not run to rest.
    pub(super) async fn settle(&self, job: &Job, state: JobState, failure: Option<DownloadError>) {
        let text = failure.as_ref().map(ToString::to_string);
        job.live().failure = failure;
        self.note(job, |view| {
            view.state = state;
            view.error = text;
            view.bytes_per_second = 0;
            view.ended_ms = state.is_final().then(telemetry::now_ms);
        })
        .await;
    }

    pub(super) fn tell(&self, job: &Job) {
        self.deps.bus.publish(EventKind::Download { job: job.view() });
    }

    /// Removes the partials of a job, and complete files of a set that will never be whole. Files of a registry's model may
    /// serve other models; unused ones are the store's to prune.
    pub(super) async fn remove_files(&self, job: &Job) -> Result<(), DownloadError> {
        let kept = job.kept();
        let settings = self.settings();
        let others = self.files_of_others(job);
        for path in kept.files.iter().filter(|path| !others.contains(*path)) {
            let _lock = self.files.take(path).await;
            transfer::discard(path).await?;
            let roots = [&settings.speech_dir, &settings.models_dir];
            if let Some(root) = roots.into_iter().find(|root| path.starts_with(root)) {
                let landed = kept.landed.contains(path);
                let (path, root) = (path.clone(), root.clone());
                // An empty folder left behind is no harm.
                let _ = tokio::task::spawn_blocking(move || tidy(&path, &root, landed)).await;
            }
        }
        job.live().kept.landed.clear();
        job.change(|view| {
            view.bytes_done = 0;
            view.files.iter_mut().for_each(|file| file.done = 0);
        });
        Ok(())
    }

    /// Files that belong to other jobs too: done, under way, or to be gone on with.
    fn files_of_others(&self, job: &Job) -> HashSet<PathBuf> {
        let table = self.table();
        let others = table
            .iter()
            .filter(|other| other.id() != job.id() && other.state() != JobState::Cancelled);
        others.flat_map(|other| other.kept().files).collect()
    }

    async fn prune(&self) {
        let old: Vec<Job> = {
            let mut table = self.table();
            let ended = table.iter().filter(|job| job.state().is_final()).count();
            let mut excess = ended.saturating_sub(KEEP_ENDED);
            let mut old = Vec::new();
            table.retain(|job| {
                let goes = excess > 0 && job.state().is_final();
                if goes {
                    excess -= 1;
                    old.push(job.clone());
                }
                !goes
            });
            old
        };
        for job in old {
            self.forget(&job).await;
        }
    }

    /// Forgets a job that is not in the table any more. Of one that failed, nothing will go on with the unfinished files.
    async fn forget(&self, job: &Job) {
        if job.state() == JobState::Failed {
            let others = self.files_of_others(job);
            for path in job.kept().files.iter().filter(|path| !others.contains(*path)) {
                let _lock = self.files.take(path).await;
                if let Err(error) = transfer::discard(path).await {
                    tracing::warn!(%error, "an unfinished file of a forgotten download could not be removed");
                }
            }
        }
        if let Err(error) = self.deps.store.delete_job(&job.id()).await {
            tracing::warn!(%error, "a download could not be forgotten");
        }
    }
}

/// Removes a landed file and the folders that are empty without it, up to the root.
fn tidy(path: &Path, root: &Path, landed: bool) {
    if landed {
        let _ = std::fs::remove_file(path);
    }
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}
