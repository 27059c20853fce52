//! How long an idle model stays loaded. Rules: Ollama contract 4.4, LM Studio contract 3.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// How long a model stays loaded after its last request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Unload after this much idle time. Zero: as soon as the last request ends.
    For(Duration),
    /// Never unload because of idleness.
    Forever,
}

/// Why a duration text was refused; the message is the one Ollama sends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not a duration at all.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The whole text.
        text: String,
    },
}

impl KeepAlive {
    /// Whole or fractional seconds; negative means forever (Ollama contract 4.4).
    pub fn from_seconds(seconds: f64) -> Self {
        if seconds < 0.0 {
            return Self::Forever;
        }
        Duration::try_from_secs_f64(seconds).map_or(Self::Forever, Self::For)
    }

    /// A Go duration such as `5m`, `1.5h` or `-1m` (negative: forever).
    ///
    /// # Errors
    /// A [`DurationError`] with Ollama's wording.
    pub fn parse_go(text: &str) -> Result<Self, DurationError> {
        parse_go_duration(text).map(|(negative, d)| if negative { Self::Forever } else { Self::For(d) })
    }

    /// True when the model should go as soon as it is idle.
    pub fn is_zero(self) -> bool {
        self == Self::For(Duration::ZERO)
    }
}

/// Parses a Go duration into (is negative, magnitude). Units: ns, us, µs, ms, s, m, h.
///
/// # Errors
/// A [`DurationError`] worded as Go does.
pub fn parse_go_duration(text: &str) -> Result<(bool, Duration), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok((false, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = &rest[..unit_len];
        let scale = match unit {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => {
                return Err(DurationError::UnknownUnit {
                    unit: unit.to_owned(),
                    text: text.to_owned(),
                });
            }
        };
        seconds += number * scale;
        rest = &rest[unit_len..];
    }
    let magnitude = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    // Go counts nanoseconds in 64 bits with a sign: some 292 years.
    if magnitude.as_nanos() > i64::MAX.unsigned_abs().into() {
        return Err(invalid());
    }
    Ok((negative && !magnitude.is_zero(), magnitude))
}

/// Writes a duration as Go does: `5m0s`, `1h0m0s`, `300ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let total = duration.as_secs();
    if duration.is_zero() {
        return "0s".into();
    }
    if total == 0 {
        return format!("{}ms", duration.as_secs_f64() * 1e3);
    }
    let (hours, minutes) = (total / 3600, total % 3600 / 60);
    let seconds = (total % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

impl Serialize for KeepAlive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Forever => serializer.serialize_i64(-1),
            Self::For(d) => serializer.serialize_str(&format_go_duration(*d)),
        }
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = KeepAlive;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("seconds or a duration such as \"5m\"; negative means forever")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<KeepAlive, E> {
                Ok(KeepAlive::from_seconds(v as f64))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<KeepAlive, E> {
                Ok(KeepAlive::from_seconds(v as f64))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<KeepAlive, E> {
                Ok(KeepAlive::from_seconds(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<KeepAlive, E> {
                KeepAlive::parse_go(v).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let ok = |text: &str, expected: Duration| assert_eq!(KeepAlive::parse_go(text), Ok(KeepAlive::For(expected)));
        ok("300ms", Duration::from_millis(300));
        ok("1.5h", Duration::from_mins(90));
        ok("2h45m", Duration::from_mins(165));
        ok("0", Duration::ZERO);
        ok("0s", Duration::ZERO);
        ok("5m0s", Duration::from_mins(5));
        assert_eq!(KeepAlive::parse_go("-1m"), Ok(KeepAlive::Forever));
        assert_eq!(
            KeepAlive::parse_go("10").unwrap_err().to_string(),
            "time: missing unit in duration \"10\""
        );
        assert_eq!(
            KeepAlive::parse_go("abc").unwrap_err().to_string(),
            "time: invalid duration \"abc\""
        );
        assert_eq!(
            KeepAlive::parse_go("").unwrap_err().to_string(),
            "time: invalid duration \"\""
        );
        ok("2562047h", Duration::from_hours(2_562_047));
        for endless in ["2562048h", "9999999999h", "-2562048h", "1000000000000h"] {
            assert!(KeepAlive::parse_go(endless).is_err(), "{endless}");
        }
    }

    #[test]
    fn formats_as_go() {
        assert_eq!(format_go_duration(Duration::from_mins(5)), "5m0s");
        assert_eq!(format_go_duration(Duration::from_hours(1)), "1h0m0s");
        assert_eq!(format_go_duration(Duration::from_millis(1500)), "1.5s");
    }
}
