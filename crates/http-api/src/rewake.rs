//! Polls a connection again instead of letting it wake itself.
//!
//! hyper hands a request body from the connection to the handler through a channel, though both are one task: taking the
//! body wakes the task that is running. The runtime then puts it back into its queue and wakes a second thread for it, with
//! every request. Here such a wake is only noted, and the connection is polled again at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row before other tasks get their turn.
const IN_A_ROW: usize = 4;

const WAITING: u8 = 0;
const POLLING: u8 = 1;
const RUNG: u8 = 2;

/// What the inner future wakes.
struct Bell {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == WAITING {
            self.task.wake();
        }
    }
}

/// A future whose wakes during its own poll do not leave the task.
pub(crate) struct Rewake<F> {
    inner: F,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future + Unpin> Rewake<F> {
    pub(crate) fn new(inner: F) -> Self {
        let bell = Arc::new(Bell {
            task: AtomicWaker::new(),
            state: AtomicU8::new(WAITING),
        });
        Self {
            inner,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }

    pub(crate) fn inner_mut(&mut self) -> &mut F {
        &mut self.inner
    }
}

impl<F: Future + Unpin> Future for Rewake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        this.bell.task.register(cx.waker());
        for _ in 0..IN_A_ROW {
            this.bell.state.store(POLLING, Ordering::Release);
            let polled = Pin::new(&mut this.inner).poll(&mut Context::from_waker(&this.waker));
            if polled.is_ready() {
                return polled;
            }
            let quiet = this
                .bell
                .state
                .compare_exchange(POLLING, WAITING, Ordering::AcqRel, Ordering::Acquire);
            if quiet.is_ok() {
                return Poll::Pending;
            }
        }
        this.bell.state.store(WAITING, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself in the first `own` polls, then waits; ready with the number of polls once `over`.
    fn waits(own: usize) -> impl Future<Output = usize> + Unpin {
        let mut polls = 0;
        std::future::poll_fn(move |cx| {
            polls += 1;
            if polls <= own {
                cx.waker().wake_by_ref();
            }
            if polls > own + 1 {
                Poll::Ready(polls)
            } else {
                Poll::Pending
            }
        })
    }

    #[test]
    fn own_wakes_stay_inside() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        for (own, woken) in [(0, 0), (1, 0), (IN_A_ROW - 1, 0), (IN_A_ROW, 1)] {
            count.0.store(0, Ordering::SeqCst);
            let mut future = Rewake::new(waits(own));
            assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
            assert_eq!(count.0.load(Ordering::SeqCst), woken, "{own} own wakes");
        }
    }

    #[test]
    fn foreign_wakes_reach_the_task_once() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut future = Rewake::new(waits(1));
        assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
        let bell = future.waker.clone();
        bell.wake_by_ref();
        bell.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut future).poll(&mut cx), Poll::Ready(3));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
        let feeding = tokio::task::spawn_blocking(move || {
            for n in 0..20_000 {
                sender.blocking_send(n).unwrap();
            }
        });
        let reading = Box::pin(async move {
            let mut next = 0;
            while let Some(n) = receiver.recv().await {
                assert_eq!(n, next);
                next += 1;
            }
            next
        });
        let read = tokio::time::timeout(std::time::Duration::from_mins(1), Rewake::new(reading)).await;
        assert_eq!(read.unwrap(), 20_000);
        feeding.await.unwrap();
    }
}
