//! Where each member of a JSON document stands, and which keys stand there twice.
//!
//! serde forgets positions once a value is read; messages about single settings need them.

use std::collections::{HashMap, HashSet};

/// Byte offsets of a member: its key (or the element itself in a list) and its value.
#[derive(Debug, Clone, Copy)]
struct Offsets {
    key: usize,
    value: usize,
}

/// All members by JSON pointer.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    offsets: HashMap<String, Offsets>,
    /// Pointers of keys that appear a second time, with the offset of the second.
    duplicates: Vec<(String, usize)>,
}

impl Positions {
    /// Reads the positions of a text that is known to be valid JSON.
    pub(crate) fn scan(text: &str) -> Self {
        let mut scan = Scan {
            text,
            at: 0,
            pointer: String::new(),
            found: Self::default(),
        };
        scan.value();
        scan.found
    }

    /// Line and column (from 1, in characters) of the key at a pointer or, if it is not there, of its nearest ancestor.
    pub(crate) fn key(&self, text: &str, pointer: &str) -> Option<(usize, usize)> {
        self.nearest(pointer).map(|offsets| line_column(text, offsets.key))
    }

    /// As [`Positions::key`], but of the value.
    pub(crate) fn value(&self, text: &str, pointer: &str) -> Option<(usize, usize)> {
        self.nearest(pointer).map(|offsets| line_column(text, offsets.value))
    }

    /// Keys that appear twice in one object: pointer, and line and column of the second.
    pub(crate) fn duplicates(&self, text: &str) -> Vec<(String, (usize, usize))> {
        self.duplicates
            .iter()
            .map(|(pointer, at)| (pointer.clone(), line_column(text, *at)))
            .collect()
    }

    fn nearest(&self, pointer: &str) -> Option<Offsets> {
        let mut pointer = pointer;
        loop {
            if let Some(offsets) = self.offsets.get(pointer) {
                return Some(*offsets);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

/// Joins path segments to a JSON pointer (RFC 6901).
pub(crate) fn pointer<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for segment in path {
        push_segment(&mut text, segment.as_ref());
    }
    text
}

fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    pointer: String,
    found: Positions,
}

impl Scan<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn value(&mut self) {
        match self.peek() {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => {
                self.string();
            }
            _ => {
                let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
                let end = rest
                    .iter()
                    .position(|b| b",]} \t\r\n".contains(b))
                    .unwrap_or(rest.len());
                self.at += end.max(1);
            }
        }
    }

    /// Skips a string and returns its text.
    fn string(&mut self) -> String {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        self.text
            .get(start..self.at)
            .and_then(|raw| serde_json::from_str(raw).ok())
            .unwrap_or_default()
    }

    fn object(&mut self) {
        self.at += 1;
        let mut seen = HashSet::new();
        while self.peek() == b'"' {
            let key_at = self.at;
            let key = self.string();
            let length = self.pointer.len();
            push_segment(&mut self.pointer, &key);
            self.peek();
            self.at += 1;
            self.peek();
            if seen.insert(key) {
                self.found.offsets.insert(
                    self.pointer.clone(),
                    Offsets {
                        key: key_at,
                        value: self.at,
                    },
                );
            } else {
                self.found.duplicates.push((self.pointer.clone(), key_at));
            }
            self.value();
            self.pointer.truncate(length);
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn array(&mut self) {
        self.at += 1;
        let mut index = 0usize;
        while !matches!(self.peek(), b']' | 0) {
            let length = self.pointer.len();
            push_segment(&mut self.pointer, &index.to_string());
            self.found.offsets.insert(
                self.pointer.clone(),
                Offsets {
                    key: self.at,
                    value: self.at,
                },
            );
            self.value();
            self.pointer.truncate(length);
            if self.peek() == b',' {
                self.at += 1;
            }
            index += 1;
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_keys_values_and_duplicates() {
        let text = "{\n  \"a\": {\"ü\": [1, {\"x/y\": \"q\\\"}\"}],\n \"b\": 2},\n  \"a\": 3, \"c\" : null\n}";
        let positions = Positions::scan(text);
        assert_eq!(positions.key(text, "/a"), Some((2, 3)));
        assert_eq!(positions.value(text, "/a/ü"), Some((2, 14)));
        assert_eq!(positions.key(text, "/a/ü/1/x~1y"), Some((2, 19)));
        assert_eq!(positions.key(text, "/a/b"), Some((3, 2)));
        assert_eq!(
            positions.key(text, "/a/b/deeper"),
            Some((3, 2)),
            "falls back to the ancestor"
        );
        assert_eq!(positions.value(text, "/c"), Some((4, 17)));
        assert_eq!(positions.duplicates(text), [("/a".to_owned(), (4, 3))]);
        assert_eq!(positions.key(text, "/none"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\[\\]{}\":,\\\\a1 é\n]{0,60}") {
            let _ = Positions::scan(&text);
        }
    }
}
