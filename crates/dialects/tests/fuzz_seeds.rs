//! The fuzz bodies of this crate's parsers over their seeds, over mutations of them, and over the recorded requests.

#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

#[path = "../../../fuzz/bodies/anthropic.rs"]
mod anthropic;
#[path = "../../../fuzz/bodies/audio.rs"]
mod audio;
#[path = "../../../fuzz/bodies/lmstudio_ws.rs"]
mod lmstudio_ws;
#[path = "../../../fuzz/bodies/ollama.rs"]
mod ollama;
#[path = "../../../fuzz/bodies/peek.rs"]
mod peek;
#[path = "../../../fuzz/bodies/responses.rs"]
mod responses;
#[path = "../../../fuzz/bodies/speech.rs"]
mod speech;
#[path = "../../../fuzz/bodies/sse.rs"]
mod sse;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// What a parser does with its input and what must hold afterwards.
type Body = fn(&[u8]);

const BODIES: [(&str, Body); 8] = [
    ("anthropic", anthropic::run),
    ("audio", audio::run),
    ("lmstudio_ws", lmstudio_ws::run),
    ("ollama", ollama::run),
    ("peek", peek::run),
    ("responses", responses::run),
    ("speech", speech::run),
    ("sse", sse::run),
];

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(name);
    let mut found = Vec::new();
    below(&folder, &mut found);
    found.sort();
    found.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_seed() {
    for (name, run) in BODIES {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "the seeds of {name} are gone");
        for seed in seeds {
            run(&seed);
        }
    }
}

/// Whatever was ever recorded is food for every parser.
#[test]
fn every_recording() {
    let mut found = Vec::new();
    below(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        &mut found,
    );
    for path in found {
        let bytes = std::fs::read(path).unwrap();
        for (_, run) in BODIES {
            run(&bytes[..bytes.len().min(4096)]);
        }
    }
}

/// Pieces that the grammar of all these bodies is made of.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "null",
    "true",
    "-1",
    "1e400",
    "0.5",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\"type\":",
    "\"content\":",
    "\"role\":",
    "\"tools\":",
    "\"model\":",
    "data:",
    "\n",
    "\r",
    "\n\n",
    "\u{feff}",
    "é",
    "😀",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (_, run) in BODIES {
            run(&bytes);
        }
    }

    #[test]
    fn mutated_seeds(
        body in 0..BODIES.len(),
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>(), any::<prop::sample::Index>()), 1..8),
    ) {
        let (name, run) = BODIES[body];
        let mut seeds = seeds(name);
        let at = seed.index(seeds.len());
        let mut bytes = seeds.swap_remove(at);
        for (at, kind, byte, word) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => {
                    bytes.drain(at..(at + usize::from(byte) % 8).min(bytes.len()));
                }
                _ => {
                    bytes.splice(at..at, WORDS[word.index(WORDS.len())].bytes());
                }
            }
        }
        run(&bytes);
    }
}
