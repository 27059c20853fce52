//! A body that a future writes: for answers that begin before the engine has said anything, and whose parts come from
//! several places (load progress, prompt progress, the answer itself).
//!
//! The future runs only while the body is read: a client that reads slowly slows it down, and one that leaves ends it, with
//! everything it holds (promise H1).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use domain::RunnerError;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Where the future writes to.
pub(crate) struct Writer(UnboundedSender<Bytes>);

impl Writer {
    /// Sends what has been collected, if anything.
    pub(crate) fn send(&self, out: &mut Vec<u8>) {
        if !out.is_empty() {
            // Fails when the client has left; then the future is about to be dropped.
            let _ = self.0.send(std::mem::take(out).into());
        }
    }
}

/// A body written by a future.
pub(crate) fn written<F>(write: impl FnOnce(Writer) -> F) -> Written
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, pieces) = unbounded_channel();
    Written {
        work: Some(Box::pin(write(Writer(sender)))),
        pieces,
    }
}

/// See [`written`].
pub(crate) struct Written {
    work: Option<BoxFuture<'static, ()>>,
    pieces: UnboundedReceiver<Bytes>,
}

impl HttpBody for Written {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        let this = self.get_mut();
        // What is written goes out before more is written.
        if this.pieces.is_empty()
            && let Some(work) = &mut this.work
            && work.as_mut().poll(cx).is_ready()
        {
            this.work = None;
        }
        this.pieces
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
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
