use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

const CHUNK: usize = 64 * 1024;
/// Time for what was written to leave the socket before the connection is torn down.
const LINGER: Duration = Duration::from_millis(20);
/// Pauses per second of a slow body.
const STEPS: u64 = 20;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Cut,
    Stall,
}

/// A body that may be slow and may end badly.
#[derive(Debug)]
pub(super) struct OriginBody {
    rest: Bytes,
    end: End,
    bytes_per_second: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl OriginBody {
    pub(super) fn complete(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes.into(), End::Complete, None)
    }

    pub(super) fn new(rest: Bytes, end: End, bytes_per_second: Option<u64>) -> Self {
        Self {
            rest,
            end,
            bytes_per_second,
            pause: None,
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
            if self.rest.is_empty() && self.end == End::Cut {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            }
        }
        if self.rest.is_empty() {
            return match self.end {
                End::Complete => Poll::Ready(None),
                End::Stall => Poll::Pending,
                End::Cut => {
                    self.pause = Some(Box::pin(sleep(LINGER)));
                    self.poll_frame(cx)
                }
            };
        }
        let most = match self.bytes_per_second {
            Some(speed) => {
                self.pause = Some(Box::pin(sleep(Duration::from_secs(1) / STEPS as u32)));
                usize::try_from(speed / STEPS).unwrap_or(CHUNK).max(1)
            }
            None => CHUNK,
        };
        let n = most.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.end == End::Complete
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Complete => SizeHint::with_exact(self.rest.len() as u64),
            End::Cut | End::Stall => SizeHint::default(),
        }
    }
}
