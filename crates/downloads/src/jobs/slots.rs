use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard};

/// How many files are downloaded at once, all jobs together. The number may change at any time.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    size: usize,
    used: usize,
}

/// A place for one file.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) fn new(size: usize) -> Self {
        Self {
            state: Mutex::new(State {
                size: size.max(1),
                used: 0,
            }),
            freed: Notify::new(),
        }
    }

    pub(super) fn resize(&self, size: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).size = size.max(1);
        self.freed.notify_waiters();
    }

    pub(super) fn size(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).size
    }

    pub(super) async fn take(&self) -> Slot<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.used < state.size {
                    state.used += 1;
                    return Slot(self);
                }
            }
            freed.await;
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).used -= 1;
        self.0.freed.notify_one();
    }
}

/// One file on disk has one writer, whichever jobs want it (two models may share a layer).
#[derive(Debug, Default)]
pub(super) struct FileLocks {
    files: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl FileLocks {
    /// Waits until nobody else writes this file.
    pub(super) async fn take(&self, path: &Path) -> OwnedMutexGuard<()> {
        let lock = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(files.entry(path.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_than_the_present_size_at_once() {
        let slots = Slots::new(1);
        let first = slots.take().await;
        let mut second = Box::pin(slots.take());
        assert!(futures_util::poll!(&mut second).is_pending());
        slots.resize(2);
        let second = second.await;
        slots.resize(1);
        drop(first);
        assert!(futures_util::poll!(Box::pin(slots.take())).is_pending());
        drop(second);
        slots.take().await;
    }

    #[tokio::test]
    async fn one_file_has_one_writer() {
        let locks = FileLocks::default();
        let first = locks.take(Path::new("/a")).await;
        locks.take(Path::new("/b")).await;
        let mut second = Box::pin(locks.take(Path::new("/a")));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await;
        locks.take(Path::new("/c")).await;
        assert_eq!(locks.files.lock().unwrap().len(), 1);
    }
}
