use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Holds all downloads together to a number of bytes per second.
#[derive(Debug)]
pub(crate) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: Option<u64>,
    /// When everything granted so far has been paid for.
    paid_until: Instant,
}

impl Throttle {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            state: Mutex::new(State {
                limit,
                paid_until: Instant::now(),
            }),
        }
    }

    pub(crate) fn set(&self, limit: Option<u64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.limit = limit;
        state.paid_until = Instant::now();
    }

    /// Waits until these bytes, which have arrived, fit the limit. The origin is slowed by not being read.
    pub(crate) async fn pay(&self, bytes: usize) {
        let until = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(limit) = state.limit else { return };
            let price = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
            // A pause earns nothing: what was not used is gone.
            state.paid_until = state.paid_until.max(Instant::now()) + price;
            state.paid_until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_together_stay_within_the_limit() {
        let throttle = Throttle::new(Some(1000));
        let begin = Instant::now();
        tokio::join!(throttle.pay(1000), throttle.pay(1000), throttle.pay(500));
        assert_eq!(begin.elapsed().as_millis(), 2500);
        throttle.set(None);
        throttle.pay(1 << 30).await;
        assert_eq!(begin.elapsed().as_millis(), 2500);
    }
}
