//! The socket as hyper sees it: framing checked ([`crate::framing`]), silent clients timed out (promise H5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::framing::{Framing, Verdict};
use crate::listener::ConnectionLimits;

/// A checked connection.
pub(crate) struct Wire<S> {
    io: S,
    framing: Framing,
    /// An incomplete head, not shown to hyper yet.
    held: Vec<u8>,
    /// Checked bytes that did not fit the reader's buffer.
    ready: Vec<u8>,
    ready_at: usize,
    /// What was refused, as it came: after an upgrade it is no HTTP.
    refused: Vec<u8>,
    state: State,
    /// Longest time from the first byte of a head to its last, and from connecting to the first byte.
    head_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Longest time a client may leave what was written to it unread.
    write_timeout: Duration,
    write_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was received yet.
    Silent,
    Open,
    /// A head that is too large: hyper refuses it, nothing after it is looked at.
    Oversized,
    /// Refused: the NUL was delivered, nothing more is.
    Refused,
}

impl<S> Wire<S> {
    pub(crate) fn new(io: S, limits: &ConnectionLimits) -> Self {
        Self {
            io,
            framing: Framing::new(limits.max_head),
            held: Vec::new(),
            ready: Vec::new(),
            ready_at: 0,
            refused: Vec::new(),
            state: State::Silent,
            head_timeout: limits.head_timeout,
            timer: None,
            write_timeout: limits.write_timeout,
            write_timer: None,
        }
    }

    /// The socket, for a connection that is no HTTP any more, and what came in that hyper has not consumed; `unread` is what
    /// hyper had read ahead.
    pub(crate) fn into_raw(self, unread: &[u8]) -> (S, Vec<u8>) {
        if self.state == State::Refused {
            return (self.io, self.refused);
        }
        let mut early = unread.to_vec();
        early.extend_from_slice(&self.ready[self.ready_at..]);
        early.extend_from_slice(&self.held);
        (self.io, early)
    }

    /// Waits for a head to complete, or for the very first byte, at most `head_timeout`.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state != State::Silent && self.held.is_empty() {
            self.timer = None;
            return Poll::Pending;
        }
        let timeout = self.head_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Watches a write that does not get on: a client that stopped reading must not hold an engine for ever.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_timer = None;
            return polled;
        }
        let timeout = self.write_timeout;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let length = buf.remaining().min(self.ready.len() - self.ready_at);
        buf.put_slice(&self.ready[self.ready_at..self.ready_at + length]);
        self.ready_at += length;
        if self.ready_at == self.ready.len() {
            self.ready = Vec::new();
            self.ready_at = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                this.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Refused {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Pending => return this.poll_silence(cx),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if buf.filled().len() == before => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
            }
            match this.state {
                State::Silent => {
                    this.state = State::Open;
                    this.timer = None;
                }
                State::Open => {}
                State::Oversized | State::Refused => return Poll::Ready(Ok(())),
            }
            if this.held.is_empty() {
                // The usual case: whole requests, judged where they lie.
                match this.framing.accept(&buf.filled()[before..]) {
                    Verdict::Pass(n) if before + n == buf.filled().len() => return Poll::Ready(Ok(())),
                    Verdict::Pass(n) => {
                        this.held.extend_from_slice(&buf.filled()[before + n..]);
                        buf.set_filled(before + n);
                        if n > 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    verdict => {
                        let input = buf.filled()[before..].to_vec();
                        buf.set_filled(before);
                        this.stop(verdict, input);
                    }
                }
            } else {
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                match this.framing.accept(&this.held) {
                    Verdict::Pass(0) => {}
                    Verdict::Pass(n) => {
                        let rest = this.held.split_off(n);
                        this.ready = std::mem::replace(&mut this.held, rest);
                        this.timer = None;
                    }
                    verdict => {
                        let input = std::mem::take(&mut this.held);
                        this.stop(verdict, input);
                    }
                }
            }
        }
    }
}

impl<S> Wire<S> {
    fn stop(&mut self, verdict: Verdict, mut input: Vec<u8>) {
        self.timer = None;
        self.state = State::Oversized;
        if let Verdict::Refuse(good) = verdict {
            // hyper answers 400 to a NUL wherever it stands: in a head, a chunk size or a trailer.
            self.refused.clone_from(&input);
            input.truncate(good);
            input.extend_from_slice(b"\0\r\n\r\n");
            self.state = State::Refused;
        }
        self.ready = input;
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, data);
        this.watch_write(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, data);
        this.watch_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
