use std::path::{Component, Path};

use ollama_store::{Digest, Manifest, Name};

/// Reads `data` as a manifest, as a model's name and as a digest. Must hold: no panic; what is written again reads the
/// same; no part of an accepted name leads out of a folder.
pub(crate) fn run(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(Manifest::parse(&manifest.to_bytes()).ok().as_ref(), Some(&manifest));
        let _ = (manifest.size(), manifest.all().count());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(name) = Name::parse(text) {
        for part in [&name.host, &name.namespace, &name.model, &name.tag] {
            let mut components = Path::new(part).components();
            assert!(
                matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none(),
                "{part:?}"
            );
        }
        assert_eq!(Name::parse(&name.to_string()), Some(name.clone()), "{text:?}");
        assert_eq!(Name::parse(&name.full()), Some(name));
    }
    if let Some(digest) = Digest::from_hex(text) {
        assert_eq!(digest.hex(), text.to_ascii_lowercase());
    }
}
