use std::io::Cursor;

use gguf::{Detail, Header};

/// Reads `data` as a GGUF file in every detail. Must hold: no panic, the details agree with each other, and what is
/// derived from a header can be derived from every header that was accepted.
pub(crate) fn run(data: &[u8]) {
    let read = |detail| Header::read(&mut Cursor::new(data), data.len() as u64, detail);
    let Ok(facts) = read(Detail::Facts) else { return };
    let _ = (
        gguf::facts(&facts),
        gguf::purpose(&facts),
        gguf::projector(&facts),
        facts.split(),
    );
    let _ = gguf::capabilities(&facts, gguf::projector(&facts));
    assert!(facts.data_offset >= 24, "data starts inside the header");
    assert!(
        facts.tensor_count == 0 || facts.data_offset <= data.len() as u64,
        "data starts behind the file"
    );
    for detail in [Detail::Tensors, Detail::Verbose] {
        let full = read(detail);
        assert!(
            full.is_ok(),
            "more detail must not make a file unreadable below the memory limits"
        );
        let Ok(full) = full else { return };
        assert_eq!(full.tensors.len() as u64, full.tensor_count);
        assert_eq!(
            (full.parameters, full.tensor_bytes),
            (facts.parameters, facts.tensor_bytes)
        );
        assert_eq!(full.metadata.len(), facts.metadata.len());
        assert_eq!(
            gguf::facts(&full).kv_bytes_per_token.is_some(),
            gguf::facts(&facts).kv_bytes_per_token.is_some()
        );
    }
}
