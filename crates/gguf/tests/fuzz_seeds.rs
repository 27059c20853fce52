//! The fuzz body over its seeds, and over a short run of random and mutated files.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../../../fuzz/bodies/gguf.rs"]
mod body;

use std::path::Path;

use gguf::craft::{Craft, list_head};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/models");
    std::fs::read(models.join(name)).unwrap()
}

#[test]
fn seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/gguf");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        body::run(&std::fs::read(file.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen >= 8, "the seeds are gone");
}

/// Writes the seed files again: `cargo test -p gguf --test fuzz_seeds -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/gguf");
    std::fs::create_dir_all(&folder).unwrap();
    let nested = [list_head(9, 1), list_head(9, 1), list_head(4, 1), vec![1, 0, 0, 0]].concat();
    for (name, bytes) in [
        ("model", Craft::model("seed").build()),
        ("projector", Craft::projector(64).build()),
        (
            "lists",
            Craft::model("seed")
                .texts("tokenizer.ggml.tokens", &["a", "<PRE>", "<SUF>"])
                .ints("n", &[1, -1])
                .build(),
        ),
        ("nested-list", Craft::model("seed").raw("list", 9, &nested).build()),
        ("no-tensors", Craft::new().text("general.architecture", "llama").build()),
        (
            "endless-list",
            Craft::new().raw("list", 9, &list_head(8, u64::MAX)).build(),
        ),
        (
            "endless-counts",
            Craft::model("seed").build_with_counts(u64::MAX, u64::MAX),
        ),
        (
            "offset-overflow",
            Craft::new().raw_tensor("w", &[32], 0, u64::MAX - 31).build(),
        ),
        (
            "shape-overflow",
            Craft::new().raw_tensor("w", &[u64::MAX, 2], 0, 0).build(),
        ),
        ("big-endian", Craft::new().version(3_u32.swap_bytes()).build()),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(
            Craft::model("x")
                .texts("tokenizer.ggml.tokens", &["one", "<PRE>", "two"])
                .ints("list", &[1, 2])
                .build()
        ),
        Just(Craft::projector(64).build()),
        Just(fixture("tiny-chat.gguf").into_iter().take(25_000).collect()),
        Just(fixture("tiny-embed.gguf").into_iter().take(40_000).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]

    #[test]
    fn any_bytes(tail in proptest::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        let mut file = if magic { b"GGUF\x03\0\0\0".to_vec() } else { Vec::new() };
        file.extend(tail);
        body::run(&file);
    }

    #[test]
    fn mutated_heads(
        mut file in heads(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        words in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0_u32..64), 0..3),
    ) {
        // Single bytes anywhere, and whole numbers of every magnitude, mostly among the first keys.
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for (at, word, shift) in words {
            let at = at.index(file.len().min(1200) - 8);
            file[at..at + 8].copy_from_slice(&(word >> shift).to_le_bytes());
        }
        body::run(&file);
    }
}
