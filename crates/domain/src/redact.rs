/// Removes file system paths (promise H10): quoted ones are replaced, and an unquoted one ends the text, because where it
/// ends cannot be known when it has spaces.
pub fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = path_start(rest) {
        let (before, path) = rest.split_at(at);
        out.push_str(before);
        let quote = before.chars().next_back().filter(|c| matches!(c, '\'' | '"' | '`'));
        if let Some(end) = quote.and_then(|quote| path.find(quote)) {
            out.push_str("file");
            rest = &path[end..];
        } else {
            out.push('…');
            rest = "";
        }
    }
    out.push_str(rest);
    out.trim().to_owned()
}

/// A `/` or `X:\` at the start of a word, followed by something.
fn path_start(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let word_start = |i: usize| {
        i == 0
            || matches!(
                bytes[i - 1],
                b' ' | b'\'' | b'"' | b'`' | b'(' | b'[' | b'=' | b':' | b','
            )
    };
    (0..bytes.len()).find(|&i| {
        word_start(i)
            && match bytes[i] {
                b'/' => {
                    bytes.get(i + 1).is_some_and(|b| !b.is_ascii_whitespace() && *b != b'/')
                        && !text[i..].starts_with("/v1/")
                        && !text[..i].ends_with("://")
                }
                b'~' => bytes.get(i + 1) == Some(&b'/'),
                b'\\' => bytes.get(i + 1) == Some(&b'\\'),
                drive if drive.is_ascii_alphabetic() => {
                    bytes.get(i + 1) == Some(&b':') && matches!(bytes.get(i + 2), Some(b'\\' | b'/'))
                }
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_removed() {
        for (text, expected) in [
            ("nothing here", "nothing here"),
            ("failed '/a/b c.gguf' today", "failed 'file' today"),
            ("failed /a/b c.gguf today", "failed …"),
            ("from ~/x", "from …"),
            (r#"open "C:\Users\me\m.gguf": no"#, r#"open "file": no"#),
            ("at C:/Users", "at …"),
            ("ratio 3 / 4 and a/b", "ratio 3 / 4 and a/b"),
            ("use /v1/embeddings", "use /v1/embeddings"),
            ("unclosed '/a/b", "unclosed '…"),
            ("ä/b '/ü/ö' ß", "ä/b 'file' ß"),
            ("'/a' and '/b'", "'file' and 'file'"),
        ] {
            assert_eq!(without_paths(text), expected, "{text}");
        }
    }
}
