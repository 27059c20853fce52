//! The work of one job, from the question to the origin to the last file in its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::{JobFile, JobKind, JobState};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::job::{Job, Why};
use super::meter::Meter;
use super::queue::Inner;
use crate::transfer::{self, Context, Fetched, Progress};
use crate::{DownloadError, Plan, PlannedFile, sources};

/// How often the shown progress is brought up to date.
const LOOK: Duration = Duration::from_millis(100);
/// Shortest time between two events of one job (promise D6: at most four per second).
const TELL: Duration = Duration::from_millis(250);

/// What a finished job has to show.
struct Done {
    model: String,
    verified: bool,
}

impl Inner {
    /// Does the work and brings the job to rest.
    pub(super) async fn work(self: &Arc<Self>, job: &Job, stop: &CancellationToken, patient: bool) {
        let outcome = Box::pin(self.fetch_all(job, stop, patient)).await;
        let why = job.live().run.as_ref().and_then(|run| run.why);
        // A shutdown may reach the work before it reaches the job.
        let why = why.or_else(|| self.ending.is_cancelled().then_some(Why::Shutdown));
        match (outcome, why) {
            (Ok(done), _) => {
                self.complete(job, &done).await;
            }
            (Err(_), Some(Why::Shutdown)) => {
                // The database goes on saying that it runs, so the next start goes on with it; only those who wait hear.
                job.live().failure = Some(DownloadError::ShuttingDown);
                job.change(|view| {
                    view.state = JobState::Paused;
                    view.bytes_per_second = 0;
                });
            }
            (Err(_), Some(Why::Cancel)) => {
                if let Err(error) = self.remove_files(job).await {
                    tracing::warn!(%error, "the files of a cancelled download could not all be removed");
                }
                self.settle(job, JobState::Cancelled, None).await;
            }
            (Err(error @ DownloadError::DiskFull { .. }), _) => {
                tracing::warn!(%error, name = job.view().name, "a download pauses");
                self.settle(job, JobState::Paused, Some(error)).await;
            }
            (Err(_), Some(Why::Pause)) => self.settle(job, JobState::Paused, None).await,
            (Err(error), None) => {
                tracing::warn!(%error, name = job.view().name, "a download failed");
                self.settle(job, JobState::Failed, Some(error)).await;
            }
        }
        job.live().run = None;
    }

    async fn complete(&self, job: &Job, done: &Done) {
        let files = job.kept().files;
        let mut view = job.view();
        view.model = Some(done.model.clone());
        (self.deps.landed)(view, files).await;
        tracing::info!(name = job.view().name, "downloaded");
        self.note(job, |view| {
            view.model = Some(done.model.clone());
            view.verified = done.verified;
            view.state = JobState::Completed;
            view.error = None;
            view.bytes_per_second = 0;
            for file in &mut view.files {
                file.done = file.size.unwrap_or(file.done);
            }
            view.bytes_done = view.files.iter().map(|file| file.done).sum();
            view.bytes_total = Some(view.bytes_done);
            view.ended_ms = Some(telemetry::now_ms());
        })
        .await;
    }

    async fn fetch_all(
        self: &Arc<Self>,
        job: &Job,
        stop: &CancellationToken,
        patient: bool,
    ) -> Result<Done, DownloadError> {
        self.note(job, |view| view.state = JobState::Resolving).await;
        let plan = self.plan(job, stop, patient).await?;
        let Plan {
            name,
            quantization,
            root,
            files,
            finish,
            becomes,
            already_present,
        } = plan;
        job.live().kept.files = files.iter().map(|file| file.path.clone()).collect();
        // Before the files are shown: whoever waits for the plan must see this with them.
        job.live().was_present = already_present;
        let progress: Vec<Arc<Progress>> = files.iter().map(|file| Arc::new(Progress::new(file.size))).collect();
        let published = files.iter().all(PlannedFile::has_hash);
        // Our store takes in nothing unhashed; of a file that lies in a folder only the size was compared.
        let hashed = published && (!already_present || job.view().kind == JobKind::Registry);
        self.note(job, |view| {
            view.state = JobState::Queued;
            view.quantization = quantization.or_else(|| view.quantization.take());
            view.verified = hashed;
            view.files = files.iter().map(|file| shown(file, already_present)).collect();
            total(view);
        })
        .await;
        if already_present {
            moved(job, becomes.as_deref());
            return Ok(Done {
                model: name,
                verified: hashed,
            });
        }
        let fetched = self.transfer(job, &root, files, &progress, stop).await?;
        self.note(job, |view| {
            view.state = JobState::Verifying;
            refresh(view, &progress);
        })
        .await;
        tokio::task::spawn_blocking(move || finish.run())
            .await
            .map_err(|error| DownloadError::Io(format!("the last step failed: {error}")))??;
        moved(job, becomes.as_deref());
        Ok(Done {
            model: name,
            verified: fetched.iter().all(|file| file.verified),
        })
    }

    /// Asks the origin what there is. Whoever waits for the answer wants to hear of a failure soon; a job that goes on after
    /// a restart has time, the network may only be coming up.
    async fn plan(&self, job: &Job, stop: &CancellationToken, patient: bool) -> Result<Plan, DownloadError> {
        let source = job.source();
        let source = source.ok_or_else(|| DownloadError::Io("what this download was is not known any more".into()))?;
        let tuning = self.settings().tuning.clone();
        let tries = if patient { tuning.retries } else { 1 };
        let mut failures = 0;
        loop {
            let origin = self.origin();
            let answer = tokio::select! {
                answer = sources::resolve(&source, &origin) => answer,
                () = stop.cancelled() => return Err(DownloadError::Paused),
            };
            match answer {
                Err(error @ DownloadError::Network(_)) => {
                    failures += 1;
                    if failures >= tries {
                        return Err(error);
                    }
                    let wait = transfer::back_off(tuning.back_off, tuning.back_off_max, failures, None);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => return Err(DownloadError::Paused),
                    }
                }
                other => return other,
            }
        }
    }

    /// Brings all files, several at once, and keeps what is shown up to date.
    async fn transfer(
        self: &Arc<Self>,
        job: &Job,
        root: &std::path::Path,
        files: Vec<PlannedFile>,
        progress: &[Arc<Progress>],
        stop: &CancellationToken,
    ) -> Result<Vec<Fetched>, DownloadError> {
        let halt = stop.child_token();
        let cx = self.context();
        transfer::room(&cx, root, &files).await?;
        let mut works: Vec<BoxFuture<'_, Result<Fetched, DownloadError>>> = Vec::with_capacity(files.len());
        for (file, progress) in files.iter().zip(progress) {
            works.push(Box::pin(self.one(&cx, root, file, progress, &halt, job)));
        }
        let mut running = futures_util::stream::iter(works).buffer_unordered(self.slots.size());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut meter = Meter::new();
        let (mut told, mut untold) = (Instant::now(), false);
        let (mut fetched, mut failure) = (Vec::new(), None);
        loop {
            tokio::select! {
                ended = running.next() => match ended {
                    None => break,
                    Some(Ok(one)) => fetched.push(one),
                    Some(Err(error)) => {
                        // The other files end too and keep what they have; their reason is only that they had to.
                        halt.cancel();
                        failure.get_or_insert(error);
                    }
                },
                _ = look.tick() => {
                    untold |= job.change(|view| {
                        refresh(view, progress);
                        view.bytes_per_second = meter.update(progress.iter().map(|file| file.received()).sum());
                        let busy = progress.iter().any(|file| file.verifying());
                        if view.state == JobState::Downloading && busy && view.bytes_total == Some(view.bytes_done) {
                            view.state = JobState::Verifying;
                        }
                    });
                    if untold && told.elapsed() >= TELL {
                        self.tell(job);
                        (told, untold) = (Instant::now(), false);
                    }
                }
            }
        }
        job.change(|view| refresh(view, progress));
        match failure {
            Some(error) => Err(error),
            None if stop.is_cancelled() && fetched.len() < files.len() => Err(DownloadError::Paused),
            None => Ok(fetched),
        }
    }

    /// One file, when no other job writes it and there is a place.
    async fn one(
        &self,
        cx: &Context,
        root: &std::path::Path,
        file: &PlannedFile,
        progress: &Progress,
        halt: &CancellationToken,
        job: &Job,
    ) -> Result<Fetched, DownloadError> {
        let waiting = async { (self.files.take(&file.path).await, self.slots.take().await) };
        let (_lock, _slot) = tokio::select! {
            places = waiting => places,
            () = halt.cancelled() => return Err(DownloadError::Paused),
        };
        if job.state() != JobState::Downloading {
            self.note(job, |view| view.state = JobState::Downloading).await;
        }
        let fetched = transfer::fetch(cx, root, file, progress, halt).await?;
        if !fetched.present && job.view().kind != JobKind::Registry {
            landed(job, file.path.clone());
        }
        Ok(fetched)
    }
}

/// Notes that the folder of a job's files has become another one.
fn moved(job: &Job, folder: Option<&Path>) {
    let Some(folder) = folder else { return };
    let mut live = job.live();
    live.kept.landed.clear();
    for path in &mut live.kept.files {
        if let Some(name) = path.file_name() {
            *path = folder.join(name);
        }
    }
}

/// Notes that this job put a file in its place.
fn landed(job: &Job, path: PathBuf) {
    let mut live = job.live();
    if !live.kept.landed.contains(&path) {
        live.kept.landed.push(path);
    }
}

fn shown(file: &PlannedFile, present: bool) -> JobFile {
    JobFile {
        name: file.label.clone(),
        sha256: file.sha256.as_ref().map(ollama_store::Digest::hex),
        size: file.size,
        done: if present { file.size.unwrap_or(0) } else { 0 },
    }
}

fn refresh(view: &mut domain::JobView, progress: &[Arc<Progress>]) {
    for (file, progress) in view.files.iter_mut().zip(progress) {
        file.done = progress.done();
        file.size = file.size.or(progress.size());
    }
    total(view);
}

fn total(view: &mut domain::JobView) {
    view.bytes_done = view.files.iter().map(|file| file.done).sum();
    view.bytes_total = view.files.iter().map(|file| file.size).sum();
}
