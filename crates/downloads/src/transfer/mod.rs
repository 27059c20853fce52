//! One file from an address to its place on disk: ranged parts side by side, resumed at any byte, verified before it is
//! visible (promises D1 to D3). Knows no source and no job.

mod ask;
mod partial;
mod piece;
mod ranges;
mod space;
mod throttle;
mod verify;

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::partial::{Partial, write_error};
pub(crate) use self::piece::back_off;
pub(crate) use self::space::room;
pub(crate) use self::throttle::Throttle;
use crate::http::Http;
use crate::{DownloadError, PlannedFile, Tuning, paths};

/// New starts because the file at the origin changed or its answers do not fit together.
const MAX_RESTARTS: u32 = 5;
/// New starts after which a published hash decides alone: some networks give one file several ETags.
const RESTARTS_WITH_VALIDATOR: u32 = 2;

/// Free bytes on the disk that holds a path; `None` when unknown.
pub type DiskFree = Arc<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

/// What all transfers share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) http: Http,
    pub(crate) tuning: Tuning,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) disk_free: DiskFree,
}

/// How far one file is, readable at any time.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: AtomicU64,
    /// 0: unknown.
    size: AtomicU64,
    received: AtomicU64,
    verifying: AtomicBool,
}

impl Progress {
    /// Progress of a file of which this is known before it begins.
    pub(crate) fn new(size: Option<u64>) -> Self {
        Self {
            size: AtomicU64::new(size.unwrap_or(0)),
            ..Self::default()
        }
    }

    /// Bytes on disk.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes that came in this life, also those that had to come again: what a speed is made of.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Size, once known.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(self.size.load(Ordering::Relaxed)).filter(|size| *size > 0)
    }

    /// Its hash is being compared.
    pub(crate) fn verifying(&self) -> bool {
        self.verifying.load(Ordering::Relaxed)
    }

    fn set(&self, done: u64, size: Option<u64>) {
        self.done.store(done, Ordering::Relaxed);
        self.size.store(size.unwrap_or(0), Ordering::Relaxed);
    }
}

/// A file that is in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The published hash was compared.
    pub(crate) verified: bool,
    /// It was there already.
    pub(crate) present: bool,
}

/// Why the bringing of a file ended without all bytes.
#[derive(Debug)]
enum Stop {
    /// Asked to, or because another piece ended.
    Halted,
    /// What is there is of no use: from the start.
    Restart(DownloadError),
    /// As [`Stop::Restart`], after a failure of the connection to an origin that cannot be resumed.
    Again(DownloadError),
    /// No use in trying; what is there is kept.
    Fatal(DownloadError),
}

/// Brings a file to its place. With `stop` cancelled it ends soon with [`DownloadError::Paused`], keeping what is there.
pub(crate) async fn fetch(
    cx: &Context,
    root: &Path,
    file: &PlannedFile,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Fetched, DownloadError> {
    prepare(root, file).await?;
    if let Some(verified) = present(file, stop).await? {
        progress.set(file.size.unwrap_or(0), file.size);
        // Left over by a death between the last two steps of an earlier life.
        discard(&file.path).await?;
        return Ok(Fetched {
            verified,
            present: true,
        });
    }
    let (mut changes, mut failures, mut mismatches) = (0, 0, 0);
    let opening = file.clone();
    let partial = Arc::new(blocking(move || Partial::open(&opening)).await?);
    loop {
        let bringing = Bringing {
            cx,
            file,
            partial: Arc::clone(&partial),
            progress,
            halt: stop.child_token(),
            gate: Mutex::new(None),
        };
        bringing.tell();
        let end = bringing.all().await;
        let keep = Arc::clone(&partial);
        match end {
            Ok(()) => {}
            Err(Stop::Halted) => {
                // A failure to note it costs what came since the last note, nothing else.
                let _ = blocking(move || keep.save().map_err(|e| write_error(&e))).await;
                return Err(DownloadError::Paused);
            }
            Err(Stop::Fatal(error)) => {
                let _ = blocking(move || keep.save().map_err(|e| write_error(&e))).await;
                return Err(error);
            }
            Err(Stop::Restart(error)) => {
                changes += 1;
                if changes > MAX_RESTARTS {
                    return Err(error);
                }
                tracing::debug!(%error, file = %file.label, "starting again");
                partial.ledger().ignore_validator = file.sha256.is_some() && changes >= RESTARTS_WITH_VALIDATOR;
                blocking(move || keep.reset().map_err(|e| write_error(&e))).await?;
                continue;
            }
            Err(Stop::Again(error)) => {
                failures += 1;
                if failures > cx.tuning.retries {
                    return Err(error);
                }
                let wait = back_off(cx.tuning.back_off, cx.tuning.back_off_max, failures, None);
                tracing::debug!(%error, ?wait, file = %file.label, "starting again after a failure");
                blocking(move || keep.reset().map_err(|e| write_error(&e))).await?;
                tokio::select! {
                    () = tokio::time::sleep(wait) => continue,
                    () = stop.cancelled() => return Err(DownloadError::Paused),
                }
            }
        }
        drop(bringing);
        progress.verifying.store(true, Ordering::Relaxed);
        let verdict = verified(file, &partial, stop).await;
        progress.verifying.store(false, Ordering::Relaxed);
        match verdict {
            Ok(verified) => {
                drop(keep);
                land(file, partial).await?;
                return Ok(Fetched {
                    verified,
                    present: false,
                });
            }
            Err(DownloadError::Paused) => {
                let _ = blocking(move || keep.save().map_err(|e| write_error(&e))).await;
                return Err(DownloadError::Paused);
            }
            Err(error @ (DownloadError::Digest { .. } | DownloadError::Damaged(_))) => {
                mismatches += 1;
                tracing::warn!(%error, file = %file.label, again = mismatches == 1, "a downloaded file is not what it should be");
                blocking(move || keep.reset().map_err(|e| write_error(&e))).await?;
                if mismatches > 1 {
                    drop(partial);
                    discard(&file.path).await?;
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes what there is of an unfinished file.
pub(crate) async fn discard(path: &Path) -> Result<(), DownloadError> {
    let path = path.to_owned();
    blocking(move || partial::discard(&path).map_err(|error| write_error(&error))).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(DownloadError::Io(format!("a part of the download failed: {error}"))))
}

async fn prepare(root: &Path, file: &PlannedFile) -> Result<(), DownloadError> {
    let (root, path) = (root.to_owned(), file.path.clone());
    blocking(move || paths::prepare(&root, &path)).await
}

/// Whether the file is in its place already: its size is right, and so is its hash unless its name is its hash.
async fn present(file: &PlannedFile, stop: &CancellationToken) -> Result<Option<bool>, DownloadError> {
    let (file, stop) = (file.clone(), stop.clone());
    blocking(move || {
        let Ok(meta) = std::fs::metadata(&file.path) else {
            return Ok(None);
        };
        if !meta.is_file() || file.size.is_some_and(|size| size != meta.len()) {
            return Ok(None);
        }
        if let Some(want) = &file.git_sha1 {
            let data = std::fs::File::open(&file.path)
                .map_err(|error| DownloadError::io("a file could not be read", &error))?;
            return Ok(verify::git_name(&data).is_ok_and(|got| got == *want).then_some(true));
        }
        let Some(want) = &file.sha256 else {
            // Only complete files get this name, so with the published size it is the file.
            return Ok(file.size.map(|_| false));
        };
        let named_by_hash = file
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(&want.hex()));
        if named_by_hash && file.size.is_some() {
            return Ok(Some(true));
        }
        let data =
            std::fs::File::open(&file.path).map_err(|error| DownloadError::io("a file could not be read", &error))?;
        match verify::hash(&data, &|| !stop.is_cancelled()) {
            Ok(Some(got)) if got == *want => Ok(Some(true)),
            Ok(None) => Err(DownloadError::Paused),
            Ok(Some(_)) | Err(_) => Ok(None),
        }
    })
    .await
}

async fn verified(file: &PlannedFile, partial: &Partial, stop: &CancellationToken) -> Result<bool, DownloadError> {
    let (file, data, stop) = (file.clone(), partial.data(), stop.clone());
    blocking(move || verify::verify(&file, &data, &|| !stop.is_cancelled())).await
}

async fn land(file: &PlannedFile, partial: Arc<Partial>) -> Result<(), DownloadError> {
    let target = file.path.clone();
    let partial =
        Arc::into_inner(partial).ok_or_else(|| DownloadError::Io("the file is still being written".into()))?;
    blocking(move || partial.land(&target).map_err(|error| write_error(&error))).await
}

/// One try to bring all missing bytes of a file.
struct Bringing<'a> {
    cx: &'a Context,
    file: &'a PlannedFile,
    partial: Arc<Partial>,
    progress: &'a Progress,
    /// Ends all pieces.
    halt: CancellationToken,
    /// The origin wants to be left alone until then.
    gate: Mutex<Option<Instant>>,
}

impl Bringing<'_> {
    /// Brings all that is missing.
    async fn all(&self) -> Result<(), Stop> {
        self.check_space(true)?;
        loop {
            let before = self.partial.ledger().done.bytes();
            self.round().await?;
            let ledger = self.partial.ledger();
            if ledger.complete() {
                return Ok(());
            }
            // An origin that keeps the size to itself is asked part by part.
            if ledger.done.bytes() <= before {
                return Err(Stop::Restart(DownloadError::Origin(
                    "the origin sends nothing more".into(),
                )));
            }
        }
    }

    /// Brings what is known to be missing, or one more part where the size is unknown.
    async fn round(&self) -> Result<(), Stop> {
        let part = self.cx.tuning.part_size;
        let next = {
            let ledger = self.partial.ledger();
            match ledger.size {
                Some(_) if ledger.complete() => return Ok(()),
                Some(size) => ledger.done.missing(size, part).into_iter().next(),
                None => None,
            }
        };
        // Where the size is unknown, one part is asked for: its answer tells the size.
        let (at, end) = next.map_or((self.partial.ledger().done.end(), None), |gap| {
            (gap.start, Some(gap.end))
        });
        let asked_end = end.or(Some(at + part));
        let Some(opened) = self.first(at, asked_end).await? else {
            return Ok(());
        };
        if !opened.whole && !self.partial.ledger().resumable() {
            // Nothing says that the next part would be of the same file.
            self.partial.ledger().whole_only = true;
            return Err(Stop::Restart(DownloadError::Origin(
                "the origin has no word for the version of its file".into(),
            )));
        }
        // What the first answer brings is its own; the rest is shared out.
        let first_end = opened.end.or_else(|| self.partial.ledger().size);
        let rest = {
            let ledger = self.partial.ledger();
            let mut covered = ledger.done.clone();
            match (ledger.size, first_end) {
                (Some(size), Some(first_end)) => {
                    covered.insert(opened.start..first_end);
                    covered.missing(size, part)
                }
                _ => Vec::new(),
            }
        };
        let start = opened.start;
        let mut rest = rest.into_iter();
        let mut running = FuturesUnordered::new();
        running.push(self.piece_of(start, first_end, Some(opened)));
        for gap in rest.by_ref().take(self.cx.tuning.parts_at_once.saturating_sub(1)) {
            running.push(self.piece_of(gap.start, Some(gap.end), None));
        }
        // Beside the pieces, so that a slow disk holds up no connection; at the end it is waited for, so that no old note
        // comes after a new start.
        let over = CancellationToken::new();
        let mut notes = pin!(self.keep_notes(&over));
        let mut noting = true;
        let mut result = Ok(());
        let mut stop_all = |stop: Stop| {
            // The pieces write out what they have: nothing may be written after a new start.
            self.halt.cancel();
            if matches!(result, Ok(()) | Err(Stop::Halted)) {
                result = Err(stop);
            }
        };
        loop {
            tokio::select! {
                ended = running.next() => match ended {
                    None => break,
                    Some(Err(stop)) => stop_all(stop),
                    Some(Ok(())) if self.halt.is_cancelled() => {}
                    Some(Ok(())) => if let Some(gap) = rest.next() {
                        running.push(self.piece_of(gap.start, Some(gap.end), None));
                    },
                },
                ended = &mut notes, if noting => {
                    noting = false;
                    if let Err(stop) = ended {
                        stop_all(stop);
                    }
                }
            }
        }
        over.cancel();
        if noting && let Err(stop) = notes.await {
            stop_all(stop);
        }
        if result.is_ok() && self.halt.is_cancelled() && !self.partial.ledger().complete() {
            return Err(Stop::Halted);
        }
        result
    }

    /// Notes what is there and looks at the disk, again and again until it is over.
    async fn keep_notes(&self, over: &CancellationToken) -> Result<(), Stop> {
        let mut tick = tokio::time::interval(self.cx.tuning.save_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = over.cancelled() => return Ok(()),
            }
            let partial = Arc::clone(&self.partial);
            blocking(move || partial.save().map_err(|error| write_error(&error)))
                .await
                .map_err(|error| Stop::Fatal(self.with_missing(error)))?;
            self.check_space(false)?;
        }
    }

    /// One shape for all futures of a file, on the heap: they are many and large.
    fn piece_of(
        &self,
        at: u64,
        end: Option<u64>,
        opened: Option<ask::Opened>,
    ) -> futures_util::future::BoxFuture<'_, Result<(), Stop>> {
        Box::pin(self.piece(at, end, opened))
    }

    /// A small file is asked for in one plain request.
    fn plain(&self) -> bool {
        let ledger = self.partial.ledger();
        ledger.whole_only || ledger.size.is_some_and(|size| size <= self.cx.tuning.part_size)
    }

    fn tell(&self) {
        let ledger = self.partial.ledger();
        self.progress.set(ledger.done.bytes(), ledger.size);
    }

    async fn wait_for_gate(&self) -> Result<(), Stop> {
        let until = *self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(wait) => self.sleep(wait + Duration::from_millis(1)).await,
            None => Ok(()),
        }
    }

    fn close_gate(&self, until: Instant) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        *gate = Some(gate.map_or(until, |gate| gate.max(until)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
