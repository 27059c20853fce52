use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Connection;

/// The engine closes idle connections after 5 s; ours end before that.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// Idle connections to one instance. Not more than it has slots: each occupies a thread of the engine's HTTP server.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Debug)]
struct Idle {
    connections: Vec<(Connection, Instant)>,
    limit: usize,
}

impl Pool {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            idle: Mutex::new(Idle {
                connections: Vec::new(),
                limit,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last, if it still lives.
    pub(crate) fn take(&self) -> Option<Connection> {
        loop {
            let (connection, since) = self.lock().connections.pop()?;
            if since.elapsed() < MAX_IDLE && connection.is_fresh() {
                return Some(connection);
            }
        }
    }

    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.connections.len() < idle.limit {
            idle.connections.push((connection, Instant::now()));
        }
    }

    /// Closes what has been idle too long. True: none is left.
    pub(crate) fn sweep(&self) -> bool {
        let mut idle = self.lock();
        idle.connections.retain(|(_, since)| since.elapsed() < MAX_IDLE);
        idle.connections.is_empty()
    }

    /// Closes all, now and later.
    pub(crate) fn close(&self) {
        let mut idle = self.lock();
        idle.limit = 0;
        idle.connections.clear();
    }
}
