use thiserror::Error;

/// What a file's header says about being part of a split model (`split.no`, `split.count`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitInfo {
    /// This part, from 0.
    pub number: u32,
    /// Number of parts.
    pub count: u32,
    /// Tensors of all parts together, when stated.
    pub tensors_of_all: Option<u64>,
}

/// The naming of split files: `<prefix>-00001-of-00003.gguf`. The engine finds the further parts by these names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SplitName {
    /// The name without the numbers.
    pub prefix: String,
    /// This part, from 1.
    pub number: u32,
    /// Number of parts.
    pub count: u32,
}

impl SplitName {
    /// Reads a file name without its `.gguf`. `None`: not the name of a part.
    pub fn parse(stem: &str) -> Option<Self> {
        // "-00001-of-00003" is 15 ASCII bytes.
        let at = stem.len().checked_sub(15)?;
        let (prefix, tail) = (stem.get(..at)?, stem.get(at..)?);
        let number = digits(tail.strip_prefix('-')?.get(..5)?)?;
        let count = digits(tail.get(6..)?.strip_prefix("-of-")?)?;
        (1..=count).contains(&number).then(|| Self {
            prefix: prefix.to_owned(),
            number,
            count,
        })
    }

    /// File name of a part, from 1.
    pub fn file_name(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}

fn digits(text: &str) -> Option<u32> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Why the parts that were found are not one whole model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitProblem {
    /// A part is not there.
    #[error("part {number} of {count} is missing")]
    Missing {
        /// From 1.
        number: u32,
        /// Number of parts.
        count: u32,
    },
    /// A header contradicts the file's name or the other parts.
    #[error("part {number} does not belong to the others")]
    Foreign {
        /// From 1.
        number: u32,
    },
    /// The parts hold more or fewer tensors than the first one promises.
    #[error("the parts hold {have} tensors, the first one promises {promised}")]
    Tensors {
        /// Found in all parts.
        have: u64,
        /// Stated in the first part.
        promised: u64,
    },
}

/// Checks that `parts` (in order; `None` for one that was not found) make one whole model.
///
/// Each part is given by its split data and its own number of tensors.
pub fn check_parts(parts: &[Option<(SplitInfo, u64)>]) -> Result<(), SplitProblem> {
    let count = parts.len() as u32;
    let mut have = 0_u64;
    for (number, part) in (1_u32..).zip(parts) {
        let Some((info, tensors)) = part else {
            return Err(SplitProblem::Missing { number, count });
        };
        if info.count != count || info.number + 1 != number {
            return Err(SplitProblem::Foreign { number });
        }
        have = have.saturating_add(*tensors);
    }
    match parts.first() {
        Some(Some((
            SplitInfo {
                tensors_of_all: Some(promised),
                ..
            },
            _,
        ))) if *promised != have => Err(SplitProblem::Tensors {
            have,
            promised: *promised,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = SplitName::parse("big-Q4_K_M-00002-of-00003").unwrap();
        assert_eq!((name.prefix.as_str(), name.number, name.count), ("big-Q4_K_M", 2, 3));
        assert_eq!(name.file_name(3), "big-Q4_K_M-00003-of-00003.gguf");
        for other in [
            "",
            "a",
            "big",
            "big-00000-of-00003",
            "big-00004-of-00003",
            "big-0000x-of-00003",
            "ü0001-of-00003",
        ] {
            assert_eq!(SplitName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn parts() {
        let part = |number, tensors_of_all| {
            Some((
                SplitInfo {
                    number,
                    count: 3,
                    tensors_of_all,
                },
                2,
            ))
        };
        let check = |parts: [Option<(SplitInfo, u64)>; 3]| check_parts(&parts);
        assert_eq!(check([part(0, Some(6)), part(1, None), part(2, None)]), Ok(()));
        assert_eq!(
            check([part(0, Some(6)), None, part(2, None)]),
            Err(SplitProblem::Missing { number: 2, count: 3 })
        );
        assert_eq!(
            check([part(0, None), part(2, None), part(1, None)]),
            Err(SplitProblem::Foreign { number: 2 })
        );
        assert_eq!(
            check([part(0, Some(7)), part(1, None), part(2, None)]),
            Err(SplitProblem::Tensors { have: 6, promised: 7 })
        );
        assert_eq!(check_parts(&[]), Ok(()));
    }
}
