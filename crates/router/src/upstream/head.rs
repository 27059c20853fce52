//! Request and response heads.

use std::io::Write;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, ORIGIN, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Framing;
use super::framing::Malformed;

/// Longest response head.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 96;

/// The part of a request head that is the same for every request to an instance.
pub(crate) struct Prefix(Box<[u8]>);

impl Prefix {
    pub(crate) fn new(address: SocketAddr, key: &str) -> Self {
        Self(
            format!("Host: {address}\r\nAuthorization: Bearer {key}\r\n")
                .into_bytes()
                .into(),
        )
    }
}

/// Never passed to the engine (promise H7): hop-by-hop fields, the client's credentials, where it came from; and
/// `X-Conversation-Id`, with which the engine would go on after a disconnect (engine guide 2.1).
fn is_withheld(name: &HeaderName) -> bool {
    let known = [
        AUTHORIZATION,
        CONNECTION,
        CONTENT_LENGTH,
        COOKIE,
        EXPECT,
        FORWARDED,
        HOST,
        ORIGIN,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    known.contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "x-api-key" | "x-conversation-id" | "x-real-ip"
        )
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("access-control-")
        || name.as_str().starts_with("sec-fetch-")
}

/// The engine's own words about itself, its CORS rules and its connection stay here (promise S4).
fn is_dropped(name: &HeaderName) -> bool {
    [CONNECTION, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "x-powered-by")
        || name.as_str().starts_with("access-control-")
}

/// The bytes of a request head. `None`: the path is not one line of visible characters.
pub(crate) fn request_head(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body_len: u64,
    prefix: &Prefix,
) -> Option<Vec<u8>> {
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut head = Vec::with_capacity(384);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    head.extend_from_slice(&prefix.0);
    if body_len > 0 || !matches!(*method, Method::GET | Method::HEAD | Method::DELETE) {
        // Writing to a Vec cannot fail.
        let _ = write!(head, "Content-Length: {body_len}\r\n");
    }
    for (name, value) in headers {
        if is_withheld(name) {
            continue;
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// A response head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// The connection may be used again after the body.
    pub(crate) keep: bool,
}

impl Head {
    /// Takes a complete head out of `read`; `None`: more bytes are needed. Interim heads (1xx) are skipped.
    pub(crate) fn take(read: &mut BytesMut, to_head_request: bool) -> Result<Option<Self>, Malformed> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut response = httparse::Response::new(&mut fields);
            let length = match response.parse(read) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if read.len() < MAX_HEAD => return Ok(None),
                Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
            };
            let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| Malformed)?;
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Malformed);
            }
            if status.is_informational() {
                read.advance(length);
                continue;
            }
            let head = Self::build(status, &response, to_head_request)?;
            read.advance(length);
            return Ok(Some(head));
        }
    }

    fn build(
        status: StatusCode,
        response: &httparse::Response<'_, '_>,
        to_head_request: bool,
    ) -> Result<Self, Malformed> {
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        let mut keep = response.version == Some(1);
        let mut length: Option<u64> = None;
        let mut chunked = false;
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
            if name == CONNECTION {
                keep &= !contains(field.value, "close");
            } else if name == TRANSFER_ENCODING {
                // Any other coding, or two of them, cannot be passed on.
                if chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                chunked = true;
            } else if name == CONTENT_LENGTH {
                let text = std::str::from_utf8(field.value).map_err(|_| Malformed)?.trim();
                let value = text
                    .bytes()
                    .all(|b| b.is_ascii_digit())
                    .then(|| text.parse().ok())
                    .flatten()
                    .ok_or(Malformed)?;
                if length.is_some_and(|other| other != value) {
                    return Err(Malformed);
                }
                if length.replace(value).is_some() {
                    continue;
                }
            }
            if !is_dropped(&name) {
                headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
            }
        }
        let framing = match (chunked, length) {
            (true, Some(_)) => return Err(Malformed),
            _ if to_head_request || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
                Framing::Length(0)
            }
            (true, None) => Framing::Chunked(super::framing::Chunked::default()),
            (false, Some(length)) => Framing::Length(length),
            (false, None) => {
                keep = false;
                Framing::UntilClose
            }
        };
        Ok(Self {
            status,
            headers,
            framing,
            keep,
        })
    }
}

fn contains(value: &[u8], word: &str) -> bool {
    value
        .split(|b| *b == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Head>, Malformed> {
        Head::take(&mut BytesMut::from(text), false)
    }

    #[test]
    fn framing_of_a_response() {
        let check = |fields: &str, expected: &str, keep: bool| {
            let head = parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap().unwrap();
            assert_eq!(
                (format!("{:?}", head.framing).starts_with(expected), head.keep),
                (true, keep),
                "{fields:?}"
            );
        };
        check("Content-Length: 5\r\n", "Length(5)", true);
        check("Content-Length: 5\r\nContent-Length: 5\r\n", "Length(5)", true);
        check("Transfer-Encoding: chunked\r\n", "Chunked", true);
        check("Content-Length: 5\r\nConnection: Close\r\n", "Length(5)", false);
        check("", "UntilClose", false);
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "A: b\r\n c\r\n",
        ] {
            assert!(
                parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).is_err(),
                "{fields:?}"
            );
        }
        assert!(parse("HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
        assert!(parse("garbage\r\n\r\n").is_err());
        assert!(parse(&format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD))).is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nContent-").unwrap().is_none());
    }

    #[test]
    fn interim_heads_are_skipped_and_the_engine_stays_anonymous() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nServer: llama.cpp\r\nKeep-Alive: timeout=5\r\n\
                    Access-Control-Allow-Origin: *\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n";
        let head = parse(text).unwrap().unwrap();
        assert_eq!(head.status, 404);
        let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "content-length"]);
    }

    #[test]
    fn request_heads_carry_our_key_and_not_the_clients() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-api-key",
            "host",
            "connection",
            "transfer-encoding",
            "content-length",
            "x-forwarded-for",
            "x-conversation-id",
            "cookie",
            "origin",
            "upgrade",
            "te",
            "expect",
            "keep-alive",
            "sec-fetch-site",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("client"));
        }
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let prefix = Prefix::new("127.0.0.1:80".parse().unwrap(), "ours");
        let head = request_head(&Method::POST, "/v1/x?a=b", &headers, 7, &prefix).unwrap();
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "POST /v1/x?a=b HTTP/1.1\r\nHost: 127.0.0.1:80\r\nAuthorization: Bearer ours\r\nContent-Length: 7\r\n\
             content-type: application/json\r\n\r\n"
        );
        for bad in ["", "v1", "/a b", "/a\r\nX: y", "/ä"] {
            assert!(
                request_head(&Method::GET, bad, &HeaderMap::new(), 0, &prefix).is_none(),
                "{bad:?}"
            );
        }
    }
}
