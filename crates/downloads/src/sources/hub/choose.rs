//! Which files of a repository are meant. Pure.

use std::collections::BTreeMap;

use gguf::{PREFERRED_BITS, SplitName, label_bits, normal_quant, split_quant};

use super::Entry;
use crate::DownloadError;
use crate::sources::url::stem;

/// One model of a repository: a file, or all parts of a split one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) struct Variant {
    /// Quantization as the file or its folder spells it, in upper case.
    pub(in crate::sources) label: Option<String>,
    /// The file, or the parts in order.
    pub(in crate::sources) files: Vec<Entry>,
}

impl Variant {
    fn first(&self) -> &str {
        self.files.first().map_or("", |entry| entry.path.as_str())
    }

    fn quant(&self) -> Option<String> {
        self.label.as_deref().map(normal_quant)
    }

    /// Bits per weight of its label, about.
    fn bits(&self) -> Option<f64> {
        let label = self.quant()?;
        let plain = plain(&label);
        label_bits(plain).or_else(|| {
            // Labels newer than the table: the digit tells.
            let digit = plain.trim_start_matches(['i', 'q']).chars().next()?.to_digit(10)?;
            Some(f64::from(digit) + 0.5)
        })
    }
}

/// A label without what only tells who made it.
fn plain(quant: &str) -> &str {
    quant
        .strip_prefix("ud_")
        .or_else(|| quant.strip_prefix("i1_"))
        .unwrap_or(quant)
}

/// Files that belong to a model but are none.
fn is_companion(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("mmproj") || name.contains("imatrix")
}

/// The models among the files, ordered by path; split ones only when no part is missing.
pub(in crate::sources) fn variants(entries: &[Entry]) -> Vec<Variant> {
    let mut single = Vec::new();
    let mut sets: BTreeMap<(String, SplitName), BTreeMap<u32, &Entry>> = BTreeMap::new();
    for entry in entries {
        let Some(stem) = stem(entry.name()).filter(|_| !is_companion(entry.name())) else {
            continue;
        };
        let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        match SplitName::parse(stem) {
            Some(part) => {
                let number = part.number;
                let set = SplitName { number: 1, ..part };
                sets.entry((folder.to_owned(), set)).or_default().insert(number, entry);
            }
            None => single.push(Variant {
                label: label(stem, folder),
                files: vec![entry.clone()],
            }),
        }
    }
    let whole = sets
        .into_iter()
        .filter(|((_, set), parts)| parts.len() == set.count as usize);
    single.extend(whole.map(|((folder, set), parts)| Variant {
        label: label(&set.prefix, &folder),
        files: parts.into_values().cloned().collect(),
    }));
    single.sort_by(|a, b| a.first().cmp(b.first()));
    single
}

fn label(stem: &str, folder: &str) -> Option<String> {
    let of = |text: &str| {
        let (base, quant) = split_quant(text);
        quant.and(text.get(base.len() + 1..)).map(str::to_uppercase)
    };
    let last = folder.rsplit('/').next().unwrap_or_default();
    // A folder may be the label alone.
    of(stem).or_else(|| of(&format!("x-{last}")).or_else(|| of(last)))
}

/// The model meant by a file name or a quantization; without one Q4_K_M, else the nearest to it.
pub(in crate::sources) fn choose(
    id: &str,
    variants: &[Variant],
    entries: &[Entry],
    wanted: Option<&str>,
) -> Result<Variant, DownloadError> {
    let Some(wanted) = wanted else {
        return nearest(variants)
            .cloned()
            .ok_or_else(|| DownloadError::Unsupported(format!("{id} has no GGUF file: only those can be run")));
    };
    if stem(wanted).is_some() {
        return by_file(variants, entries, wanted)
            .ok_or_else(|| DownloadError::NotFound(format!("{id} has no file {wanted:?}")));
    }
    let quant = normal_quant(wanted);
    let spelled = variants.iter().filter(|v| v.quant().as_deref() == Some(&quant));
    let meant = variants
        .iter()
        .filter(|v| v.quant().as_deref().map(plain) == Some(plain(&quant)));
    let in_name = variants.iter().filter(|v| {
        let stem = v.files.first().and_then(|entry| stem(entry.name())).unwrap_or_default();
        normal_quant(stem).ends_with(&format!("_{quant}"))
    });
    let found = shortest(spelled)
        .or_else(|| shortest(meant))
        .or_else(|| shortest(in_name));
    found.cloned().ok_or_else(|| {
        let mut labels: Vec<&str> = variants.iter().filter_map(|v| v.label.as_deref()).collect();
        labels.sort_unstable();
        labels.dedup();
        let has = if labels.is_empty() {
            "its files name none".to_owned()
        } else {
            format!("it has {}", labels.join(", "))
        };
        DownloadError::NotFound(format!("{id} has no quantization {wanted:?}: {has}"))
    })
}

/// Of several models with one label, the one that is not in a folder or whose name has nothing more to say.
fn shortest<'v>(variants: impl Iterator<Item = &'v Variant>) -> Option<&'v Variant> {
    variants.min_by_key(|v| (v.first().matches('/').count(), v.first().len(), v.first().to_owned()))
}

fn by_file(variants: &[Variant], entries: &[Entry], wanted: &str) -> Option<Variant> {
    let is = |entry: &Entry| entry.path.eq_ignore_ascii_case(wanted) || entry.name().eq_ignore_ascii_case(wanted);
    // One part of a split model is of no use without the others.
    let of_set = variants.iter().find(|v| v.files.iter().any(is)).cloned();
    of_set.or_else(|| {
        entries.iter().find(|entry| is(entry)).map(|entry| Variant {
            label: None,
            files: vec![entry.clone()],
        })
    })
}

fn nearest(variants: &[Variant]) -> Option<&Variant> {
    let rank = |v: &Variant| {
        // Thousandths, so that it can be compared; without a label last.
        let distance = v
            .bits()
            .map_or(u64::MAX, |bits| ((bits - PREFERRED_BITS).abs() * 1000.0).round() as u64);
        let made_by = v.quant().is_some_and(|quant| plain(&quant) != quant);
        (
            distance,
            made_by,
            v.first().matches('/').count(),
            v.first().len(),
            v.first().to_owned(),
        )
    };
    variants.iter().min_by_key(|v| rank(v))
}

/// The projector that goes with a model, when the repository has one: by name if several, in the precision that every
/// engine reads well.
pub(in crate::sources) fn projector<'e>(entries: &'e [Entry], model: &Variant) -> Option<&'e Entry> {
    let first = model.files.first()?;
    if is_companion(first.name()) {
        return None;
    }
    let own = base(first.name());
    let rank = |entry: &Entry| {
        let stem = stem(entry.name()).unwrap_or_default().to_lowercase();
        let named = base(entry.name()).replace("mmproj", "");
        let named = named.trim_matches(['-', '_', '.']);
        let fits = !named.is_empty() && (own.contains(named) || named.contains(&own));
        let precision = match split_quant(&stem)
            .1
            .as_deref()
            .or_else(|| stem.rsplit(['-', '_', '.']).next())
        {
            Some("f16" | "fp16") => 3,
            Some("bf16") => 2,
            Some("f32" | "fp32") => 0,
            _ => 1,
        };
        (fits, precision, std::cmp::Reverse(entry.path.clone()))
    };
    entries
        .iter()
        .filter(|entry| stem(entry.name()).is_some() && entry.name().to_lowercase().contains("mmproj"))
        .max_by_key(|entry| rank(entry))
}

/// A file name without extension, part number and quantization, in lower case.
fn base(name: &str) -> String {
    let stem = stem(name).unwrap_or(name);
    let split = SplitName::parse(stem);
    let stem = split.as_ref().map_or(stem, |split| split.prefix.as_str());
    split_quant(stem).0.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        let entry = |path: &&str| Entry {
            path: (*path).to_owned(),
            size: 1,
            sha256: None,
            git_sha1: None,
        };
        paths.iter().map(entry).collect()
    }

    fn pick(paths: &[&str], wanted: Option<&str>) -> Result<Vec<String>, String> {
        let entries = entries(paths);
        choose("o/r", &variants(&entries), &entries, wanted)
            .map(|v| v.files.into_iter().map(|entry| entry.path).collect())
            .map_err(|error| error.to_string())
    }

    const REPO: &[&str] = &[
        "README.md",
        "imatrix.gguf",
        "mmproj-x-F16.gguf",
        "x-Q3_K_S.gguf",
        "x-Q4_K_M.gguf",
        "x-Q8_0.gguf",
        "x-UD-Q2_K_XL.gguf",
        "F16/x-F16-00002-of-00002.gguf",
        "F16/x-F16-00001-of-00002.gguf",
        "IQ4_XS/x-00001-of-00001.gguf",
        "Q6_K/x-Q6_K-00001-of-00002.gguf",
    ];

    #[test]
    fn labels_files_and_the_default() {
        let one = |path: &str| Ok(vec![path.to_owned()]);
        assert_eq!(pick(REPO, None), one("x-Q4_K_M.gguf"));
        assert_eq!(pick(REPO, Some("q8_0")), one("x-Q8_0.gguf"));
        assert_eq!(pick(REPO, Some("UD-Q2_K_XL")), one("x-UD-Q2_K_XL.gguf"));
        assert_eq!(pick(REPO, Some("Q2_K_XL")), one("x-UD-Q2_K_XL.gguf"));
        assert_eq!(pick(REPO, Some("iq4_xs")), one("IQ4_XS/x-00001-of-00001.gguf"));
        assert_eq!(pick(REPO, Some("X-q3_k_s.GGUF")), one("x-Q3_K_S.gguf"));
        assert_eq!(pick(REPO, Some("imatrix.gguf")), one("imatrix.gguf"));
        let parts = vec![
            "F16/x-F16-00001-of-00002.gguf".to_owned(),
            "F16/x-F16-00002-of-00002.gguf".to_owned(),
        ];
        assert_eq!(pick(REPO, Some("F16")), Ok(parts.clone()));
        assert_eq!(pick(REPO, Some("x-F16-00002-of-00002.gguf")), Ok(parts));
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        assert_eq!(
            pick(REPO, Some("Q6_K")).unwrap_err(),
            "o/r has no quantization \"Q6_K\": it has F16, IQ4_XS, Q3_K_S, Q4_K_M, Q8_0, UD-Q2_K_XL"
        );
        assert_eq!(pick(REPO, Some("y.gguf")).unwrap_err(), "o/r has no file \"y.gguf\"");
        assert_eq!(
            pick(&["model.safetensors"], None).unwrap_err(),
            "o/r has no GGUF file: only those can be run"
        );
        assert_eq!(
            pick(&["model.gguf"], Some("Q4_0")).unwrap_err(),
            "o/r has no quantization \"Q4_0\": its files name none"
        );
    }

    #[test]
    fn without_q4_k_m_the_nearest() {
        let default = |paths: &[&str]| pick(paths, None).unwrap().remove(0);
        assert_eq!(
            default(&["x-Q8_0.gguf", "x-Q5_K_M.gguf", "x-Q2_K.gguf"]),
            "x-Q5_K_M.gguf"
        );
        assert_eq!(default(&["x-UD-Q4_K_XL.gguf", "x-Q8_0.gguf"]), "x-UD-Q4_K_XL.gguf");
        assert_eq!(default(&["x-UD-Q4_K_M.gguf", "x-Q4_K_M.gguf"]), "x-Q4_K_M.gguf");
        assert_eq!(default(&["model.gguf"]), "model.gguf");
        assert_eq!(default(&["a.gguf", "x-F16.gguf"]), "x-F16.gguf");
    }

    #[test]
    fn projectors() {
        let with = |paths: &[&str], model: &str| {
            let entries = entries(paths);
            let variant = choose("o/r", &variants(&entries), &entries, Some(model)).unwrap();
            projector(&entries, &variant).map(|entry| entry.path.clone())
        };
        assert_eq!(with(REPO, "Q8_0").as_deref(), Some("mmproj-x-F16.gguf"));
        let several = ["x-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"];
        assert_eq!(with(&several, "Q8_0").as_deref(), Some("mmproj-F16.gguf"));
        let two = [
            "a-7b-Q8_0.gguf",
            "b-2b-Q8_0.gguf",
            "mmproj-a-7b-f16.gguf",
            "mmproj-b-2b-f32.gguf",
        ];
        assert_eq!(with(&two, "b-2b-Q8_0.gguf").as_deref(), Some("mmproj-b-2b-f32.gguf"));
        assert_eq!(with(&["x-Q8_0.gguf"], "Q8_0"), None);
        assert_eq!(with(&several, "mmproj-F16.gguf"), None);
    }
}
