//! Where things lie. No name from outside chooses a path freely (promise D4): names are four checked parts, digests are 32
//! bytes.

use std::path::{Path, PathBuf};

use crate::{Digest, Name, StoreError};

/// Names that mean devices on Windows, with any extension.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

pub(crate) fn manifests(root: &Path) -> PathBuf {
    root.join("manifests")
}

pub(crate) fn blobs(root: &Path) -> PathBuf {
    root.join("blobs")
}

pub(crate) fn links(root: &Path) -> PathBuf {
    root.join("links")
}

pub(crate) fn temporary(root: &Path) -> PathBuf {
    root.join("tmp")
}

/// The manifest of a name. The grammar already keeps separators, `..` and control characters out.
pub(crate) fn manifest(root: &Path, name: &Name) -> Result<PathBuf, StoreError> {
    // The fields are public: a name need not have come from the parser.
    let checked = Name::from_parts(&name.host, &name.namespace, &name.model, &name.tag).is_some();
    let parts = [&name.host, &name.namespace, &name.model, &name.tag];
    if !checked || parts.iter().any(|part| !portable(part)) {
        return Err(StoreError::Unstorable(name.clone()));
    }
    Ok(parts.iter().fold(manifests(root), |path, part| path.join(part)))
}

/// Is a part of the grammar a file name on every system? (A port's colon is left to the host part of this system.)
fn portable(part: &str) -> bool {
    !part.ends_with('.') && !is_device_name(part)
}

/// Does Windows take this file name for a device (`con`, `Aux.txt`, `com1 .gguf`)?
pub fn is_device_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    let stem = stem.trim_end().to_ascii_lowercase();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"))
        .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()));
    numbered || DEVICES.contains(&stem.as_str())
}

/// The blob that a file among the blobs is or was to become; true: it is unfinished, or a note about one that is.
pub(crate) fn blob_of(name: &str) -> Option<(Digest, bool)> {
    let (blob, rest) = match name.find(".partial") {
        Some(at) => name.split_at(at),
        None => (name, ""),
    };
    Some((blob.parse().ok()?, !rest.is_empty()))
}

/// The blob's own name in this store.
pub(crate) fn blob(root: &Path, digest: &Digest) -> PathBuf {
    blobs(root).join(format!("sha256-{}", digest.hex()))
}

/// The name old stores gave it.
pub(crate) fn old_blob(root: &Path, digest: &Digest) -> PathBuf {
    blobs(root).join(digest.to_string())
}

/// The folder of links of a split model. Named after all parts: two models may share some.
pub(crate) fn link_folder(root: &Path, parts: &[Digest]) -> PathBuf {
    let all: String = parts.iter().map(Digest::hex).collect();
    links(root).join(Digest::of(all.as_bytes()).hex())
}

/// The name of part `number` (from 1) of `count` in it.
pub(crate) fn link_name(number: usize, count: usize) -> String {
    format!("model-{number:05}-of-{count:05}.gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_leave_the_root() {
        let root = Path::new("/r");
        let path = |text: &str| Name::parse(text).and_then(|name| manifest(root, &name).ok());
        assert_eq!(
            path("x").unwrap(),
            Path::new("/r/manifests/registry.ollama.ai/library/x/latest")
        );
        for text in [
            "..", "../x", "a/../b", "x:..", "/x", "x/", "a\\b", "con", "x:NUL", "aux.txt", "com1", "lpt9.q4", "x.",
            "x:q4.", "x\0", "c:/x",
        ] {
            assert_eq!(path(text), None, "{text}");
        }
        let forged = Name {
            host: "..".into(),
            namespace: "..".into(),
            model: "etc".into(),
            tag: "passwd".into(),
        };
        assert!(manifest(root, &forged).is_err());
        for fine in ["console", "com10", "communist", "nullable"] {
            assert!(path(fine).is_some(), "{fine}");
        }
    }
}
