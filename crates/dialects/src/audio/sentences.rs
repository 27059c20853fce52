//! Text in pieces that are spoken one after the other, so that the first sound comes early (audio contract 8).
//!
//! Sentences are found by the rules of Unicode (UAX 29), mended where those know no abbreviations, and cut where they are
//! longer than an engine should be silent for.

use unicode_segmentation::UnicodeSegmentation as _;

/// Longest first piece, in widths of a Latin letter: about seven seconds of speech.
const FIRST: usize = 120;
/// Longest further piece: about twenty seconds.
const LONGEST: usize = 320;
/// A piece shorter than this goes along with the next one: a single word sounds cut off alone.
const SHORTEST: usize = 12;

/// Cuts a text into pieces. Nothing but white space and control characters is lost; each piece holds something, and there
/// is none only when the text is blank.
pub fn sentences(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for paragraph in paragraphs(text) {
        let mut rest = paragraph.as_str();
        for sentence in whole_sentences(&paragraph) {
            // Sentences that went along with an earlier one lie before what is left.
            let Some(length) = (sentence.end + rest.len()).checked_sub(paragraph.len()) else {
                continue;
            };
            let (piece, after) = rest.split_at(length);
            let limit = if pieces.is_empty() { FIRST } else { LONGEST };
            let tiny = width(piece) < SHORTEST || !speaks(piece);
            if tiny && !after.is_empty() {
                continue;
            }
            if tiny
                && speaks_nothing_alone(piece)
                && let Some(last) = pieces.last_mut()
            {
                last.push(' ');
                last.push_str(piece.trim());
            } else {
                cut(piece, limit, &mut pieces);
            }
            rest = after;
        }
    }
    pieces
}

/// Signs without a letter or digit: a row of stars between paragraphs.
fn speaks_nothing_alone(piece: &str) -> bool {
    !speaks(piece)
}

fn speaks(piece: &str) -> bool {
    piece.chars().any(char::is_alphanumeric)
}

/// Paragraphs with single blanks inside. A blank line ends one, and so does the line before an item of a list; other line
/// ends are those of wrapped text.
fn paragraphs(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        let mut words = line
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .peekable();
        let begins = words.peek().is_none_or(|word| is_item(word));
        if begins {
            all.push(String::new());
        }
        if let Some(paragraph) = all.last_mut() {
            for word in words {
                if !paragraph.is_empty() {
                    paragraph.push(' ');
                }
                paragraph.push_str(word);
            }
        }
    }
    all.retain(|paragraph| !paragraph.is_empty());
    all
}

/// `-`, `*`, `•`, `1.` or `2)` before an item of a list, or the sign of a heading.
fn is_item(word: &str) -> bool {
    let number = word.trim_end_matches(['.', ')']);
    matches!(word, "-" | "*" | "•" | "–")
        || word.starts_with('#') && word.chars().all(|c| c == '#')
        || number.len() < word.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// Where the sentences of a paragraph lie.
fn whole_sentences(paragraph: &str) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for (start, piece) in paragraph.split_sentence_bound_indices() {
        let end = start + piece.len();
        match found.last_mut() {
            Some(last) if goes_on(&paragraph[last.clone()], piece) => last.end = end,
            _ => found.push(start..end),
        }
    }
    found
}

/// Abbreviations before a name.
const TITLES: [&str; 30] = [
    "Mr", "Mrs", "Ms", "Mx", "Dr", "Prof", "St", "Ste", "Rev", "Gen", "Col", "Sgt", "Capt", "Lt", "Cmdr", "Gov", "Sen",
    "Rep", "Hon", "Mt", "Hr", "Fr", "Mme", "Mlle", "Sr", "Sra", "Srta", "Dra", "Dott", "Ing",
];
/// Abbreviations inside a sentence.
const INSIDE: [&str; 20] = [
    "vs", "approx", "ca", "cf", "e.g", "i.e", "resp", "z.b", "d.h", "u.a", "o.ä", "bzw", "bspw", "geb", "inkl", "evtl",
    "ggf", "vgl", "sog", "p.ej",
];
/// Abbreviations before a number.
const NUMBERED: [&str; 14] = [
    "no", "nr", "núm", "fig", "vol", "p", "pp", "s", "art", "sec", "ch", "abb", "kap", "abs",
];
/// What follows the day in a German date.
const MONTHS: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];

/// Did what the rules took for a sentence end in an abbreviation, an initial or an ordinal number? Or does the next one
/// begin small, as after speech in quotation marks?
fn goes_on(sentence: &str, next: &str) -> bool {
    let Some(begin) = next.chars().find(|c| c.is_alphanumeric()) else {
        return false;
    };
    if begin.is_lowercase() {
        return true;
    }
    let Some(word) = sentence.trim_end().strip_suffix('.') else {
        return false;
    };
    let alone = !word.contains(char::is_whitespace);
    let word = word.rsplit(char::is_whitespace).next().unwrap_or(word);
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    if !word.is_empty() && word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()) {
        return alone || MONTHS.iter().any(|month| next.starts_with(month));
    }
    let small = word.to_lowercase();
    TITLES.contains(&word)
        || INSIDE.contains(&small.as_str())
        || NUMBERED.contains(&small.as_str()) && begin.is_numeric()
        || is_initials(word)
}

/// `J`, `U.S`, `E.T.A`: but not `I`, which ends sentences.
fn is_initials(word: &str) -> bool {
    word != "I"
        && !word.is_empty()
        && word.split('.').all(|part| {
            let mut letters = part.chars();
            letters.next().is_some_and(char::is_uppercase) && letters.next().is_none()
        })
}

/// How long a text takes to say, in widths of a Latin letter: a sign of Chinese, Japanese or Korean is a syllable.
fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 3 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x11FF | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0xFE30..=0xFE4F
        | 0xFF00..=0xFF60 | 0x2_0000..=0x3_FFFD)
}

/// Adds a sentence in pieces of at most this width: cut where the voice pauses, else between words, else anywhere but
/// inside what is read as one sign.
fn cut(sentence: &str, first: usize, pieces: &mut Vec<String>) {
    let mut rest = sentence.trim();
    let mut limit = first;
    while !rest.is_empty() {
        let at = if width(rest) > limit {
            place(rest, limit)
        } else {
            rest.len()
        };
        let (piece, after) = rest.split_at(at);
        pieces.push(piece.trim().to_owned());
        rest = after.trim_start();
        limit = LONGEST;
    }
}

/// Where to cut a text that is wider than the limit; never at its begin.
fn place(text: &str, limit: usize) -> usize {
    // Not so near the end that a single word is left over.
    let limit = if width(text) < limit + 2 * SHORTEST {
        limit - 2 * SHORTEST
    } else {
        limit
    };
    let mut so_far = 0;
    let mut best = [0; 4];
    let mut signs = text.grapheme_indices(true).peekable();
    while let Some((at, sign)) = signs.next() {
        so_far += width(sign);
        if so_far > limit && best[3] > 0 {
            break;
        }
        let end = at + sign.len();
        let blank_next = signs.peek().is_some_and(|(_, next)| next.trim().is_empty());
        best[3] = end;
        if so_far >= limit / 4 {
            match sign {
                "；" | "：" | "。" | "！" | "？" | "…" | "—" => best[0] = end,
                "." | "!" | "?" | ";" | ":" | "–" | "।" | "؟" if blank_next => best[0] = end,
                "，" | "、" => best[1] = end,
                "," | ")" | "،" | "]" if blank_next => best[1] = end,
                _ => {}
            }
        }
        if blank_next {
            best[2] = end;
        }
    }
    best.into_iter().find(|at| *at > 0).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentences_of_many_kinds() {
        let cases: &[(&str, &[&str])] = &[
            ("Hello there, world.", &["Hello there, world."]),
            (
                "The first sentence. The second one! And a third? Yes.",
                &["The first sentence.", "The second one!", "And a third?", "Yes."],
            ),
            (
                "Mr. Smith met Dr. Jones. They talked.",
                &["Mr. Smith met Dr. Jones.", "They talked."],
            ),
            (
                "It costs 3.50 dollars. Version 1.2.3 is out.",
                &["It costs 3.50 dollars.", "Version 1.2.3 is out."],
            ),
            (
                "J. R. R. Tolkien wrote it. He did.",
                &["J. R. R. Tolkien wrote it.", "He did."],
            ),
            (
                "The U.S. Army, e.g. the tank corps.",
                &["The U.S. Army, e.g. the tank corps."],
            ),
            (
                "Am 3. Mai war z.B. Herr Meier da. Danach nicht.",
                &["Am 3. Mai war z.B. Herr Meier da.", "Danach nicht."],
            ),
            (
                "See Fig. 3 and No. 7. I said no. Then I left.",
                &["See Fig. 3 and No. 7.", "I said no. Then I left."],
            ),
            (
                "Well... maybe so. Or not at all...",
                &["Well... maybe so.", "Or not at all..."],
            ),
            (
                "\"Stop it!\" he said. \"Why should I?\" she asked.",
                &["\"Stop it!\" he said.", "\"Why should I?\" she asked."],
            ),
            (
                "He said: “Go home.” Then he went.",
                &["He said: “Go home.”", "Then he went."],
            ),
            (
                "今日はいい天気ですね。散歩に行きましょう！楽しみです。",
                &["今日はいい天気ですね。", "散歩に行きましょう！", "楽しみです。"],
            ),
            (
                "A heading\n\nThen the text\nthat is wrapped. And more.",
                &["A heading", "Then the text that is wrapped.", "And more."],
            ),
            (
                "Buy these things:\n- some milk for the cat\n- bread for ourselves",
                &["Buy these things:", "- some milk for the cat", "- bread for ourselves"],
            ),
            (
                "1. Open the door slowly. 2. Close it.",
                &["1. Open the door slowly.", "2. Close it."],
            ),
            (
                "One paragraph here.\n\n***\n\nAnother one there.",
                &["One paragraph here. ***", "Another one there."],
            ),
            ("...", &["..."]),
            ("\u{1F600}", &["\u{1F600}"]),
            ("bell\u{7}and\0null in the text", &["bell and null in the text"]),
            (" \n\t ", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn long_sentences_are_cut_where_the_voice_pauses() {
        let text = "When the sun had risen over the hills, and the birds had begun to sing in the trees, the old man \
                    went out of his house, which stood at the end of the village, to look for his goat; it had gone \
                    the day before, and nobody had seen it since then, neither in the fields nor in the woods nor \
                    anywhere else along the road that leads to the town behind the river.";
        let pieces = sentences(text);
        assert_eq!(
            pieces[0],
            "When the sun had risen over the hills, and the birds had begun to sing in the trees, the old man went out of his house,"
        );
        assert_eq!(pieces.len(), 2, "{pieces:?}");

        // Without any sign there are still the blanks, and without those the characters.
        let words = "word ".repeat(300);
        let pieces = sentences(&words);
        assert!(
            pieces[0].len() <= FIRST && pieces.iter().all(|piece| piece.len() <= LONGEST),
            "{pieces:?}"
        );
        assert!(
            pieces.iter().all(|piece| piece.split(' ').all(|word| word == "word")),
            "{pieces:?}"
        );
        let pieces = sentences(&"x".repeat(1000));
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [120, 320, 320, 240]);
        let pieces = sentences(&"字".repeat(200));
        assert_eq!(pieces[0].chars().count(), 40);
        // What is written with several characters stays whole.
        let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
        let pieces = sentences(&family.repeat(60));
        assert!(pieces.iter().all(|piece| piece.len() % family.len() == 0), "{pieces:?}");
    }

    fn bare(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in any_text()) {
            let pieces = sentences(&text);
            prop_assert_eq!(bare(&pieces.concat()), bare(&text));
            prop_assert_eq!(pieces.is_empty(), bare(&text).is_empty());
            for piece in &pieces {
                prop_assert!(!piece.is_empty() && piece.trim() == piece);
            }
        }

        #[test]
        fn words_stay_whole(words in prop::collection::vec("[A-Za-z]{1,20}[.,;!?]{0,1}", 1..200)) {
            let pieces = sentences(&words.join(" "));
            let spoken: Vec<&str> = pieces.iter().flat_map(|piece| piece.split(' ')).collect();
            prop_assert_eq!(spoken, words);
            prop_assert!(width(&pieces[0]) <= FIRST + SHORTEST, "{:?}", pieces[0]);
            for piece in &pieces {
                prop_assert!(width(piece) <= LONGEST + SHORTEST, "{:?}", piece);
            }
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "([A-Za-z0-9äéß字か。！，\u{301}\u{200D}\u{1F600}\"'”.!?,;:)(\n\t\u{0} -]){0,600}",
        ]
    }
}
