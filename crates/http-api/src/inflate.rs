//! Compressed request bodies of `/v1/responses`: Codex sends them (Ollama contract 7.3). Elsewhere they are refused.

use std::io::Read;

use bytes::Bytes;
use domain::{ErrorKind, RunnerError};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Largest body after inflation, in bytes. Nothing beyond it is ever inflated (promise H6).
const MAX_INFLATED: u64 = 20 << 20;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
}

/// The coding that a request names; `None`: it is sent as it is.
///
/// # Errors
/// `InvalidRequest` (answered with 415) for any other, and for several at once.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, RunnerError> {
    let mut named = headers.get_all(CONTENT_ENCODING).iter();
    let first = named.next().map_or(&b"identity"[..], |value| value.as_bytes());
    let is = |word: &str| first.eq_ignore_ascii_case(word.as_bytes());
    match () {
        () if named.next().is_some() => Err(refused("several codings")),
        () if is("identity") => Ok(None),
        () if is("zstd") => Ok(Some(Coding::Zstd)),
        () if is("gzip") || is("x-gzip") => Ok(Some(Coding::Gzip)),
        () => Err(refused(&String::from_utf8_lossy(first))),
    }
}

/// The refusal of a coding.
pub(crate) fn refused(text: &str) -> RunnerError {
    RunnerError::invalid(format!(
        "Content-Encoding '{text}' is not supported; send the body as it is."
    ))
    .code("unsupported_encoding")
}

/// The body as it was before the client compressed it.
pub(crate) async fn body(body: Bytes, headers: &HeaderMap) -> Result<Bytes, RunnerError> {
    let Some(coding) = coding(headers)? else {
        return Ok(body);
    };
    // Twenty megabytes take long enough to belong on a thread that may block.
    tokio::task::spawn_blocking(move || inflate(&body, coding, MAX_INFLATED))
        .await
        .map_err(|_| RunnerError::internal("Reading the compressed body failed."))?
}

fn inflate(body: &[u8], coding: Coding, most: u64) -> Result<Bytes, RunnerError> {
    let damaged = || RunnerError::invalid("The compressed request body is damaged.").code("invalid_body");
    let mut inflated = Vec::new();
    // One byte more than allowed tells a full body from one that is too long.
    let read = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(body)
            .take(most + 1)
            .read_to_end(&mut inflated),
        Coding::Zstd => ruzstd::decoding::StreamingDecoder::new(body)
            .map_err(|_| damaged())?
            .take(most + 1)
            .read_to_end(&mut inflated),
    };
    read.map_err(|_| damaged())?;
    if inflated.len() as u64 > most {
        let limit = most >> 20;
        return Err(RunnerError::new(
            ErrorKind::TooLarge,
            format!("The request body is larger than {limit} MiB when inflated."),
        ));
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::io::Write;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    fn zstd(body: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn codings() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            coding(&headers)
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["Identity"]).unwrap(), None);
        assert_eq!(of(&["zstd"]).unwrap(), Some(Coding::Zstd));
        assert_eq!(of(&["GZIP"]).unwrap(), Some(Coding::Gzip));
        for refused in [&["br"][..], &["gzip, zstd"], &["gzip", "zstd"], &["deflate"]] {
            assert_eq!(of(refused).unwrap_err().code.as_deref(), Some("unsupported_encoding"));
        }
    }

    #[test]
    fn round_trips_and_bounds() {
        let text = br#"{"model":"x","input":"hello hello hello hello"}"#.repeat(50);
        for (coding, packed) in [(Coding::Gzip, gzip(&text)), (Coding::Zstd, zstd(&text))] {
            assert_eq!(inflate(&packed, coding, 1 << 20).unwrap(), text);
            assert!(inflate(&packed[..packed.len() / 2], coding, 1 << 20).is_err());
            assert!(inflate(b"plain text", coding, 1 << 20).is_err());
            let exact = text.len() as u64;
            assert!(inflate(&packed, coding, exact).is_ok());
            let error = inflate(&packed, coding, exact - 1).unwrap_err();
            assert_eq!(error.kind, ErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_bomb_is_never_inflated_whole() {
        // 256 MiB of zeros in a few hundred kilobytes.
        let zeros = vec![0u8; 1 << 20];
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        (0..256).for_each(|_| writer.write_all(&zeros).unwrap());
        let bomb = writer.finish().unwrap();
        let error = inflate(&bomb, Coding::Gzip, MAX_INFLATED).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        let bomb = zstd(&vec![0u8; 64 << 20]);
        let error = inflate(&bomb, Coding::Zstd, MAX_INFLATED).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
    }
}
