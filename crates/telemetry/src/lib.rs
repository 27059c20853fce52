//! What the app tells about itself: the event bus, log rings, rotated log files and the tracing set-up.
//!
//! Must not know: models, engines, HTTP. Nothing here ever blocks or fails the caller because a disk is full or a
//! reader is slow (promise O3): lines are dropped and counted instead.
//!
//! ```
//! use domain::EventKind;
//! let bus = telemetry::EventBus::new();
//! let mut events = bus.subscribe();
//! bus.publish(EventKind::ShuttingDown);
//! assert_eq!(events.try_recv().unwrap().seq, 1);
//! ```

mod bus;
mod clean;
mod ring;
mod rotate;
mod sink;
mod tracing_layer;

pub use bus::EventBus;
pub use clean::{MAX_LINE_BYTES, clean_line};
pub use ring::LogRing;
pub use rotate::{RotatingFile, prune_logs};
pub use sink::{LineSink, LogWriter};
pub use tracing_layer::{TelemetryError, TracingSettings, app_log, flush_logs, init_tracing};

/// The wall clock in Unix milliseconds; 0 if the clock stands before 1970.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A log line as files and terminals show it: `2026-11-20T23:57:24.123Z WARN  text`, without a line end.
pub fn log_text(line: &domain::LogLine) -> String {
    let level = match line.level {
        domain::Level::Debug => "DEBUG",
        domain::Level::Info => "INFO",
        domain::Level::Warn => "WARN",
        domain::Level::Error => "ERROR",
    };
    let at = jiff::Timestamp::from_millisecond(line.at_ms).unwrap_or_default();
    format!("{at:.3} {level:5} {}", line.text)
}

#[cfg(test)]
mod tests {
    use domain::{Level, LogLine};

    #[test]
    fn log_text_is_dated() {
        let line = LogLine {
            at_ms: 1_795_218_594_007,
            level: Level::Warn,
            text: "slow".to_owned(),
        };
        assert_eq!(super::log_text(&line), "2026-11-20T23:49:54.007Z WARN  slow");
        assert!(super::now_ms() > 1_700_000_000_000);
    }
}
