//! The thread that owns the connection.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::StoreError;

/// Says whether the file turned out to be damaged.
type Work = Box<dyn FnOnce(&mut Connection) -> bool + Send>;
/// Gives a connection to take the place of a damaged one.
type Replace = Box<dyn FnMut() -> Option<Connection> + Send>;

/// Sends work to the thread; with the last handle the thread ends and the file is closed.
#[derive(Clone)]
pub(crate) struct Writer {
    inner: Arc<Inner>,
}

struct Inner {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            // It ends once what was sent is done; that is milliseconds, and the file is whole afterwards.
            let _ = thread.join();
        }
    }
}

impl Writer {
    pub(crate) fn start(connection: Connection, replace: Replace) -> std::io::Result<Self> {
        let (work, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(connection, &inbox, replace))?;
        Ok(Self {
            inner: Arc::new(Inner {
                work: Some(work),
                thread: Some(thread),
            }),
        })
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let boxed: Work = Box::new(move |db| {
            let done = work(db);
            let damaged = matches!(done, Err(StoreError::Damaged(_)));
            // The caller may have left; the work is done all the same.
            let _ = answer.send(done);
            damaged
        });
        let sender = self.inner.work.as_ref().ok_or(StoreError::Closed)?;
        sender.send(boxed).map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

fn serve(mut connection: Connection, inbox: &Receiver<Work>, mut replace: Replace) {
    while let Ok(work) = inbox.recv() {
        if work(&mut connection)
            && let Some(fresh) = replace()
        {
            connection = fresh;
        }
    }
    // Folds the log into the file; left undone, the next start does it.
    let _ = connection.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);");
}
