//! The fuzz body over its seeds, and over a short run of random and mutated inputs.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../../fuzz/bodies/ollama_store.rs"]
mod body;

use std::path::Path;

use proptest::prelude::*;

fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ollama_store");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_seed() {
    let seeds = seeds();
    assert!(seeds.len() >= 4, "the seeds are gone");
    for seed in seeds {
        body::run(&seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 500 } else { 5000 }))]

    #[test]
    fn names(text in r"([a-z]{1,5}://)?[-a-zA-Z0-9_.:/\\ é]{0,40}") {
        body::run(text.as_bytes());
    }

    #[test]
    fn mutated_seeds(
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut seeds = seeds();
        let at = seed.index(seeds.len());
        let mut bytes = seeds.swap_remove(at);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        body::run(&bytes);
    }
}
