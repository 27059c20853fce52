use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::{ErrorKind, RunnerError};
use http_body::{Body, Frame, SizeHint};

use super::connection::MAX_READ;
use super::{Connection, Framing};
use crate::Lease;

/// The engine's answer. Each frame holds everything that was there, up to 32 KiB; it never waits for more. Holds the
/// lease and the connection: dropping it closes the connection, which stops the engine's work (promise H1).
///
/// When the engine dies in mid-answer the last item is an error that says why (promise H3).
#[must_use = "dropping the body stops the request"]
pub struct UpstreamBody {
    flow: Flow,
    /// Whom to tell when the first byte came.
    first_byte: Option<(Instant, Arc<OnceLock<Duration>>)>,
}

enum Flow {
    Open(Open),
    /// Finding out why the engine broke off.
    Failing(Pin<Box<dyn Future<Output = RunnerError> + Send>>),
    Done,
}

struct Open {
    connection: Connection,
    framing: Framing,
    keep: bool,
    lease: Lease,
}

type Polled = Poll<Option<Result<Frame<Bytes>, RunnerError>>>;

impl UpstreamBody {
    pub(crate) fn new(connection: Connection, framing: Framing, keep: bool, lease: Lease) -> Self {
        let open = Open {
            connection,
            framing,
            keep,
            lease,
        };
        if matches!(open.framing, Framing::Length(0)) {
            open.finish();
            return Self::with(Flow::Done);
        }
        Self::with(Flow::Open(open))
    }

    fn with(flow: Flow) -> Self {
        Self { flow, first_byte: None }
    }

    /// Puts the time from `since` to the first byte into `cell`, unless it holds one already.
    pub fn tell_first_byte(&mut self, since: Instant, cell: Arc<OnceLock<Duration>>) {
        self.first_byte = Some((since, cell));
    }

    /// The whole body.
    ///
    /// # Errors
    /// When the engine broke off, or the body is larger than `limit` bytes.
    pub async fn collect_bytes(mut self, limit: usize) -> Result<Bytes, RunnerError> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if first.len() + all.len() + data.len() > limit {
                return Err(RunnerError::new(
                    ErrorKind::EngineFailed,
                    "The engine's answer is too large.",
                ));
            }
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// As [`Self::collect_bytes`], and when it is not JSON.
    pub async fn collect_json(self, limit: usize) -> Result<serde_json::Value, RunnerError> {
        let bytes = self.collect_bytes(limit).await?;
        serde_json::from_slice(&bytes)
            .map_err(|_| RunnerError::new(ErrorKind::EngineFailed, "The engine's answer is not JSON."))
    }
}

impl Open {
    /// The answer is complete: the connection can serve another request, the slot is free.
    fn finish(self) {
        if self.keep && self.connection.read.is_empty() {
            self.lease.give_back(self.connection);
        }
    }

    /// Everything that is there now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        loop {
            let mut closed = false;
            // A short answer came with its head: there is nothing to ask the socket for.
            let whole = matches!(self.framing, Framing::Length(left) if left <= self.connection.read.len() as u64);
            while !whole && self.connection.read.len() < MAX_READ {
                let room = self.connection.read.len();
                match self.connection.poll_read(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => closed = true,
                    // A read that did not fill the buffer took all there was.
                    Poll::Ready(Ok(_)) if self.connection.read.capacity() - self.connection.read.len() > 0 => {}
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending if room == 0 => return Poll::Pending,
                    Poll::Pending => {}
                }
                break;
            }
            let Ok((data, complete)) = self.framing.take(&mut self.connection.read) else {
                return Poll::Ready(Piece {
                    data: Bytes::new(),
                    next: Next::Broken,
                });
            };
            if self.connection.read.is_empty() {
                // Gives the memory to the piece; nothing is held while the engine is silent.
                self.connection.read = BytesMut::new();
            }
            let next = match (complete, closed) {
                (true, _) => Next::Complete,
                (false, true) if matches!(self.framing, Framing::UntilClose) => Next::Complete,
                (false, true) => Next::Broken,
                (false, false) => Next::More,
            };
            if !data.is_empty() || !matches!(next, Next::More) {
                return Poll::Ready(Piece { data, next });
            }
        }
    }
}

struct Piece {
    data: Bytes,
    next: Next,
}

enum Next {
    More,
    Complete,
    Broken,
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        loop {
            match &mut this.flow {
                Flow::Open(open) => {
                    let Piece { data, next } = ready!(open.poll(cx));
                    if !data.is_empty() {
                        open.lease.mark_progress();
                        if let Some((since, cell)) = this.first_byte.take() {
                            let _ = cell.set(since.elapsed());
                        }
                    }
                    if !matches!(next, Next::More)
                        && let Flow::Open(open) = std::mem::replace(&mut this.flow, Flow::Done)
                    {
                        if matches!(next, Next::Complete) {
                            open.finish();
                        } else {
                            let Open { connection, lease, .. } = open;
                            drop(connection);
                            this.flow = Flow::Failing(Box::pin(lease.why_broken("in the middle of its answer")));
                        }
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Flow::Failing(reason) => {
                    let error = ready!(reason.as_mut().poll(cx));
                    this.flow = Flow::Done;
                    return Poll::Ready(Some(Err(error)));
                }
                Flow::Done => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.flow, Flow::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.flow {
            Flow::Open(Open {
                framing: Framing::Length(left),
                ..
            }) => SizeHint::with_exact(*left),
            Flow::Open(_) | Flow::Failing(_) => SizeHint::default(),
            Flow::Done => SizeHint::with_exact(0),
        }
    }
}
