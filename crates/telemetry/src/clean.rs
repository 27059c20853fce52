use std::fmt::Write as _;

/// Longest log line kept; the rest is cut (promise O3).
pub const MAX_LINE_BYTES: usize = 16 * 1024;

const CUT: &str = " …[cut]";

/// Makes one line of foreign output harmless (promise O3): valid UTF-8, no line end, control characters, ANSI escapes
/// and direction overrides shown as `\x1b` or `\u{202e}`, at most [`MAX_LINE_BYTES`] long. Tabs stay.
pub fn clean_line(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    let line = &bytes[..end];
    let keep = MAX_LINE_BYTES - CUT.len();
    if line.len() <= keep && line.iter().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
        return line.iter().map(|&b| char::from(b)).collect();
    }
    // Four bytes more than can be kept: a character that straddles the cut must not be taken for a broken one.
    let text = String::from_utf8_lossy(&line[..line.len().min(MAX_LINE_BYTES + 4)]);
    let mut clean = String::with_capacity(text.len().min(MAX_LINE_BYTES));
    for c in text.chars() {
        let before = clean.len();
        push_clean(&mut clean, c);
        if clean.len() > keep {
            clean.truncate(before);
            clean.push_str(CUT);
            return clean;
        }
    }
    clean
}

fn push_clean(clean: &mut String, c: char) {
    match c {
        '\t' => clean.push(c),
        // Writing to a String cannot fail.
        c if c.is_ascii_control() => drop(write!(clean, "\\x{:02x}", u32::from(c))),
        c if c.is_control() || redirects(c) => drop(write!(clean, "\\u{{{:x}}}", u32::from(c))),
        c => clean.push(c),
    }
}

/// Characters that let a line pretend to be another one: line separators, direction overrides, invisible marks.
fn redirects(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        for (input, expected) in [
            (&b"plain text\r\n"[..], "plain text"),
            (b"", ""),
            (b"\n", ""),
            (b"a\tb", "a\tb"),
            (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
            (b"one\nERROR forged", "one\\x0aERROR forged"),
            (b"bell\x07 nul\0 del\x7f", "bell\\x07 nul\\x00 del\\x7f"),
            ("grün 東京 🦙".as_bytes(), "grün 東京 🦙"),
            ("csi \u{9b}31m".as_bytes(), "csi \\u{9b}31m"),
            ("evil\u{202e}txt.exe".as_bytes(), "evil\\u{202e}txt.exe"),
            (b"bad \xff utf8", "bad \u{fffd} utf8"),
        ] {
            assert_eq!(clean_line(input), expected, "{input:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        for piece in ["x", "ü", "🦙", "\x1b"] {
            let cut = clean_line(piece.repeat(40_000).as_bytes());
            assert!(
                cut.len() <= MAX_LINE_BYTES && cut.len() > MAX_LINE_BYTES - 20,
                "{} {}",
                piece,
                cut.len()
            );
            assert!(cut.ends_with(CUT) && !cut.contains('\u{fffd}'), "{piece:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_bytes_become_one_bounded_printable_line(bytes in proptest::collection::vec(any::<u8>(), 0..40_000)) {
            let line = clean_line(&bytes);
            prop_assert!(line.len() <= MAX_LINE_BYTES);
            prop_assert!(!line.chars().any(|c| (c.is_control() && c != '\t') || redirects(c)));
        }
    }
}
