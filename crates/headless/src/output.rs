//! Text for people, or one JSON document.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// One JSON document instead of text.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints bytes as they are.
    #[expect(
        clippy::unused_self,
        reason = "verbs print through the value they were given and in no other way"
    )]
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Prints a line.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints the JSON document.
    pub(crate) fn document(self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(&text)
    }

    /// Prints rows under a head, columns aligned.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        self.bytes(table(head, rows).as_bytes())
    }
}

/// Makes a folder that results are to be written into, with those it lies in. There already: all is well.
pub(crate) fn folder(path: &Path) -> Result<(), Failure> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = std::iter::once(head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).chain(rows.iter().cloned());
    let cells: Vec<Vec<String>> = cells.collect();
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
    };
    let mut text = String::new();
    for row in &cells {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            let gap = width(column).unwrap_or(0).saturating_sub(cell.chars().count()) + 3;
            line.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes for people, in decimal units.
pub(crate) fn size(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}

/// A parameter count for people.
pub(crate) fn count(parameters: u64) -> String {
    match parameters {
        0 => "–".to_owned(),
        1_000_000_000.. => format!("{:.1}B", parameters as f64 / 1e9),
        _ => format!("{:.1}M", parameters as f64 / 1e6),
    }
}

/// A duration for people.
pub(crate) fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["ä".to_owned(), "1".to_owned(), String::new()],
            vec!["long".into(), "22".into(), "x".into()],
        ];
        assert_eq!(
            table(&["NAME", "N", "Z"], &rows),
            "NAME   N    Z\nä      1\nlong   22   x\n"
        );
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(size(4_700_000_000), "4.7 GB");
        assert_eq!(size(1_798_016), "1.8 MB");
        assert_eq!(count(7_241_732_096), "7.2B");
        assert_eq!(count(890_000), "0.9M");
        assert_eq!(duration(252_000), "4 min 12 s");
        assert_eq!(duration(7_300_000), "2 h 1 min");
        assert_eq!(duration(-5), "0 s");
    }
}
