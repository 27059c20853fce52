//! What an uploaded file is (contract 10.8).

/// The word for a file, by its first bytes, then by its name.
pub fn file_type(name: &str, bytes: &[u8]) -> &'static str {
    if image_mime(bytes).is_some() {
        return "image";
    }
    if bytes.starts_with(b"%PDF-") {
        return "application/pdf";
    }
    let ending = name
        .rsplit_once('.')
        .map_or("", |(_, ending)| ending)
        .to_ascii_lowercase();
    match ending.as_str() {
        "txt" => "text/plain",
        "pdf" => "application/pdf",
        "doc" | "docx" => "application/word",
        _ if !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok() => "text/other",
        _ => "unknown",
    }
}

/// Media type of an image that vision models are given.
pub(super) fn image_mime(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'B', b'M', ..] if bytes.len() > 26 => Some("image/bmp"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (name, bytes, kind) in [
            ("a.txt", &b"hello"[..], "text/plain"),
            ("a.png", b"\x89PNG\r\n", "image"),
            ("a.txt", b"\xff\xd8\xff\xe0", "image"),
            ("a", b"RIFF1234WEBPVP8", "image"),
            ("a.pdf", b"", "application/pdf"),
            ("a.docx", b"PK", "application/word"),
            ("a.py", b"print()", "text/other"),
            ("a.bin", b"\0\x01", "unknown"),
            ("a.png", b"not an image", "text/other"),
        ] {
            assert_eq!(file_type(name, bytes), kind, "{name}");
        }
    }
}
