//! Bodies: what goes out with its accounting, and the collection of what comes in.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::{ErrorKind, RunnerError};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::listener::ConnectionLimits;
use crate::settle::Settle;
use crate::waiting::Silence;

/// A streamed answer.
pub(crate) type Streamed = Pin<Box<dyn HttpBody<Data = Bytes, Error = RunnerError> + Send>>;

enum Content {
    Full(Bytes),
    Streamed(Streamed),
}

/// The body of every answer. An error ends the connection: the client sees a cut answer, never a complete one.
pub(crate) struct Body {
    content: Content,
    settle: Option<Box<Settle>>,
    silence: Option<Box<Silence>>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Full(bytes.into()),
            settle: None,
            silence: None,
        }
    }

    pub(crate) fn streamed(body: impl HttpBody<Data = Bytes, Error = RunnerError> + Send + 'static) -> Self {
        Self {
            content: Content::Streamed(Box::pin(body)),
            settle: None,
            silence: None,
        }
    }

    /// Breaks long silences of a stream.
    pub(crate) fn keep_alive(&mut self, silence: Silence) {
        self.silence = Some(Box::new(silence));
    }

    /// Attaches what happens when the answer has been sent or dropped.
    pub(crate) fn settled_by(mut self, mut settle: Box<Settle>) -> Self {
        // hyper never polls a body that is empty, nor one that answers HEAD.
        if self.is_end_stream() || settle.method == http::Method::HEAD {
            settle.complete();
        }
        self.settle = Some(settle);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        let this = self.get_mut();
        let mut polled = match &mut this.content {
            Content::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Streamed(body) => body.as_mut().poll_frame(cx),
        };
        if let Some(silence) = &mut this.silence {
            match &polled {
                Poll::Pending => {
                    polled = silence.poll(cx).map(|bytes| Some(Ok(Frame::data(bytes))));
                }
                Poll::Ready(Some(Ok(frame))) => silence.heard(frame.data_ref().map_or(&[], Bytes::as_ref)),
                Poll::Ready(_) => {}
            }
        }
        // A body that says it is at its end is not polled again.
        let ended = matches!(polled, Poll::Ready(Some(Ok(_)))) && this.is_end_stream();
        if let Some(settle) = &mut this.settle {
            match &polled {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(frame))) => settle.sent(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(Some(Err(_))) => settle.broken(),
                Poll::Ready(None) => settle.complete(),
            }
            if ended {
                settle.complete();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_empty(),
            Content::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}

/// A request body as it comes, with a minimum average rate (promise H5).
pub(crate) struct Pieces {
    body: Incoming,
    started: Instant,
    received: u64,
    grace: Duration,
    min_rate: u64,
}

impl Pieces {
    pub(crate) fn of(body: Incoming, limits: &ConnectionLimits) -> Self {
        Self {
            body,
            started: Instant::now(),
            received: 0,
            grace: limits.body_grace,
            min_rate: limits.body_min_rate.max(1),
        }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RunnerError> {
        loop {
            let earned = Duration::from_secs_f64(self.received as f64 / self.min_rate as f64);
            let frame = timeout_at(self.started + self.grace + earned, self.body.frame())
                .await
                .map_err(|_| RunnerError::invalid("The request body came too slowly.").code("request_timeout"))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| RunnerError::invalid("The request body is incomplete or malformed."))?;
            if let Ok(data) = frame.into_data() {
                self.received += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }
}

/// Reads a request body of at most `max` bytes that keeps a minimum average rate (promises H5, H6).
pub(crate) async fn collect(body: Incoming, max: usize, limits: &ConnectionLimits) -> Result<Bytes, RunnerError> {
    let announced = body.size_hint().lower();
    if announced > max as u64 {
        return Err(too_large(max));
    }
    let mut pieces = Pieces::of(body, limits);
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(data) = pieces.next().await? {
        let received = pieces.received as usize;
        if received > max {
            return Err(too_large(max));
        }
        if first.is_empty() {
            first = data; // Most bodies come in one piece and are not copied.
        } else {
            if joined.is_empty() {
                joined.reserve(received.max(announced as usize));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

pub(crate) fn too_large(max: usize) -> RunnerError {
    RunnerError::new(
        ErrorKind::TooLarge,
        format!(
            "The request body is larger than {} MB. The limit is limits.json_body_mb in the configuration.",
            max >> 20
        ),
    )
}
