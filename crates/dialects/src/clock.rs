use std::sync::Arc;

/// Wall clock in Unix nanoseconds, passed in so that this crate stays pure and tests are exact.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

const SECOND: i64 = 1_000_000_000;

/// RFC 3339 in UTC with nine fractional digits, as Ollama writes `created_at`.
pub fn rfc3339(unix_ns: i64) -> String {
    let mut out = Vec::with_capacity(30);
    write_rfc3339(unix_ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 3339 in UTC without a fraction.
pub fn rfc3339_seconds(unix_s: i64) -> String {
    let mut out = Vec::with_capacity(30);
    write_date_time(unix_s, &mut out);
    out.push(b'Z');
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 3339 in UTC with three fractional digits, as LM Studio writes times.
pub(crate) fn rfc3339_millis(unix_ms: i64) -> String {
    let mut out = Vec::with_capacity(24);
    write_date_time(unix_ms.div_euclid(1000), &mut out);
    out.extend_from_slice(format!(".{:03}Z", unix_ms.rem_euclid(1000)).as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends [`rfc3339`] without allocating.
pub(crate) fn write_rfc3339(unix_ns: i64, out: &mut Vec<u8>) {
    write_date_time(unix_ns.div_euclid(SECOND), out);
    let mut fraction = unix_ns.rem_euclid(SECOND);
    let mut digits = *b".000000000Z";
    for digit in digits[1..10].iter_mut().rev() {
        *digit = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    out.extend_from_slice(&digits);
}

fn write_date_time(unix_s: i64, out: &mut Vec<u8>) {
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Howard Hinnant's civil-from-days: exact for the whole proleptic Gregorian calendar.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // By hand: this runs for every line of a stream, and the format machinery costs more than the calendar.
    let two = |number: i64| [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
    let (century, year_of_century) = (year.rem_euclid(10_000) / 100, year.rem_euclid(100));
    let mut text = *b"0000-00-00T00:00:00";
    for (at, number) in [
        (0, century),
        (2, year_of_century),
        (5, month),
        (8, day),
        (11, second / 3600),
        (14, second % 3600 / 60),
        (17, second % 60),
    ] {
        text[at..at + 2].copy_from_slice(&two(number));
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_795_218_324_123_456_789), "2026-11-20T23:45:24.123456789Z");
        assert_eq!(rfc3339_seconds(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn agrees_with_jiff() {
        for day in (-200_000i64..400_000).step_by(97) {
            let second = day * 86_400 + 12_345;
            let expected = jiff::Timestamp::from_second(second).unwrap().to_string();
            assert_eq!(rfc3339_seconds(second), expected);
        }
    }
}
