use std::time::Duration;

use tokio::time::Instant;

/// Time constant of the shown speed: an older sample counts for less.
const SMOOTH: f64 = 3.0;
/// Shortest time that is measured: bytes come in blocks.
const SAMPLE: Duration = Duration::from_millis(400);

/// Turns a rising number of bytes into a speed that does not jump.
#[derive(Debug)]
pub(super) struct Meter {
    at: Instant,
    bytes: u64,
    speed: Option<f64>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            at: Instant::now(),
            bytes: 0,
            speed: None,
        }
    }

    /// Bytes per second now.
    pub(super) fn update(&mut self, bytes: u64) -> u64 {
        let spent = self.at.elapsed();
        if spent >= SAMPLE {
            let seconds = spent.as_secs_f64();
            let now = bytes.saturating_sub(self.bytes) as f64 / seconds;
            let weight = 1.0 - (-seconds / SMOOTH).exp();
            self.speed = match self.speed {
                Some(old) => Some(old + weight * (now - old)),
                // The wait for the first byte is no speed.
                None => (now > 0.0).then_some(now),
            };
            self.at += spent;
            self.bytes = bytes;
        }
        self.speed.unwrap_or(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_speed_follows_without_jumping() {
        let mut meter = Meter::new();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(meter.update(0), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(meter.update(1000), 1000, "the wait before does not count");
        tokio::time::advance(Duration::from_secs(1)).await;
        let slower = meter.update(1000);
        assert!((500..1000).contains(&slower), "{slower}");
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!(meter.update(1000), 0);
    }
}
