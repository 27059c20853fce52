//! Answers made of lines that a piece of work tells while it goes on. The work belongs to the body: when the client leaves, it is
//! dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use domain::RunnerError;
use futures_util::future::BoxFuture;
use http::Response;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::body::Body;
use crate::relay;

/// Where work tells its lines. They are few (progress, some per second), so that the channel needs no bound.
#[derive(Clone)]
pub(crate) struct Tell(UnboundedSender<Vec<u8>>);

impl Tell {
    /// Tells what `write` writes, if anything.
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut line = Vec::new();
        write(&mut line);
        if !line.is_empty() {
            // Fails when the client has left; then the work is about to be dropped.
            let _ = self.0.send(line);
        }
    }
}

type Work = BoxFuture<'static, Result<(), RunnerError>>;

struct Lines {
    work: Option<Work>,
    told: UnboundedReceiver<Vec<u8>>,
    failed: fn(&RunnerError, &mut Vec<u8>),
    /// Told before the answer's head went out.
    first: Vec<u8>,
}

/// Starts the work and waits for its first line, so that a failure before it is still a status. A later one is told by
/// `failed`.
pub(crate) async fn answer<F>(
    content_type: &'static str,
    failed: fn(&RunnerError, &mut Vec<u8>),
    work: impl FnOnce(Tell) -> F,
) -> Result<Response<Body>, RunnerError>
where
    F: Future<Output = Result<(), RunnerError>> + Send + 'static,
{
    let (sender, told) = unbounded_channel();
    let mut lines = Lines {
        work: Some(Box::pin(work(Tell(sender)))),
        told,
        failed,
        first: Vec::new(),
    };
    lines.first = match std::future::poll_fn(|cx| lines.poll_lines(cx)).await {
        Some(first) => first?,
        None => Vec::new(),
    };
    Ok(relay::streamed(content_type, lines))
}

/// Does the work without telling anybody how it goes.
pub(crate) async fn silently<F>(work: impl FnOnce(Tell) -> F) -> Result<(), RunnerError>
where
    F: Future<Output = Result<(), RunnerError>>,
{
    let (sender, told) = unbounded_channel();
    drop(told);
    work(Tell(sender)).await
}

impl Lines {
    /// The next lines; `None` at the end.
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, RunnerError>>> {
        let ended = match &mut self.work {
            None => None,
            Some(work) => match work.as_mut().poll(cx) {
                Poll::Pending => None,
                Poll::Ready(result) => Some(result),
            },
        };
        let mut lines = Vec::new();
        while let Ok(mut line) = self.told.try_recv() {
            lines.append(&mut line);
        }
        match ended {
            None if !lines.is_empty() => Poll::Ready(Some(Ok(lines))),
            None if self.work.is_none() => Poll::Ready(None),
            // Registers for the next line; the work registered itself.
            None => match self.told.poll_recv(cx) {
                Poll::Ready(Some(line)) => Poll::Ready(Some(Ok(line))),
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            },
            Some(result) => {
                self.work = None;
                match result {
                    Ok(()) if lines.is_empty() => Poll::Ready(None),
                    Ok(()) => Poll::Ready(Some(Ok(lines))),
                    Err(error) if lines.is_empty() => Poll::Ready(Some(Err(error))),
                    Err(error) => {
                        (self.failed)(&error, &mut lines);
                        Poll::Ready(Some(Ok(lines)))
                    }
                }
            }
        }
    }
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first).into()))));
        }
        this.poll_lines(cx).map(|lines| {
            let lines = lines?.unwrap_or_else(|error| {
                let mut last = Vec::new();
                (this.failed)(&error, &mut last);
                last
            });
            Some(Ok(Frame::data(lines.into())))
        })
    }
}
