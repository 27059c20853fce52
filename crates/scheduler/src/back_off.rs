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

/// Restart rule of promise R5: 1 s doubling to 60 s with jitter, at most 5 restarts in 5 minutes, cleared by a manual start or
/// by 10 minutes without a failure from being ready on; an engine that is unloaded meanwhile because nobody asks is no less
/// healthy. A failure that would repeat itself is not retried.
#[derive(Debug, Clone, Default)]
pub struct BackOff {
    /// Within the window.
    failures: VecDeque<Duration>,
    /// Retries since the last health; decides the delay.
    streak: u32,
    /// First time of being ready since the last failure.
    ready_since: Option<Duration>,
}

impl BackOff {
    const MAX_RESTARTS: usize = 5;
    const WINDOW: Duration = Duration::from_mins(5);
    const HEALTHY: Duration = Duration::from_mins(10);
    const LONGEST: Duration = Duration::from_mins(1);

    /// The engine is ready.
    pub fn on_ready(&mut self, now: Duration) {
        self.ready_since.get_or_insert(now);
    }

    /// A start failed or a running engine died. `jitter` is 0 to 1 and adds up to a tenth.
    pub fn on_failure(&mut self, now: Duration, retryable: bool, jitter: f64) -> Decision {
        if self
            .ready_since
            .take()
            .is_some_and(|since| now.saturating_sub(since) >= Self::HEALTHY)
        {
            self.reset();
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
        let delay = Duration::from_secs(1 << self.streak.min(20)).min(Self::LONGEST);
        self.streak = self.streak.saturating_add(1);
        Decision::After(delay.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0).min(Self::LONGEST))
    }

    /// A person asked for a start: forget the past.
    pub fn reset(&mut self) {
        self.failures.clear();
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn slow_failures_reach_the_longest_delay_and_never_give_up() {
        let mut back_off = BackOff::default();
        let decisions: Vec<_> = (0..9).map(|i| back_off.on_failure(secs(i * 100), true, 0.0)).collect();
        assert_eq!(
            decisions,
            [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|s| Decision::After(secs(s)))
        );
    }

    #[test]
    fn ten_minutes_of_ready_forget_nine_do_not() {
        for (ready_for, expected) in [(660, 1), (600, 1), (540, 4)] {
            let mut back_off = BackOff::default();
            back_off.on_failure(secs(0), true, 0.0);
            back_off.on_failure(secs(1), true, 0.0);
            back_off.on_ready(secs(10));
            let decision = back_off.on_failure(secs(10 + ready_for), true, 0.0);
            assert_eq!(decision, Decision::After(secs(expected)), "ready for {ready_for} s");
            // The same health counts once.
            let next = back_off.on_failure(secs(11 + ready_for), true, 0.0);
            assert_eq!(next, Decision::After(secs(expected * 2)));
        }
    }

    #[test]
    fn an_engine_that_is_unloaded_now_and_then_is_healthy_too() {
        let mut back_off = BackOff::default();
        for second in 0..3 {
            back_off.on_failure(secs(second), true, 0.0);
        }
        for minute in 0..11 {
            back_off.on_ready(secs(10 + minute * 60));
        }
        assert_eq!(back_off.on_failure(secs(620), true, 0.0), Decision::After(secs(1)));
        back_off.on_ready(secs(630));
        back_off.on_ready(secs(1210));
        assert_eq!(back_off.on_failure(secs(1220), true, 0.0), Decision::After(secs(2)));
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

    proptest! {
        #[test]
        fn never_more_than_five_in_five_minutes_nor_longer_than_a_minute(
            gaps in proptest::collection::vec(0_u64..200, 1..60), jitter in 0.0_f64..=1.0
        ) {
            let mut back_off = BackOff::default();
            let (mut now, mut restarts) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if let Decision::After(delay) = back_off.on_failure(secs(now), true, jitter) {
                    prop_assert!(delay >= secs(1) && delay <= secs(60));
                    restarts.push(now);
                }
            }
            for window in restarts.windows(6) {
                prop_assert!(window[5] - window[0] >= 300, "{restarts:?}");
            }
        }
    }
}
