//! How a file name becomes a model name. Pure text work.

use std::collections::{BTreeMap, HashMap, HashSet};

pub(crate) use gguf::{normal_quant, split_quant};

/// Longest base name, from Ollama's grammar for a model name.
const MAX_BASE: usize = 80;
/// Longest slug (management contract 1.1).
const MAX_SLUG: usize = 50;

/// A name in the form keys have: lower case, letters, digits, `-` and `.`; everything else becomes one `-`.
pub(crate) fn normal_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for c in text.trim().chars().flat_map(char::to_lowercase) {
        let c = if c.is_alphanumeric() || c == '.' { c } else { '-' };
        if name.len() + c.len_utf8() > MAX_BASE {
            break;
        }
        if c != '-' || !name.ends_with('-') {
            name.push(c);
        }
    }
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() {
        "model".to_owned()
    } else {
        name.to_owned()
    }
}

/// What the key of one model is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Naming {
    /// Base name, from [`normal_name`].
    pub(crate) base: String,
    /// Quantization, from [`normal_quant`].
    pub(crate) quant: String,
    /// Publisher, empty when unknown.
    pub(crate) publisher: String,
}

/// Gives every model a key. `taken` holds the keys of explicit entries in lower case.
///
/// The order of `models` decides between equals; a caller that sorts by path gets the same keys for the same files.
pub(crate) fn assign_keys(models: &[Naming], taken: &HashSet<String>) -> Vec<Assigned> {
    let all: Vec<usize> = (0..models.len()).collect();
    let mut assigned: Vec<Assigned> = models.iter().map(|m| Assigned::new(&m.base)).collect();
    let naming = |i: &usize| models.get(*i);
    // The same base and quantization in several folders: the publisher tells them apart, else a number.
    for group in group_by(&all, |i| naming(i).map(|m| m.base.clone())).values() {
        let quants = group_by(group, |i| naming(i).map(|m| m.quant.clone()));
        if quants.values().any(|same| same.len() > 1) {
            for i in group {
                if let (Some(model), Some(own)) = (naming(i), assigned.get_mut(*i))
                    && !model.publisher.is_empty()
                {
                    own.base = format!("{}/{}", normal_name(&model.publisher), model.base);
                }
            }
        }
    }
    let pairs = group_by(&all, |i| {
        Some((assigned.get(*i)?.base.clone(), naming(i)?.quant.clone()))
    });
    let given: HashSet<String> = assigned.iter().map(|own| own.base.clone()).collect();
    for same in pairs.values() {
        let mut n = 1;
        for i in same.iter().skip(1) {
            let Some(own) = assigned.get_mut(*i) else { continue };
            own.base = loop {
                n += 1;
                let numbered = format!("{}-{n}", own.base);
                if !given.contains(&numbered) {
                    break numbered;
                }
            };
        }
    }
    let bases = group_by(&all, |i| assigned.get(*i).map(|own| own.base.clone()));
    let mut taken = taken.clone();
    for (i, model) in models.iter().enumerate() {
        let Some(own) = assigned.get_mut(i) else { continue };
        if bases.get(&own.base).is_some_and(|group| group.len() > 1) {
            own.key = format!("{}@{}", own.base, model.quant);
        } else {
            own.key.clone_from(&own.base);
        }
        own.key = unique(&free(&own.key), &mut taken, 255);
    }
    assigned
}

/// A key and the base name it was made from (which several variants share).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) key: String,
    pub(crate) base: String,
}

impl Assigned {
    fn new(base: &str) -> Self {
        Self {
            key: String::new(),
            base: base.to_owned(),
        }
    }
}

fn group_by<K: Ord>(items: &[usize], key: impl Fn(&usize) -> Option<K>) -> BTreeMap<K, Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for item in items {
        if let Some(key) = key(item) {
            groups.entry(key).or_default().push(*item);
        }
    }
    groups
}

/// A name that is not a reserved word.
pub(crate) fn free(name: &str) -> String {
    if domain::is_reserved_name(name) {
        format!("{name}-model")
    } else {
        name.to_owned()
    }
}

/// `name`, or `name-2`, `name-3`… when that is taken. Never longer than `max` bytes.
pub(crate) fn unique(name: &str, taken: &mut HashSet<String>, max: usize) -> String {
    let mut candidate = cut(name, max).to_owned();
    let mut n = 2_u32;
    while !taken.insert(candidate.to_lowercase()) {
        let suffix = format!("-{n}");
        candidate = format!("{}{suffix}", cut(name, max.saturating_sub(suffix.len())));
        n += 1;
    }
    candidate
}

fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// The restricted forms of all keys, in the same order.
pub(crate) fn slugs<'k>(keys: impl Iterator<Item = &'k str>) -> Vec<String> {
    let mut taken = HashSet::new();
    keys.map(|key| {
        let slug: String = key
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                    c
                } else {
                    '-'
                }
            })
            .collect();
        // Names of dots only are paths, not names (promise D4).
        let slug = if slug.chars().all(|c| c == '.') {
            "model".to_owned()
        } else {
            slug
        };
        unique(&free(cut(&slug, MAX_SLUG - "-model".len())), &mut taken, MAX_SLUG)
    })
    .collect()
}

/// Text forms of a looked-up name are compared in: lower case, `:` for `@`.
pub(crate) fn lookup_form(name: &str) -> String {
    name.to_lowercase().replace('@', ":")
}

/// Names → positions; the first to claim a name keeps it.
#[derive(Debug, Default, Clone)]
pub(crate) struct NameMap(HashMap<String, usize>);

impl NameMap {
    /// Claims a name. Returns false when another position has it.
    pub(crate) fn claim(&mut self, name: &str, at: usize) -> bool {
        !name.is_empty() && *self.0.entry(lookup_form(name)).or_insert(at) == at
    }

    /// Takes over all names of another map that are still free.
    pub(crate) fn fill_from(&mut self, other: &Self) {
        for (name, at) in &other.0 {
            self.0.entry(name.clone()).or_insert(*at);
        }
    }

    /// The position of a name that is already in [`lookup_form`].
    pub(crate) fn get(&self, form: &str) -> Option<usize> {
        self.0.get(form).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quants_come_off_the_end() {
        for (stem, base, quant) in [
            ("Llama-3.2-1B-Instruct-Q4_K_M", "llama-3.2-1b-instruct", Some("q4_k_m")),
            ("llama-2-7b-chat.Q4_K_M", "llama-2-7b-chat", Some("q4_k_m")),
            ("my_model_q4_k_m", "my-model", Some("q4_k_m")),
            ("qwen2.5-0.5b-instruct-q4-k-m", "qwen2.5-0.5b-instruct", Some("q4_k_m")),
            ("gemma-f16", "gemma", Some("f16")),
            ("gemma-bf16", "gemma", Some("bf16")),
            ("gemma-3-1b-it-qat-q4_0", "gemma-3-1b-it-qat", Some("q4_0")),
            ("DeepSeek-R1-UD-IQ1_S", "deepseek-r1", Some("ud_iq1_s")),
            ("m-UD-Q4_K_XL", "m", Some("ud_q4_k_xl")),
            ("m.i1-IQ3_XXS", "m", Some("i1_iq3_xxs")),
            ("gpt-oss-20b-MXFP4", "gpt-oss-20b", Some("mxfp4")),
            ("m-q8", "m", Some("q8")),
            ("tiny-chat", "tiny-chat", None),
            ("qwen3-4b", "qwen3-4b", None),
            ("Q4_K_M", "q4-k-m", None),
            ("model-q9_0", "model-q9-0", None),
            ("faq-q1x", "faq-q1x", None),
            ("Мой Файл!!", "мой-файл", None),
            ("...", "model", None),
            ("", "model", None),
        ] {
            let (rest, found) = split_quant(stem);
            assert_eq!((normal_name(rest).as_str(), found.as_deref()), (base, quant), "{stem}");
        }
    }

    fn keys(models: &[(&str, &str, &str)]) -> Vec<String> {
        let models: Vec<Naming> = models
            .iter()
            .map(|(base, quant, publisher)| Naming {
                base: (*base).into(),
                quant: (*quant).into(),
                publisher: (*publisher).into(),
            })
            .collect();
        assign_keys(&models, &HashSet::from(["taken".to_owned()]))
            .into_iter()
            .map(|own| own.key)
            .collect()
    }

    #[test]
    fn keys_by_table() {
        assert_eq!(keys(&[("a", "q4", "")]), ["a"]);
        assert_eq!(keys(&[("a", "q4", ""), ("a", "q8", "")]), ["a@q4", "a@q8"]);
        assert_eq!(keys(&[("a", "q4", ""), ("a", "q4", "")]), ["a", "a-2"]);
        assert_eq!(
            keys(&[("a", "q4", "Ann"), ("a", "q4", "Bob"), ("a", "q8", "Bob")]),
            ["ann/a", "bob/a@q4", "bob/a@q8"]
        );
        assert_eq!(keys(&[("a", "q4", "Ann"), ("a", "q4", "")]), ["ann/a", "a"]);
        assert_eq!(
            keys(&[("ps", "q4", ""), ("By-Id", "q4", "")]),
            ["ps-model", "By-Id-model"]
        );
        assert_eq!(
            keys(&[("taken", "q4", ""), ("a-2", "q4", ""), ("a", "q4", ""), ("a", "q4", "")])[0],
            "taken-2"
        );
        assert_eq!(
            keys(&[("a-2", "q4", ""), ("a", "q4", ""), ("a", "q4", "")]),
            ["a-2", "a", "a-3"]
        );
    }

    #[test]
    fn slugs_are_plain_and_unique() {
        let long = "x".repeat(90);
        let keys = ["a/b:c", "a-b-c", "..", "ps", &long, &format!("{long}y"), "größe"];
        let slugs = slugs(keys.into_iter());
        assert_eq!(slugs[..4], ["a-b-c", "a-b-c-2", "model", "ps-model"]);
        assert!(
            slugs
                .iter()
                .all(|s| s.len() <= 50 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
        );
        assert_eq!(slugs.iter().collect::<HashSet<_>>().len(), slugs.len());
    }

    proptest! {
        #[test]
        fn keys_are_unique_and_usable(
            models in proptest::collection::vec(("[a-c]{1,2}(-2)?|ps", "q[48]", "(x|y)?"), 0..30),
        ) {
            let namings: Vec<Naming> =
                models.into_iter().map(|(base, quant, publisher)| Naming { base, quant, publisher }).collect();
            let keys = assign_keys(&namings, &HashSet::new());
            prop_assert_eq!(&keys, &assign_keys(&namings, &HashSet::new()));
            prop_assert_eq!(keys.iter().map(|k| k.key.to_lowercase()).collect::<HashSet<_>>().len(), keys.len());
            prop_assert!(keys.iter().all(|own| !domain::is_reserved_name(&own.key)));
        }

        #[test]
        fn any_file_name(stem in "\\PC{0,120}") {
            let (base, _) = split_quant(&stem);
            let name = normal_name(base);
            prop_assert!(!name.is_empty() && name.len() <= MAX_BASE && !name.contains(['/', '\\', ':', '@', ' ']));
            prop_assert!(!name.chars().all(|c| c == '.'));
        }
    }
}
