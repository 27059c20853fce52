use std::collections::VecDeque;
use std::time::Duration;

/// The numbers of promise R5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimits {
    /// First delay; doubles with every failure.
    pub first_delay: Duration,
    /// Longest delay, jitter included.
    pub longest_delay: Duration,
    /// Restarts allowed within `window`.
    pub max_restarts: u32,
    /// The window in which restarts are counted.
    pub window: Duration,
    /// Time in the ready state that clears the count.
    pub healthy_after: Duration,
}

impl Default for RestartLimits {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_mins(1),
            max_restarts: 5,
            window: Duration::from_mins(5),
            healthy_after: Duration::from_mins(10),
        }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// Start again after this long.
    After(Duration),
    /// Stay failed until a manual start (or a request) resets the policy.
    GiveUp,
}

/// Source of jitter: a number from 0 to 1 for each delay.
pub type Jitter = Box<dyn FnMut() -> f64 + Send + Sync>;

/// Decides whether and when a failed child is started again (promise R5). Pure: the time is passed in, as the duration
/// since any fixed moment of the caller's monotonic clock.
///
/// An unexpected exit with code 0 is a failure like any other: call [`RestartPolicy::on_failure`] for it too.
pub struct RestartPolicy {
    limits: RestartLimits,
    jitter: Jitter,
    restarts: VecDeque<Duration>,
    streak: u32,
    ready_since: Option<Duration>,
}

impl std::fmt::Debug for RestartPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestartPolicy")
            .field("restarts", &self.restarts)
            .field("streak", &self.streak)
            .field("ready_since", &self.ready_since)
            .finish_non_exhaustive()
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::new(RestartLimits::default())
    }
}

impl RestartPolicy {
    /// With jitter from the system's random source.
    pub fn new(limits: RestartLimits) -> Self {
        Self::with_jitter(limits, Box::new(random_fraction))
    }

    /// With the given jitter: 0 shortens each delay by a fifth, 1 lengthens it by a fifth, 0.5 leaves it.
    pub fn with_jitter(limits: RestartLimits, jitter: Jitter) -> Self {
        Self {
            limits,
            jitter,
            restarts: VecDeque::new(),
            streak: 0,
            ready_since: None,
        }
    }

    /// The child failed to start or ended unasked. `retryable` is false when the same start would fail again.
    pub fn on_failure(&mut self, now: Duration, retryable: bool) -> RestartDecision {
        if let Some(since) = self.ready_since.take()
            && now.saturating_sub(since) >= self.limits.healthy_after
        {
            self.reset();
        }
        if !retryable {
            return RestartDecision::GiveUp;
        }
        while self
            .restarts
            .front()
            .is_some_and(|&at| now.saturating_sub(at) >= self.limits.window)
        {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.limits.max_restarts as usize {
            return RestartDecision::GiveUp;
        }
        self.restarts.push_back(now);
        let delay = self
            .limits
            .first_delay
            .saturating_mul(1 << self.streak.min(20))
            .min(self.limits.longest_delay);
        self.streak = self.streak.saturating_add(1);
        let factor = 0.8 + 0.4 * (self.jitter)().clamp(0.0, 1.0);
        RestartDecision::After(delay.mul_f64(factor).min(self.limits.longest_delay))
    }

    /// The child became ready.
    pub fn on_ready(&mut self, now: Duration) {
        self.ready_since = Some(now);
    }

    /// A manual start: everything is forgotten.
    pub fn reset(&mut self) {
        self.restarts.clear();
        self.streak = 0;
        self.ready_since = None;
    }
}

fn random_fraction() -> f64 {
    // Without a random source the delays are merely regular.
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> RestartPolicy {
        RestartPolicy::with_jitter(RestartLimits::default(), Box::new(|| 0.5))
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Feeds failures at the given times (virtual seconds) and returns the delays in seconds, `None` for giving up.
    fn delays(policy: &mut RestartPolicy, failures: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
        failures
            .into_iter()
            .map(|at| match policy.on_failure(secs(at), true) {
                RestartDecision::After(delay) => Some(delay.as_secs()),
                RestartDecision::GiveUp => None,
            })
            .collect()
    }

    #[test]
    fn a_child_dying_at_once_gets_the_exact_sequence_then_none() {
        let mut policy = policy();
        let mut now = Duration::ZERO;
        let mut seen = Vec::new();
        while let RestartDecision::After(delay) = policy.on_failure(now, true) {
            seen.push(delay.as_secs());
            now += delay;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16]);
        assert_eq!(policy.on_failure(now + secs(1), true), RestartDecision::GiveUp);
    }

    #[test]
    fn slow_failures_reach_the_longest_delay_and_never_give_up() {
        let seen = delays(&mut policy(), (0..9).map(|n| n * 100));
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Some));
    }

    #[test]
    fn eleven_minutes_of_ready_forget_nine_do_not() {
        for (ready_for, expected) in [(660, Some(1)), (600, Some(1)), (540, Some(4))] {
            let mut policy = policy();
            assert_eq!(delays(&mut policy, [0, 1]), [Some(1), Some(2)]);
            policy.on_ready(secs(10));
            assert_eq!(
                delays(&mut policy, [10 + ready_for]),
                [expected],
                "ready for {ready_for} s"
            );
        }
    }

    #[test]
    fn long_ready_long_ago_counts_once() {
        let mut policy = policy();
        policy.on_ready(secs(0));
        assert_eq!(delays(&mut policy, [700, 701, 702]), [Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn a_manual_start_after_giving_up_begins_anew() {
        let mut policy = policy();
        assert_eq!(
            delays(&mut policy, [0, 1, 2, 3, 4, 5]),
            [Some(1), Some(2), Some(4), Some(8), Some(16), None]
        );
        policy.reset();
        assert_eq!(delays(&mut policy, [6]), [Some(1)]);
    }

    #[test]
    fn a_deterministic_failure_is_not_retried() {
        assert_eq!(policy().on_failure(secs(0), false), RestartDecision::GiveUp);
    }

    proptest! {
        #[test]
        fn never_more_than_five_in_five_minutes_nor_longer_than_a_minute(
            gaps in proptest::collection::vec(0_u64..200, 1..60), jitter in 0.0_f64..=1.0
        ) {
            let mut policy = RestartPolicy::with_jitter(RestartLimits::default(), Box::new(move || jitter));
            let (mut now, mut restarts) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if let RestartDecision::After(delay) = policy.on_failure(secs(now), true) {
                    prop_assert!(delay >= Duration::from_millis(800) && delay <= secs(60));
                    restarts.push(now);
                }
            }
            for window in restarts.windows(6) {
                prop_assert!(window[5] - window[0] >= 300, "{restarts:?}");
            }
        }
    }
}
