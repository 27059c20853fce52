//! Long texts in parts that the server takes.

use unicode_segmentation::UnicodeSegmentation as _;

/// Most characters of one request (audio contract 4).
pub(crate) const LONGEST: usize = 4096;

/// Cuts a text where a reader would pause: between paragraphs, else between sentences, else at the end of a line, else
/// between words. Each part holds something to say and at most [`LONGEST`] characters.
pub(crate) fn passages(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while let Some((limit, _)) = rest.char_indices().nth(LONGEST) {
        let (part, after) = rest.split_at(end(rest, limit));
        parts.push(part.trim_end());
        rest = after.trim_start();
    }
    parts.push(rest);
    // The server has nothing to say of such a part.
    parts.retain(|part| !part.chars().all(|c| c.is_whitespace() || c.is_control()));
    parts
}

/// Where the first part of a text ends: behind the first byte, and at `limit` at the latest.
fn end(text: &str, limit: usize) -> usize {
    // With the sign behind it, which may be the blank or line end that a part ends before.
    let window = &text[..text[limit..]
        .chars()
        .next()
        .map_or(limit, |next| limit + next.len_utf8())];
    // Further ahead it would make many short parts.
    let late = |at: &usize| *at > limit / 2;
    let paragraph = || window.rfind("\n\n").max(window.rfind("\n\r\n")).filter(late);
    let sentence = || sentence_end(text, limit).filter(late);
    let line = || window.rfind('\n').filter(late);
    let word = || window.rfind(char::is_whitespace);
    let sign = || text.grapheme_indices(true).map(|(at, _)| at);
    paragraph()
        .or_else(sentence)
        .or_else(line)
        .or_else(word)
        .or_else(|| sign().take_while(|at| *at <= limit).last())
        .filter(|at| *at > 0)
        .unwrap_or(limit)
}

/// The last end of a sentence up to `limit`.
fn sentence_end(text: &str, limit: usize) -> Option<usize> {
    // What comes behind tells whether a sentence ends: a line or two of it will do.
    let ahead = text[limit..]
        .char_indices()
        .nth(200)
        .map_or(text.len(), |(at, _)| limit + at);
    // The ends of wrapped lines are no ends of sentences. The same length, so that places stay the same.
    let flat = text[..ahead].replace(['\n', '\r'], " ");
    flat.split_sentence_bound_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= limit)
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` characters of text without an end of a sentence.
    fn words(count: usize) -> String {
        "word ".repeat(count.div_ceil(5))[..count].to_owned()
    }

    #[test]
    fn cut_where_a_reader_would_pause() {
        assert_eq!(passages("Short. Text."), ["Short. Text."]);
        assert_eq!(passages(&"x".repeat(LONGEST)).len(), 1);
        for (first, between, second) in [
            // The paragraph, although more sentences would fit.
            (format!("{}a.", words(3000)), "\n\n", format!("B. {}", words(3000))),
            (format!("{}a.", words(3000)), "\r\n\r\n", format!("B. {}", words(3000))),
            // The sentence, although a line ends behind it.
            (format!("{}a.", words(3000)), " ", format!("B\n{}", words(3000))),
            (format!("{}好。", words(3000)), "", format!("好\n{}", words(3000))),
            // The line, when no sentence ends.
            (format!("{}a", words(3000)), "\n", format!("b {}", words(3000))),
            // The word.
            (format!("{}a", words(4095)), " ", words(3000)),
            ("x".repeat(LONGEST), "", "x".repeat(10)),
        ] {
            let text = format!("{first}{between}{second}");
            assert_eq!(passages(&text), [first.as_str(), second.trim_end()], "{between:?}");
        }
        // A letter and its accent stay together.
        let accents = format!("x{}", "e\u{301}".repeat(LONGEST));
        assert!(passages(&accents).iter().all(|part| !part.starts_with('\u{301}')));
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_too_long() {
        let sentences: Vec<String> = (0..3000).map(|n| format!("Sentence number {n}.")).collect();
        let paragraphs: Vec<String> = sentences.chunks(7).map(|some| some.join(" ")).collect();
        let all = paragraphs.join("\n");
        let parts = passages(&all);
        assert!(
            parts
                .iter()
                .all(|part| part.chars().count() <= LONGEST && part.ends_with('.'))
        );
        assert!(parts.len() < 20, "{}", parts.len());
        let said: Vec<&str> = parts.iter().flat_map(|part| part.split_whitespace()).collect();
        assert_eq!(said, all.split_whitespace().collect::<Vec<_>>());
    }
}
