use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Level, LogLine};
use telemetry::{LineSink, LogRing, MAX_LINE_BYTES, clean_line};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{LineDecoder, OutputLine, OutputStream};

/// Lines an exit report and a crash log carry.
const LAST_LINES: usize = 50;
/// What one of them may take: a report is shown whole.
const LAST_LINE_BYTES: usize = 1024;
/// An unfinished line is passed on this long after its first byte: progress dots are a sign of life (promise R8).
const PARTIAL_AFTER: Duration = Duration::from_secs(1);

/// Where the lines of one child go. None of the targets can make it wait (promise R10).
#[derive(Debug)]
pub(crate) struct LineTargets {
    pub(crate) ring: LogRing,
    pub(crate) file: Option<LineSink>,
    pub(crate) decoder: Option<LineDecoder>,
    pub(crate) last: Arc<LastLines>,
    pub(crate) lines: mpsc::Sender<OutputLine>,
}

/// The last lines of a child.
#[derive(Debug, Default)]
pub(crate) struct LastLines(Mutex<VecDeque<String>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        let end = line.floor_char_boundary(LAST_LINE_BYTES);
        lines.push_back(line[..end].to_owned());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl LineTargets {
    fn line(&self, stream: OutputStream, bytes: &[u8]) {
        let line = OutputLine {
            stream,
            text: clean_line(bytes),
        };
        let log = match self.decoder {
            Some(decode) => decode(&line),
            None => Some(LogLine {
                at_ms: telemetry::now_ms(),
                level: Level::Info,
                text: line.text.clone(),
            }),
        };
        if let Some(log) = log {
            self.last.push(&log.text);
            if let Some(file) = &self.file {
                file.write_line(format!("{}\n", telemetry::log_text(&log)).into_bytes().into());
            }
            self.ring.push(log);
        }
        // A reader that is too slow loses lines; the child must not wait for it.
        let _ = self.lines.try_send(line);
    }
}

/// Reads a pipe to its end, always as fast as the child writes, and passes on its lines.
pub(crate) async fn drain(mut pipe: impl AsyncRead + Unpin, stream: OutputStream, targets: Arc<LineTargets>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut splitter = LineSplitter::default();
    // Of the unfinished line. Not moved by its further bytes: dots may come faster than that.
    let mut due: Option<Instant> = None;
    loop {
        let read = match due {
            Some(due) => tokio::time::timeout_at(due, pipe.read(&mut buffer)).await,
            None => Ok(pipe.read(&mut buffer).await),
        };
        match read {
            Ok(Ok(n)) if n > 0 => {
                let ended = splitter.push(&buffer[..n], |line| targets.line(stream, line));
                if ended || !splitter.has_partial() {
                    due = None;
                }
                if splitter.has_partial() && due.is_none() {
                    due = Some(Instant::now() + PARTIAL_AFTER);
                }
                // A time-out does not fire while there is always something to read.
                if due.is_none_or(|due| Instant::now() < due) {
                    continue;
                }
            }
            Err(_) => {}
            // The end, or a pipe that broke: either way there is nothing more to read.
            Ok(_) => break,
        }
        splitter.finish(|line| targets.line(stream, line));
        due = None;
    }
    splitter.finish(|line| targets.line(stream, line));
}

/// Cuts a byte stream into lines of bounded length: the first 16 KiB of a line are kept, the rest is thrown away.
#[derive(Debug, Default)]
struct LineSplitter {
    partial: Vec<u8>,
    skipping: bool,
}

impl LineSplitter {
    fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// True when a line ended in these bytes.
    fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) -> bool {
        let mut ended = false;
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (head, rest) = bytes.split_at(end);
            if self.skipping {
                self.skipping = false;
            } else if self.partial.is_empty() {
                line(head);
            } else {
                self.partial.extend_from_slice(head);
                line(&self.partial);
                self.partial.clear();
            }
            bytes = &rest[1..];
            ended = true;
        }
        if self.skipping {
            return ended;
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES {
            line(&self.partial);
            self.partial = Vec::new();
            self.skipping = true;
        }
        ended
    }

    /// Passes on an unfinished line.
    fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if self.has_partial() {
            line(&self.partial);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(piece, |line| lines.push(line.to_vec()));
            assert!(splitter.partial.capacity() <= 4 * MAX_LINE_BYTES);
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_and_the_unfinished_rest() {
        assert_eq!(split(&[b"a\nb", b"c\n\nd"]), [&b"a"[..], b"bc", b"", b"d"]);
    }

    #[test]
    fn a_line_without_end_is_cut_once_and_the_next_is_whole() {
        let megabyte = vec![b'x'; 1 << 20];
        let mut pieces: Vec<&[u8]> = megabyte.chunks(16 * 1024).collect();
        pieces.push(b"tail\nnext\n");
        let lines = split(&pieces);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].len() <= 3 * MAX_LINE_BYTES);
        assert_eq!(lines[1], b"next");
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(text in "[ab\n]{0,300}", cuts in proptest::collection::vec(0_usize..300, 0..20)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(split(&pieces), split(&[bytes]));
        }
    }

    /// A pipe that is drained, and what is passed on of it.
    fn drained() -> (tokio::io::DuplexStream, mpsc::Receiver<OutputLine>) {
        let (lines, received) = mpsc::channel(64);
        let targets = Arc::new(LineTargets {
            ring: LogRing::new(10, 1000),
            file: None,
            decoder: None,
            last: Arc::default(),
            lines,
        });
        let (write, read) = tokio::io::duplex(64);
        tokio_util::task::TaskTracker::new().spawn(drain(read, OutputStream::Stderr, targets));
        (write, received)
    }

    #[tokio::test(start_paused = true)]
    async fn dots_without_newline_are_passed_on() {
        use tokio::io::AsyncWriteExt;
        let (mut write, mut received) = drained();
        write.write_all(b".").await.unwrap();
        assert_eq!(received.recv().await.unwrap().text, ".");
        write.write_all(b"..done\n").await.unwrap();
        assert_eq!(received.recv().await.unwrap().text, "..done");
        drop(write);
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn dots_faster_than_the_wait_are_passed_on_too() {
        use tokio::io::AsyncWriteExt;
        let (mut write, mut received) = drained();
        let begun = Instant::now();
        for _ in 0..50 {
            write.write_all(b".").await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let first = received.try_recv().expect("passed on while dots go on").text;
        assert!((3..=5).contains(&first.len()), "{first}");
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
        drop(write);
        let mut all = first;
        while let Some(line) = received.recv().await {
            all += &line.text;
        }
        assert_eq!(all, ".".repeat(50));
    }
}
