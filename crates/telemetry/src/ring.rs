use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use domain::LogLine;
use tokio::sync::broadcast;

/// Lines a slow follower may fall behind.
const FOLLOW_CAPACITY: usize = 256;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = size_of::<LogLine>();

/// The last lines of one source, bounded by lines and by bytes; readers can follow. Cloning shares the ring.
#[derive(Debug, Clone)]
pub struct LogRing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max_lines: usize,
    max_bytes: usize,
    lines: Mutex<Lines>,
    // Made by the first follower: its buffer is larger than most rings ever get.
    followers: OnceLock<broadcast::Sender<LogLine>>,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<LogLine>,
    bytes: usize,
}

impl LogRing {
    /// A ring that keeps at most `max_lines` lines and about `max_bytes` bytes, whichever is reached first. The newest
    /// line is always kept.
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                max_lines: max_lines.max(1),
                max_bytes,
                lines: Mutex::default(),
                followers: OnceLock::new(),
            }),
        }
    }

    /// Appends a line and tells the followers. Never waits for them.
    pub fn push(&self, line: LogLine) {
        let mut lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followers) = self.inner.followers.get().filter(|f| f.receiver_count() > 0) {
            // Under the lock, so that a follower sees the lines in the ring's order.
            let _ = followers.send(line.clone());
        }
        lines.bytes += line.text.len() + LINE_OVERHEAD;
        lines.queue.push_back(line);
        while lines.queue.len() > 1 && (lines.queue.len() > self.inner.max_lines || lines.bytes > self.inner.max_bytes)
        {
            if let Some(old) = lines.queue.pop_front() {
                lines.bytes -= old.text.len() + LINE_OVERHEAD;
            }
        }
    }

    /// The newest `n` lines, oldest first.
    pub fn tail(&self, n: usize) -> Vec<LogLine> {
        let lines = self.inner.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .queue
            .iter()
            .skip(lines.queue.len().saturating_sub(n))
            .cloned()
            .collect()
    }

    /// Every line pushed from now on; a follower that does not read loses the oldest and is told.
    pub fn subscribe(&self) -> broadcast::Receiver<LogLine> {
        self.inner
            .followers
            .get_or_init(|| broadcast::channel(FOLLOW_CAPACITY).0)
            .subscribe()
    }
}

#[cfg(test)]
mod tests {
    use domain::Level;

    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            at_ms: 0,
            level: Level::Info,
            text: text.to_owned(),
        }
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn bounded_by_lines() {
        let ring = LogRing::new(3, usize::MAX);
        for text in ["a", "b", "c", "d"] {
            ring.push(line(text));
        }
        assert_eq!(texts(&ring.tail(10)), ["b", "c", "d"]);
        assert_eq!(texts(&ring.tail(1)), ["d"]);
        assert!(ring.tail(0).is_empty());
    }

    #[test]
    fn bounded_by_bytes_but_the_newest_stays() {
        let ring = LogRing::new(1000, 3 * (LINE_OVERHEAD + 100));
        for n in 0..10 {
            ring.push(line(&format!("{n}{}", "x".repeat(99))));
        }
        assert_eq!(ring.tail(100).len(), 3);
        ring.push(line(&"y".repeat(100_000)));
        assert_eq!(ring.tail(100).len(), 1);
    }

    #[test]
    fn followers_get_new_lines_only() {
        let ring = LogRing::new(10, 10_000);
        ring.push(line("old"));
        let mut follower = ring.subscribe();
        ring.push(line("new"));
        assert_eq!(follower.try_recv().unwrap().text, "new");
        assert!(follower.try_recv().is_err());
    }
}
