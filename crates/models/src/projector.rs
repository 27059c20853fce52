//! Which projector file belongs to which model: both lie in one folder, and nothing but names and widths connects them.

use domain::ModelFacts;

use crate::names::{normal_name, split_quant};
use crate::record::Record;
use crate::scan::Found;

/// A projector in a folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'s> {
    pub(crate) file: &'s Found,
    pub(crate) record: &'s Record,
}

/// Picks the projector for a model among those of its folder. `alone`: all models of the folder are variants of one, so
/// that a projector without a telling name can only be meant for it.
pub(crate) fn pick<'c, 's>(
    base: &str,
    facts: &ModelFacts,
    alone: bool,
    candidates: &'c [Candidate<'s>],
) -> Option<&'c Candidate<'s>> {
    candidates
        .iter()
        .map(|candidate| (score(base, facts, alone, candidate), candidate))
        .filter(|((fit, _), _)| *fit > 0)
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.file.path.cmp(&x.file.path)))
        .map(|(_, candidate)| candidate)
}

/// How well a projector fits (0: not at all), then how much its own precision is liked.
fn score(base: &str, facts: &ModelFacts, alone: bool, candidate: &Candidate<'_>) -> (u8, u8) {
    let Record::Projector { width, basename, .. } = candidate.record else {
        return (0, 0);
    };
    let stem = candidate.file.stem().to_lowercase();
    let (rest, quant) = split_quant(&stem);
    let own = rest.replace("mmproj", "");
    let own = own.trim_matches(['-', '_', '.', ' ', '/']);
    let generic = own.is_empty() || own == "model" || split_quant(&format!("x-{own}")).1.is_some();
    let same_width = *width == facts.embedding_length.map(u64::from) && width.is_some();
    let named = !generic && {
        let own = normal_name(own);
        base.starts_with(&own) || own.starts_with(base)
    };
    let same_basename = matches!((basename, &facts.basename), (Some(a), Some(b)) if normal_name(a) == normal_name(b));
    let fit = if named {
        4
    } else if generic && same_width && same_basename {
        3
    } else if generic && (same_width || same_basename) {
        2
    } else {
        u8::from(alone)
    };
    let precision = match quant.as_deref() {
        Some("f16" | "fp16") => 3,
        Some("bf16") => 2,
        Some("f32" | "fp32") => 0,
        _ => 1,
    };
    (fit, precision)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use domain::ModelSource;

    use super::*;

    #[test]
    fn by_name_then_width_then_alone() {
        let file = |name: &str| Found {
            path: PathBuf::from(format!("/m/{name}.gguf")),
            real: PathBuf::new(),
            relative: String::new(),
            source: ModelSource::Folder,
            size: 1,
            modified_ns: 0,
        };
        let record = |width| Record::Projector {
            vision: true,
            audio: false,
            width,
            basename: None,
        };
        let facts = ModelFacts {
            embedding_length: Some(64),
            ..ModelFacts::default()
        };
        let check = |base: &str, alone: bool, projectors: &[(&str, Option<u64>)]| -> Option<String> {
            let files: Vec<(Found, Record)> = projectors.iter().map(|(n, w)| (file(n), record(*w))).collect();
            let candidates: Vec<Candidate<'_>> =
                files.iter().map(|(file, record)| Candidate { file, record }).collect();
            pick(base, &facts, alone, &candidates).map(|c| c.file.stem())
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            check("gemma-3-4b-it", true, &[("mmproj-F16", None)]),
            some("mmproj-F16")
        );
        assert_eq!(check("gemma-3-4b-it", false, &[("mmproj-F16", None)]), None);
        assert_eq!(
            check("gemma-3-4b-it", false, &[("mmproj-F16", Some(64))]),
            some("mmproj-F16")
        );
        assert_eq!(check("gemma-3-4b-it", false, &[("mmproj-F16", Some(65))]), None);
        assert_eq!(
            check("gemma", false, &[("mmproj-gemma-f16", None)]),
            some("mmproj-gemma-f16")
        );
        assert_eq!(check("gemma", false, &[("qwen-mmproj-f16", Some(64))]), None);
        assert_eq!(
            check("gemma", true, &[("mmproj-F32", None), ("mmproj-BF16", None)]),
            some("mmproj-BF16")
        );
        assert_eq!(
            check(
                "qwen-vl-7b",
                true,
                &[("mmproj-F16", Some(64)), ("mmproj-qwen-vl-7b-q8_0", None)]
            ),
            some("mmproj-qwen-vl-7b-q8_0")
        );
    }
}
