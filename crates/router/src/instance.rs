//! What requests, views and the owner task share of one engine process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use domain::{FailureReport, InstanceId, LaunchOptions, LoadedLaunch, ModelEntry};
use supervisor::Child;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::upstream::{Pool, Prefix};

/// How long a memory figure is good for.
const MEMORY_AGE: Duration = Duration::from_secs(1);

/// What the scheduler wants of a process; it only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    Run,
    Stop,
    Kill,
}

/// The way to an engine that answers.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    pub(crate) prefix: Prefix,
    pub(crate) key: String,
    pub(crate) launch: LoadedLaunch,
    pub(crate) pool: Pool,
    pub(crate) ready_at: Instant,
    pub(crate) ready_at_ms: i64,
    pub(crate) load_time: Duration,
}

pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) model: Arc<ModelEntry>,
    pub(crate) options: LaunchOptions,
    pub(crate) begun: Instant,
    pub(crate) link: OnceLock<Arc<Link>>,
    pub(crate) wish: watch::Sender<Wish>,
    /// How it ended. Set before the scheduler hears of it, so that a cut answer can name the reason.
    pub(crate) exit: watch::Sender<Option<Arc<FailureReport>>>,
    /// The scheduler knows that it is gone.
    pub(crate) gone: CancellationToken,
    child: Mutex<Option<Child>>,
    memory: Mutex<Option<(Instant, u64)>>,
    active: AtomicU32,
    /// A byte of any answer came, or a request began, since the owner last looked.
    progress: AtomicBool,
    /// The owner looks at `progress` by itself; else it waits for `activity`.
    pub(crate) watching: AtomicBool,
    pub(crate) activity: Notify,
}

impl Instance {
    pub(crate) fn new(id: InstanceId, model: Arc<ModelEntry>, options: LaunchOptions) -> Self {
        Self {
            id,
            model,
            options,
            begun: Instant::now(),
            link: OnceLock::new(),
            wish: watch::Sender::new(Wish::Run),
            exit: watch::Sender::new(None),
            gone: CancellationToken::new(),
            child: Mutex::default(),
            memory: Mutex::default(),
            active: AtomicU32::new(0),
            progress: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            activity: Notify::new(),
        }
    }

    pub(crate) fn ask(&self, wish: Wish) {
        self.wish.send_if_modified(|current| {
            let rises = wish > *current;
            *current = wish.max(*current);
            rises
        });
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.progress.store(true, Ordering::Relaxed);
        // Wakes the owner once after a quiet time, not for every request.
        if !self.watching.load(Ordering::SeqCst) {
            self.activity.notify_one();
        }
    }

    pub(crate) fn end(&self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::SeqCst)
    }

    pub(crate) fn mark_progress(&self) {
        self.progress.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_progress(&self) -> bool {
        self.progress.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set_child(&self, child: Child) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_ref().filter(|child| child.exit().is_none()).map(Child::pid)
    }

    /// Resident memory, at most a second old. "Not known" is never kept: a question that came before the process must not
    /// answer the one that comes after it.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = *memory
            && at.elapsed() < MEMORY_AGE
        {
            return Some(bytes);
        }
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = child.and_then(|child| child.memory_bytes())?;
        *memory = Some((Instant::now(), bytes));
        Some(bytes)
    }
}
