use std::collections::VecDeque;
use std::time::Duration;

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again this much later, if somebody still wants it.
    After(Duration),
    /// Say why and wait for the next request.
    GiveUp,
}

/// Restart rule of promise R5: 1 s doubling to 60 s with jitter, at most 5 restarts in 5 minutes, cleared by 10 minutes
/// of being ready or by a manual start. A failure that would repeat itself is not retried.
#[derive(Debug, Clone, Default)]
pub struct BackOff {
    failures: VecDeque<Duration>,
    ready_since: Option<Duration>,
}

impl BackOff {
    const MAX_RESTARTS: usize = 5;
    const WINDOW: Duration = Duration::from_mins(5);
    const HEALTHY: Duration = Duration::from_mins(10);
    const LONGEST: Duration = Duration::from_mins(1);

    /// The engine is ready.
    pub fn on_ready(&mut self, now: Duration) {
        self.ready_since = Some(now);
    }

    /// A start failed or a running engine died. `jitter` is 0 to 1 and adds up to a tenth.
    pub fn on_failure(&mut self, now: Duration, retryable: bool, jitter: f64) -> Decision {
        if self
            .ready_since
            .take()
            .is_some_and(|since| now.saturating_sub(since) >= Self::HEALTHY)
        {
            self.failures.clear();
        }
        while self
            .failures
            .front()
            .is_some_and(|at| now.saturating_sub(*at) > Self::WINDOW)
        {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() > Self::MAX_RESTARTS + 1 {
            self.failures.pop_front();
        }
        if !retryable || self.failures.len() > Self::MAX_RESTARTS {
            return Decision::GiveUp;
        }
        let delay = Duration::from_secs(1 << (self.failures.len() - 1)).min(Self::LONGEST);
        Decision::After(delay.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0))
    }

    /// A person asked for a start: forget the past.
    pub fn reset(&mut self) {
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn doubles_then_gives_up() {
        let mut back_off = BackOff::default();
        let decisions: Vec<_> = (0..6).map(|i| back_off.on_failure(secs(i), true, 0.0)).collect();
        let expected = [1, 2, 4, 8, 16].map(|s| Decision::After(secs(s)));
        assert_eq!(decisions[..5], expected);
        assert_eq!(decisions[5], Decision::GiveUp);
        assert_eq!(back_off.on_failure(secs(20), true, 0.0), Decision::GiveUp);
    }

    #[test]
    fn health_and_manual_start_clear() {
        let mut back_off = BackOff::default();
        for i in 0..6 {
            back_off.on_failure(secs(i), true, 0.0);
        }
        back_off.on_ready(secs(10));
        assert_eq!(back_off.on_failure(secs(10 + 660), true, 0.0), Decision::After(secs(1)));
        back_off.on_failure(secs(671), true, 0.0);
        back_off.reset();
        assert_eq!(back_off.on_failure(secs(672), true, 0.0), Decision::After(secs(1)));
    }

    #[test]
    fn deterministic_failures_are_not_retried() {
        assert_eq!(BackOff::default().on_failure(secs(1), false, 0.0), Decision::GiveUp);
    }

    #[test]
    fn jitter_adds_a_tenth_at_most() {
        assert_eq!(
            BackOff::default().on_failure(secs(1), true, 1.0),
            Decision::After(Duration::from_millis(1100))
        );
    }
}
