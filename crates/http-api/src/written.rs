//! Bodies that a future writes: answers that begin before the engine has said anything and whose parts come from several
//! places (load progress, prompt progress, the answer itself), and lines that a piece of work tells while it goes on.
//!
//! The future runs only while the body is read: a client that reads slowly slows it down, and one that leaves ends it, with
//! everything it holds (promise H1).

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

/// Where the future writes to. What it writes goes out before it runs on, so that the channel needs no bound.
#[derive(Clone)]
pub(crate) struct Writer(UnboundedSender<Bytes>);

impl Writer {
    /// Sends what has been collected, if anything.
    pub(crate) fn send(&self, out: &mut Vec<u8>) {
        if !out.is_empty() {
            // Fails when the client has left; then the future is about to be dropped.
            let _ = self.0.send(std::mem::take(out).into());
        }
    }

    /// Sends what `write` writes, if anything.
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut line = Vec::new();
        write(&mut line);
        self.send(&mut line);
    }
}

type Work = BoxFuture<'static, Result<(), RunnerError>>;

/// Writes a failure that comes after the head of the answer.
type Failed = fn(&RunnerError, &mut Vec<u8>);

/// A body written by a future.
pub(crate) fn written<F>(write: impl FnOnce(Writer) -> F) -> Written
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, pieces) = unbounded_channel();
    let work = write(Writer(sender));
    Written {
        work: Some(Box::pin(async {
            work.await;
            Ok(())
        })),
        pieces,
        failure: None,
        first: None,
        failed: |_, _| (),
    }
}

/// An answer written by work that may fail. Waits for its first line, so that a failure before it is still a status; a later
/// one is told by `failed`.
pub(crate) async fn answer<F>(
    content_type: &'static str,
    failed: Failed,
    work: impl FnOnce(Writer) -> F,
) -> Result<Response<Body>, RunnerError>
where
    F: Future<Output = Result<(), RunnerError>> + Send + 'static,
{
    let (sender, pieces) = unbounded_channel();
    let mut body = Written {
        work: Some(Box::pin(work(Writer(sender)))),
        pieces,
        failure: None,
        first: None,
        failed,
    };
    body.first = std::future::poll_fn(|cx| body.poll_piece(cx)).await.transpose()?;
    Ok(relay::streamed(content_type, body))
}

/// Does the work without telling anybody how it goes.
pub(crate) async fn silently<F>(work: impl FnOnce(Writer) -> F) -> Result<(), RunnerError>
where
    F: Future<Output = Result<(), RunnerError>>,
{
    let (sender, pieces) = unbounded_channel();
    drop(pieces);
    work(Writer(sender)).await
}

/// See [`written`] and [`answer`].
pub(crate) struct Written {
    work: Option<Work>,
    pieces: UnboundedReceiver<Bytes>,
    /// How the work ended, until that is told.
    failure: Option<RunnerError>,
    /// Written before the answer's head went out.
    first: Option<Bytes>,
    failed: Failed,
}

impl Written {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RunnerError>>> {
        // What is written goes out before more is written.
        if self.pieces.is_empty()
            && let Some(work) = &mut self.work
            && let Poll::Ready(ended) = work.as_mut().poll(cx)
        {
            self.work = None;
            self.failure = ended.err();
        }
        match self.pieces.poll_recv(cx) {
            Poll::Ready(Some(piece)) => Poll::Ready(Some(Ok(piece))),
            Poll::Pending if self.work.is_some() => Poll::Pending,
            Poll::Ready(None) | Poll::Pending => Poll::Ready(self.failure.take().map(Err)),
        }
    }
}

impl HttpBody for Written {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        this.poll_piece(cx).map(|piece| {
            let piece = piece?.unwrap_or_else(|error| {
                let mut last = Vec::new();
                (this.failed)(&error, &mut last);
                last.into()
            });
            Some(Ok(Frame::data(piece)))
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_come_as_they_are_written() {
        let mut body = written(|writer| async move {
            writer.send(&mut b"a".to_vec());
            writer.send(&mut Vec::new());
            tokio::task::yield_now().await;
            writer.send(&mut b"b".to_vec());
        });
        for expected in ["a", "b"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        assert!(body.frame().await.is_none());
    }

    fn word(error: &RunnerError, out: &mut Vec<u8>) {
        out.extend_from_slice(error.message.as_bytes());
    }

    #[tokio::test]
    async fn a_failure_is_a_status_until_something_was_written() {
        let early = answer("x", word, |_| async { Err(RunnerError::invalid("early")) }).await;
        assert_eq!(early.map(drop).unwrap_err().message, "early");
        let late = answer("x", word, |writer| async move {
            writer.line(|out| out.push(b'a'));
            Err(RunnerError::invalid("late"))
        });
        let all = late.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(all, "alate");
        let nothing = answer("x", word, |_| async { Ok(()) }).await.unwrap();
        assert!(nothing.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn the_end_of_the_work_is_the_end_of_the_body() {
        let mut kept = None;
        let mut body = written(|writer| {
            kept = Some(writer.clone());
            async move { writer.line(|out| out.push(b'a')) }
        });
        assert!(body.frame().await.is_some());
        assert!(body.frame().await.is_none(), "somebody still has a writer");
        drop(kept);
    }

    #[tokio::test]
    async fn dropping_the_body_drops_the_work() {
        let held = std::sync::Arc::new(());
        let inside = std::sync::Arc::clone(&held);
        let mut body = written(|writer| async move {
            writer.send(&mut b"a".to_vec());
            std::future::pending::<()>().await;
            drop(inside);
        });
        assert!(body.frame().await.is_some());
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
