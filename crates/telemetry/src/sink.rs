use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines and bytes that may wait for a slow disk before lines are dropped.
const QUEUE_LINES: usize = 4096;
const QUEUE_BYTES: usize = 1024 * 1024;

/// A thread that writes lines so that nobody else has to wait for a disk or a terminal.
///
/// When the target is slow or full, lines are dropped and counted, and the count is written as soon as there is room.
/// The thread ends when the last [`LogWriter`] and [`LineSink`] is gone.
#[derive(Debug, Clone)]
pub struct LogWriter {
    queue: SyncSender<Message>,
    queued_bytes: Arc<AtomicUsize>,
}

/// One target of a [`LogWriter`]. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LineSink {
    writer: LogWriter,
    target: Arc<Target>,
}

struct Target {
    write: Mutex<Box<dyn Write + Send>>,
    dropped: AtomicU64,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

enum Message {
    Line(Arc<Target>, Arc<[u8]>),
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(thread_name: &str) -> std::io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::clone(&queued_bytes);
        std::thread::Builder::new()
            .name(thread_name.to_owned())
            .spawn(move || run(&messages, &bytes))?;
        Ok(Self { queue, queued_bytes })
    }

    /// A target for lines, written by this thread in the order they come.
    pub fn sink(&self, target: impl Write + Send + 'static) -> LineSink {
        let target = Arc::new(Target {
            write: Mutex::new(Box::new(target)),
            dropped: AtomicU64::new(0),
        });
        LineSink {
            writer: self.clone(),
            target,
        }
    }

    /// Waits until everything queued before is written, at most `limit`. Returns whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        // A full queue means a stuck target: waiting for room could take for ever.
        self.queue.try_send(Message::Flush(done)).is_ok() && wait.recv_timeout(limit).is_ok()
    }
}

impl LineSink {
    /// Queues a line; the line end must be in it. Never waits; a line for which there is no room is dropped.
    pub fn write_line(&self, line: Arc<[u8]>) {
        let length = line.len();
        let waiting = self.writer.queued_bytes.fetch_add(length, Ordering::Relaxed);
        let sent = waiting + length <= QUEUE_BYTES
            && self
                .writer
                .queue
                .try_send(Message::Line(Arc::clone(&self.target), line))
                .is_ok();
        if !sent {
            self.writer.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.target.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn run(messages: &Receiver<Message>, queued_bytes: &AtomicUsize) {
    for message in messages {
        match message {
            Message::Line(target, line) => {
                target.write(&line);
                queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            // The asker may have stopped waiting.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl Target {
    fn write(&self, line: &[u8]) {
        let mut write = self.write.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let noted = dropped == 0 || writeln!(write, "[{dropped} log lines dropped]").is_ok();
        if !noted || write.write_all(line).is_err() {
            // A full disk must not stop anything (promise O3): count and go on.
            self.dropped
                .fetch_add(if noted { 1 } else { dropped + 1 }, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write(sink: &LineSink, text: &str) {
        sink.write_line(text.as_bytes().into());
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_how_many() {
        let writer = LogWriter::start("test").unwrap();
        let disk = Disk::default();
        let sink = writer.sink(disk.clone());
        write(&sink, "one\n");
        assert!(writer.flush(Duration::from_secs(5)));
        disk.full.store(true, Ordering::SeqCst);
        write(&sink, "two\n");
        write(&sink, "three\n");
        assert!(writer.flush(Duration::from_secs(5)));
        disk.full.store(false, Ordering::SeqCst);
        write(&sink, "four\n");
        assert!(writer.flush(Duration::from_secs(5)));
        let text = disk.text.lock().unwrap();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "one\n[2 log lines dropped]\nfour\n"
        );
    }

    struct Stuck(mpsc::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_target_bounds_memory_and_blocks_nobody() {
        let writer = LogWriter::start("test").unwrap();
        let (release, stuck) = mpsc::channel();
        let sink = writer.sink(Stuck(stuck));
        let line: Arc<[u8]> = vec![b'x'; 16 * 1024].into();
        for _ in 0..1000 {
            sink.write_line(Arc::clone(&line));
        }
        assert!(writer.queued_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES);
        assert!(!writer.flush(Duration::from_millis(10)));
        drop(release);
        assert!(writer.flush(Duration::from_secs(5)));
    }
}
