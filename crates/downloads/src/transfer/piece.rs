//! One piece of a file, brought with as many requests as it takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::ask::{Opened, Refusal, ask};
use super::partial::write_error;
use super::{Bringing, Stop};
use crate::DownloadError;
use crate::http::{Broken, Response, host_of};

/// Bytes collected before they are written.
const BLOCK: usize = 256 << 10;
/// Longest time that received bytes wait to be written.
const LINGER: Duration = Duration::from_millis(250);
/// Answers that contradict themselves before we give up on the origin.
const ODD_TRIES: u32 = 3;
/// Connections without a single byte that cost nothing; the next one counts as a failed try.
const FREE_STALLS: u32 = 10;
/// Longest `Retry-After` that is waited for in full.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// The wait before another try: it grows by half each time, plus up to a quarter by chance, and is never shorter than what
/// the origin asked for.
pub(crate) fn back_off(first: Duration, longest: Duration, failures: u32, asked: Option<Duration>) -> Duration {
    let grown = first.as_secs_f64() * 1.5_f64.powi(failures.saturating_sub(1).min(60) as i32);
    let own = Duration::from_secs_f64(grown.min(longest.as_secs_f64()));
    let base = own.max(asked.unwrap_or_default().min(LONGEST_WAIT));
    let mut byte = [0];
    // Without a source of chance all wait the same time, which is only less polite.
    let _ = getrandom::fill(&mut byte);
    base + own.mul_f64(f64::from(byte[0]) / 1020.0)
}

/// Counts what went wrong with one piece.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    odd: u32,
    stalls: u32,
}

/// How a body ended.
enum Poured {
    /// Its sender ended it.
    End,
    /// It broke off.
    Cut(String),
    /// Nothing came any more.
    Stalled,
    /// More came than belongs there: nothing of it can be trusted.
    TooLong,
    /// We were asked to stop.
    Halted,
    /// It could not be written.
    Unwritten(std::io::Error),
}

impl Bringing<'_> {
    /// Brings `at..end` (or, without an end, all from `at`), beginning with an answer that is there already.
    pub(super) async fn piece(&self, mut at: u64, end: Option<u64>, mut opened: Option<Opened>) -> Result<(), Stop> {
        let mut trouble = Trouble::default();
        loop {
            let target = end.or_else(|| self.partial.ledger().size);
            if target == Some(at) {
                return Ok(());
            }
            let Opened {
                mut response,
                end: stop,
                ..
            } = match opened.take() {
                Some(opened) => opened,
                None => match self.open(at, target, &mut trouble).await? {
                    Some(opened) => opened,
                    None => return Ok(()),
                },
            };
            let begin = at;
            let limit = stop.or(target);
            let poured = self.pour(&mut response, &mut at, limit).await;
            if at > begin {
                trouble = Trouble {
                    odd: trouble.odd,
                    ..Trouble::default()
                };
            }
            let host = host_of(response.url());
            drop(response);
            match poured {
                Poured::End if limit.is_none_or(|limit| at == limit) => {
                    if limit.is_none() {
                        self.partial.ledger().size = Some(at);
                        return Ok(());
                    }
                }
                Poured::Stalled if limit == Some(at) => {}
                Poured::End => self.failed(&mut trouble, format!("{host} ended too early")).await?,
                Poured::Cut(reason) => self.failed(&mut trouble, format!("{host} broke off: {reason}")).await?,
                Poured::Stalled => {
                    self.must_resume(format!("{host} stopped sending"))?;
                    if at == begin {
                        trouble.stalls += 1;
                        if trouble.stalls.is_multiple_of(FREE_STALLS) {
                            self.failed(&mut trouble, format!("{host} stopped sending")).await?;
                        }
                    }
                }
                Poured::TooLong => {
                    self.partial.forget(begin..at);
                    self.tell();
                    at = begin;
                    let error = DownloadError::Origin(format!("{host} sends more than it announced"));
                    self.odd(&mut trouble, error).await?;
                    self.must_resume(format!("{host} sends more than it announced"))?;
                }
                Poured::Halted => return Err(Stop::Halted),
                Poured::Unwritten(error) => return Err(Stop::Fatal(self.with_missing(write_error(&error)))),
            }
        }
    }

    /// Asks until there is an answer with usable bytes. `None`: the file turned out to be complete.
    pub(super) async fn first(&self, at: u64, end: Option<u64>) -> Result<Option<Opened>, Stop> {
        self.open(at, end, &mut Trouble::default()).await
    }

    async fn open(&self, at: u64, end: Option<u64>, trouble: &mut Trouble) -> Result<Option<Opened>, Stop> {
        loop {
            self.wait_for_gate().await?;
            if at > 0 {
                self.must_resume("the connection broke off".into())?;
            }
            let plain = self.plain();
            let answer = tokio::select! {
                answer = ask(&self.cx.http, self.file, &self.partial, at, end, plain) => answer,
                () = self.halt.cancelled() => return Err(Stop::Halted),
            };
            match answer {
                Ok(opened) => return Ok(Some(opened)),
                Err(Refusal::Complete(size)) => {
                    self.partial.ledger().size = Some(size);
                    return Ok(None);
                }
                Err(Refusal::Restart(error)) => return Err(Stop::Restart(error)),
                Err(Refusal::Fatal(error)) => return Err(Stop::Fatal(error)),
                Err(Refusal::Odd(error)) => self.odd(trouble, error).await?,
                Err(Refusal::Retry(error, asked)) => {
                    trouble.failures += 1;
                    if trouble.failures > self.cx.tuning.retries {
                        return Err(Stop::Fatal(error));
                    }
                    let wait = self.back_off(trouble.failures, asked);
                    tracing::debug!(%error, ?wait, file = %self.file.label, "trying again");
                    if asked.is_some() {
                        // The origin means all of us, not this connection alone.
                        self.close_gate(Instant::now() + wait);
                    } else {
                        self.sleep(wait).await?;
                    }
                }
            }
        }
    }

    fn back_off(&self, failures: u32, asked: Option<Duration>) -> Duration {
        back_off(self.cx.tuning.back_off, self.cx.tuning.back_off_max, failures, asked)
    }

    /// A connection failed: wait, unless there were too many of these, or what is there cannot be continued.
    async fn failed(&self, trouble: &mut Trouble, reason: String) -> Result<(), Stop> {
        self.must_resume(reason.clone())?;
        trouble.failures += 1;
        if trouble.failures > self.cx.tuning.retries {
            return Err(Stop::Fatal(DownloadError::Network(reason)));
        }
        tracing::debug!(reason, file = %self.file.label, "going on after a failure");
        self.sleep(self.back_off(trouble.failures, None)).await
    }

    async fn odd(&self, trouble: &mut Trouble, error: DownloadError) -> Result<(), Stop> {
        trouble.odd += 1;
        if trouble.odd >= ODD_TRIES {
            return Err(Stop::Fatal(error));
        }
        self.sleep(self.back_off(trouble.odd, None)).await
    }

    fn must_resume(&self, reason: String) -> Result<(), Stop> {
        if self.partial.ledger().resumable() {
            Ok(())
        } else {
            Err(Stop::Again(DownloadError::Network(reason)))
        }
    }

    pub(super) async fn sleep(&self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.halt.cancelled() => Err(Stop::Halted),
        }
    }

    async fn pour(&self, response: &mut Response, at: &mut u64, limit: Option<u64>) -> Poured {
        let mut block = Vec::with_capacity(BLOCK);
        let mut written = Instant::now();
        let how = loop {
            let next = tokio::select! {
                next = response.next() => next,
                () = self.halt.cancelled() => break Poured::Halted,
            };
            match next {
                Ok(Some(bytes)) => {
                    let room = limit.map_or(u64::MAX, |limit| limit - *at - block.len() as u64);
                    if bytes.len() as u64 > room {
                        return Poured::TooLong;
                    }
                    block.extend_from_slice(&bytes);
                    tokio::select! {
                        () = self.cx.throttle.pay(bytes.len()) => {}
                        () = self.halt.cancelled() => break Poured::Halted,
                    }
                    if block.len() >= BLOCK || written.elapsed() >= LINGER {
                        match self.write(at, block).await {
                            Ok(empty) => block = empty,
                            Err(error) => return Poured::Unwritten(error),
                        }
                        written = Instant::now();
                    }
                }
                Ok(None) => break Poured::End,
                Err(Broken::Stalled) => break Poured::Stalled,
                Err(Broken::Cut(reason)) => break Poured::Cut(reason),
            }
        };
        match self.write(at, block).await {
            Ok(_) => how,
            Err(error) => Poured::Unwritten(error),
        }
    }

    /// Writes a block at its place and moves on; gives the emptied buffer back.
    async fn write(&self, at: &mut u64, mut block: Vec<u8>) -> std::io::Result<Vec<u8>> {
        if block.is_empty() {
            return Ok(block);
        }
        let (partial, place, length) = (Arc::clone(&self.partial), *at, block.len() as u64);
        let block = tokio::task::spawn_blocking(move || {
            partial.write(place, &block)?;
            block.clear();
            Ok::<_, std::io::Error>(block)
        })
        .await
        .map_err(std::io::Error::other)??;
        *at += length;
        self.progress.received.fetch_add(length, Ordering::Relaxed);
        self.tell();
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_half_up_to_the_longest_and_never_fall_below_what_was_asked() {
        let (first, longest) = (Duration::from_secs(2), Duration::from_mins(5));
        let near = |wait: Duration, seconds: f64| {
            let got = wait.as_secs_f64();
            assert!(
                (seconds..=seconds * 1.26).contains(&got),
                "{got} is not {seconds} plus a quarter"
            );
        };
        for (failures, seconds) in [
            (1, 2.0),
            (2, 3.0),
            (3, 4.5),
            (13, 259.4),
            (14, 300.0),
            (50, 300.0),
            (u32::MAX, 300.0),
        ] {
            near(back_off(first, longest, failures, None), seconds);
        }
        let asked = back_off(first, longest, 1, Some(Duration::from_mins(2)));
        assert!((120.0..=120.6).contains(&asked.as_secs_f64()), "{asked:?}");
        assert!(back_off(first, longest, 1, Some(Duration::from_secs(1 << 40))) < LONGEST_WAIT + first);
    }
}
