//! Hostile and damaged files: refused in words, quickly, and without the memory they ask for.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use gguf::craft::{Craft, list_head};
use gguf::{Detail, GgufError, Header};

const DETAILS: [Detail; 3] = [Detail::Facts, Detail::Tensors, Detail::Verbose];

fn read(file: &[u8], detail: Detail) -> Result<Header, GgufError> {
    Header::read(&mut Cursor::new(file), file.len() as u64, detail)
}

/// Peak memory of this process in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[test]
fn refused_in_words() {
    let text = |kind: u32, len: u64| [kind.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
    let deep = |n: usize| [list_head(9, 1).repeat(n), list_head(4, 0)].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "not a GGUF file"),
        ("html", b"<!DOCTYPE html><html>".to_vec(), "not a GGUF file"),
        (
            "version 1",
            Craft::new().version(1).build(),
            "version 1 is not supported",
        ),
        (
            "version 0",
            Craft::new().version(0).build(),
            "version 0 is not supported",
        ),
        ("future", Craft::new().version(9).build(), "version 9 is not supported"),
        (
            "big-endian",
            Craft::new().version(3_u32.swap_bytes()).build(),
            "big-endian",
        ),
        (
            "keys",
            Craft::model("x").build_with_counts(0, u64::MAX),
            "keys, at most",
        ),
        (
            "keys that do not fit",
            Craft::new().build_with_counts(0, 1000),
            "keys, at most",
        ),
        (
            "tensors",
            Craft::model("x").build_with_counts(u64::MAX, 1),
            "tensors, at most",
        ),
        (
            "32 GB of tensors",
            Craft::model("x").build_with_counts(1 << 30, 1),
            "tensors, at most",
        ),
        ("long key", text(u32::from_le_bytes(*b"GGUF"), 0), "version 0"),
        (
            "long text",
            Craft::new().raw("k", 8, &u64::MAX.to_le_bytes()).build(),
            "ends inside its metadata",
        ),
        (
            "long list",
            Craft::new().raw("k", 9, &list_head(4, 1 << 60)).build(),
            "list items, at most",
        ),
        (
            "long list of texts",
            Craft::new().raw("k", 9, &list_head(8, 1 << 60)).build(),
            "list items, at most",
        ),
        (
            "long list of lists",
            Craft::new().raw("k", 9, &list_head(9, 1 << 60)).build(),
            "list items, at most",
        ),
        (
            "deep list",
            Craft::new().raw("k", 9, &deep(200)).build(),
            "nested too deep",
        ),
        (
            "unknown kind",
            Craft::new().raw("k", 77, &[]).build(),
            "unknown value type 77",
        ),
        (
            "unknown item kind",
            Craft::new().raw("k", 9, &list_head(13, 0)).build(),
            "unknown value type 13",
        ),
        (
            "same key twice",
            Craft::new().uint("k", 1).uint("k", 2).build(),
            "'k' occurs twice",
        ),
        (
            "alignment 0",
            Craft::new().uint("general.alignment", 0).build(),
            "general.alignment",
        ),
        (
            "alignment 48",
            Craft::new().uint("general.alignment", 48).build(),
            "general.alignment",
        ),
        (
            "alignment of text",
            Craft::new().text("general.alignment", "x").build(),
            "general.alignment",
        ),
        (
            "offset at the end",
            Craft::new().raw_tensor("w", &[32], 0, u64::MAX - 31).build(),
            "overflow",
        ),
        (
            "offset behind the file",
            Craft::new().raw_tensor("w", &[32], 0, 1 << 40).build(),
            "incomplete",
        ),
        (
            "crooked offset",
            Craft::new().raw_tensor("w", &[32], 0, 7).build(),
            "not aligned",
        ),
        (
            "shape",
            Craft::new().raw_tensor("w", &[1 << 40, 1 << 40], 0, 0).build(),
            "larger than any memory",
        ),
        (
            "bytes",
            Craft::new().raw_tensor("w", &[1 << 62, 1], 0, 0).build(),
            "overflow",
        ),
        (
            "dimensions",
            Craft::new().raw_tensor("w", &[1; 9], 0, 0).build(),
            "dimensions of a tensor",
        ),
        ("row", Craft::new().raw_tensor("w", &[33], 2, 0).build(), "rows of 33"),
        (
            "name",
            Craft::new().raw_tensor(&"n".repeat(5000), &[1], 0, 0).build(),
            "bytes in a tensor's name",
        ),
    ];
    for (name, file, wanted) in cases {
        for detail in DETAILS {
            let error = read(&file, detail).expect_err(name).to_string();
            assert!(error.contains(wanted), "{name}, {detail:?}: {error}");
        }
    }
}

#[test]
fn odd_but_sound() {
    let header = read(
        &Craft::model("x").raw_tensor("w", &[7, 3], 5000, 0).build(),
        Detail::Tensors,
    )
    .unwrap();
    assert_eq!(header.parameters, 64 * 8 + 21);
    assert_eq!(header.tensors[1].kind_name(), "type 5000");
    let header = read(
        &Craft::new().version(2).raw("k", 9, &list_head(9, 0)).build(),
        Detail::Verbose,
    )
    .unwrap();
    assert_eq!((header.version, header.metadata.len()), (2, 1));
    let header = read(
        &Craft::new().raw("k", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, b'a']).build(),
        Detail::Facts,
    )
    .unwrap();
    assert_eq!(header.metadata.text("k"), Some("\u{fffd}a"));
}

#[test]
fn cut_anywhere() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/models");
    for name in ["tiny-chat.gguf", "tiny-embed.gguf", "tiny-rerank.gguf"] {
        let file = std::fs::read(models.join(name)).unwrap();
        let whole = read(&file, Detail::Facts).unwrap();
        for len in (0..whole.data_offset as usize + 256)
            .step_by(64)
            .chain([file.len() / 2, file.len() - 32])
        {
            let error = read(&file[..len], Detail::Facts).unwrap_err();
            let expected = match len {
                0..4 => matches!(error, GgufError::NotGguf),
                n if n as u64 >= whole.data_offset => matches!(error, GgufError::Incomplete { .. }),
                _ => true,
            };
            assert!(expected, "{name} cut at {len}: {error}");
        }
    }
}

/// A file that claims to be of any size and repeats one block for ever.
struct Endless {
    head: Vec<u8>,
    block: Vec<u8>,
    at: u64,
    read: u64,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let at = self.at as usize;
        let out = if at < self.head.len() {
            let n = out.len().min(self.head.len() - at);
            out[..n].copy_from_slice(&self.head[at..at + n]);
            &mut out[..n]
        } else {
            let from = (at - self.head.len()) % self.block.len();
            let n = out.len().min(self.block.len() - from);
            out[..n].copy_from_slice(&self.block[from..from + n]);
            &mut out[..n]
        };
        self.at += out.len() as u64;
        self.read += out.len() as u64;
        Ok(out.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        if let SeekFrom::Start(at) = to {
            self.at = at;
        }
        Ok(self.at)
    }
}

#[test]
fn memory_and_reading_stay_bounded() {
    let before = peak_kib();
    let key = |kind: u32, tail: &[u8]| {
        let mut head = b"GGUF\x03\0\0\0".to_vec();
        head.extend(0_u64.to_le_bytes());
        head.extend(60_000_u64.to_le_bytes());
        head.extend(1_u64.to_le_bytes());
        head.push(b'k');
        head.extend(kind.to_le_bytes());
        head.extend(tail);
        head
    };
    let text = |len: usize| [(len as u64).to_le_bytes().to_vec(), vec![b'x'; len]].concat();
    let cases = [
        // Many long texts as values, each with a key.
        (
            "texts",
            key(8, &text(10)),
            [text(3), 8_u32.to_le_bytes().to_vec(), text(500_000)].concat(),
        ),
        // A list of 2^40 short texts.
        ("list", key(9, &list_head(8, 1 << 36)), text(60)),
        // A list of 2^36 numbers: skipped by seeking, not read.
        ("numbers", key(9, &list_head(4, 1 << 36)), text(3)),
        (
            "lists",
            key(9, &list_head(9, 1 << 16)),
            [list_head(9, 1 << 16), list_head(4, 0).repeat(1 << 16)].concat(),
        ),
    ];
    for (name, head, block) in cases {
        for detail in DETAILS {
            let mut file = Endless {
                head: head.clone(),
                block: block.clone(),
                at: 0,
                read: 0,
            };
            let started = std::time::Instant::now();
            let result = Header::read(&mut file, 1 << 42, detail);
            println!("{name}, {detail:?}: {:?}, {} MiB", started.elapsed(), file.read >> 20);
            assert!(result.is_err(), "{name}, {detail:?}");
            assert!(
                file.read <= 66 << 20,
                "{name}, {detail:?}: {} MiB read",
                file.read >> 20
            );
        }
    }
    let grown = (peak_kib() - before) / 1024;
    println!("peak memory grew by {grown} MiB");
    assert!(grown < 220, "peak memory grew by {grown} MiB");
}
