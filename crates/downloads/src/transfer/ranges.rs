//! Byte ranges: which are there, and what an origin says about the ones it sends.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Ranges of bytes, sorted, never touching each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// Adds a range.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        self.0.retain(|&(s, e)| {
            let apart = e < start || s > end;
            if !apart {
                start = start.min(s);
                end = end.max(e);
            }
            apart
        });
        let at = self.0.partition_point(|&(s, _)| s < start);
        self.0.insert(at, (start, end));
    }

    /// Takes a range out.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for &(s, e) in &self.0 {
            if s < range.start.min(e) {
                left.push((s, e.min(range.start)));
            }
            if e > range.end.max(s) {
                left.push((s.max(range.end), e));
            }
        }
        self.0 = left;
    }

    /// Bytes in all ranges.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(s, e)| e - s).sum()
    }

    /// End of the last range.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |&(_, e)| e)
    }

    /// What is missing of `0..size`, in pieces of at most `piece` bytes.
    pub(crate) fn missing(&self, size: u64, piece: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for &(s, e) in self.0.iter().chain([&(size, size)]) {
            while at < s.min(size) {
                let end = at.saturating_add(piece.max(1)).min(s).min(size);
                gaps.push(at..end);
                at = end;
            }
            at = at.max(e);
        }
        gaps
    }

    /// Sorted, apart and within `0..size`: what a file on disk claims is checked before it is believed.
    pub(crate) fn is_sound(&self, size: u64) -> bool {
        self.0.iter().all(|(s, e)| s < e && *e <= size) && self.0.windows(2).all(|w| w[0].1 < w[1].0)
    }
}

/// A `Content-Range` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentRange {
    /// `bytes first-last/total`, as a half-open range; the total may be unknown.
    Part(Range<u64>, Option<u64>),
    /// `bytes */total`, as a 416 carries it.
    Unsatisfied(Option<u64>),
}

impl ContentRange {
    /// Reads the header (RFC 9110 14.4); `None` when it breaks the form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().strip_prefix("bytes")?.trim_start();
        let (range, total) = rest.split_once('/')?;
        let total = match total.trim() {
            "*" => None,
            number => Some(digits(number)?),
        };
        if range.trim() == "*" {
            return Some(Self::Unsatisfied(total));
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (digits(first.trim())?, digits(last.trim())?);
        let end = last.checked_add(1)?;
        (first <= last && total.is_none_or(|total| end <= total)).then_some(Self::Part(first..end, total))
    }
}

/// Digits only: `u64::from_str` would take a plus sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_split_and_show_their_gaps() {
        let mut set = RangeSet::default();
        set.insert(10..20);
        set.insert(30..40);
        set.insert(20..30);
        set.insert(50..50);
        assert_eq!(set, RangeSet(vec![(10, 40)]));
        set.remove(15..18);
        assert_eq!(set, RangeSet(vec![(10, 15), (18, 40)]));
        assert_eq!((set.bytes(), set.end()), (27, 40));
        assert_eq!(set.missing(45, 6), [0..6, 6..10, 15..18, 40..45]);
        assert_eq!(set.missing(18, 100), [0..10, 15..18]);
        set.insert(0..100);
        assert_eq!(set.missing(100, 10), Vec::<Range<u64>>::new());
        set.remove(0..100);
        assert_eq!(set, RangeSet::default());
    }

    #[test]
    fn the_set_is_the_set_of_its_bytes() {
        use proptest::prelude::*;
        let step = (any::<bool>(), 0u64..40, 0u64..40);
        proptest!(|(steps in prop::collection::vec(step, 0..30))| {
            let (mut set, mut bytes) = (RangeSet::default(), [false; 80]);
            for (add, start, len) in steps {
                let range = start..start + len;
                bytes[range.start as usize..range.end as usize].fill(add);
                if add { set.insert(range) } else { set.remove(range) }
                prop_assert!(set.is_sound(80));
            }
            let mut found = [true; 80];
            for gap in set.missing(80, 7) {
                prop_assert!(gap.end - gap.start <= 7);
                found[gap.start as usize..gap.end as usize].fill(false);
            }
            prop_assert_eq!(found, bytes);
            prop_assert_eq!(set.bytes(), bytes.iter().filter(|b| **b).count() as u64);
        });
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        for (text, want) in [
            ("bytes 0-9/10", Some(ContentRange::Part(0..10, Some(10)))),
            ("bytes 5-5/*", Some(ContentRange::Part(5..6, None))),
            ("bytes */10", Some(ContentRange::Unsatisfied(Some(10)))),
            ("bytes 9-5/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes +1-2/3", None),
            ("items 0-1/2", None),
            ("bytes 0-1", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), want, "{text}");
        }
    }

    #[test]
    fn a_claim_from_disk_is_checked() {
        assert!(RangeSet(vec![(0, 5), (6, 10)]).is_sound(10));
        for wrong in [vec![(0, 11)], vec![(5, 5)], vec![(6, 10), (0, 5)], vec![(0, 6), (5, 8)]] {
            assert!(!RangeSet(wrong.clone()).is_sound(10), "{wrong:?}");
        }
    }
}
