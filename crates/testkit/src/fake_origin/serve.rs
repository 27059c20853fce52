use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Response, StatusCode};

use super::body::{End, OriginBody};
use super::fault::OriginFault;
use super::server::Asked;

pub(super) type Answer = Response<OriginBody>;

/// A response of a status, headers and a body; headers that are no headers are left out.
pub(super) fn answer(status: StatusCode, headers: &[(&str, &str)], body: OriginBody) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(*name), http::HeaderValue::try_from(*value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let body = OriginBody::complete(value.to_string());
    answer(status, &[(CONTENT_TYPE.as_str(), "application/json")], body)
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let body = OriginBody::complete(text.into());
    answer(status, &[(CONTENT_TYPE.as_str(), "text/plain; charset=utf-8")], body)
}

pub(super) fn redirect(status: StatusCode, to: &str) -> Answer {
    answer(status, &[(LOCATION.as_str(), to)], OriginBody::complete(""))
}

/// The answer a fault gives instead of the true one; `None` breaks the connection.
pub(super) fn instead(fault: &OriginFault) -> Option<Answer> {
    let known = |status: u16| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match fault {
        OriginFault::LoginPage => {
            let page = "<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>";
            let html = [(CONTENT_TYPE.as_str(), "text/html; charset=utf-8")];
            Some(answer(StatusCode::OK, &html, OriginBody::complete(page)))
        }
        OriginFault::Status {
            status,
            retry_after,
            body,
        } => {
            let mut response = text(known(*status), body.clone());
            if let Some(Ok(value)) = retry_after.as_deref().map(http::HeaderValue::try_from) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
            Some(response)
        }
        OriginFault::Unauthorized { realm } => Some(unauthorized(realm, "repository:any:pull")),
        OriginFault::Redirect { status, to } => Some(redirect(known(*status), to)),
        _ => None,
    }
}

pub(super) fn unauthorized(realm: &str, scope: &str) -> Answer {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"fake-origin\",scope=\"{scope}\"");
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let headers = [
        (WWW_AUTHENTICATE.as_str(), challenge.as_str()),
        (CONTENT_TYPE.as_str(), "application/json"),
    ];
    answer(StatusCode::UNAUTHORIZED, &headers, OriginBody::complete(body))
}

/// What a `Range` header asks of `size` bytes.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(u64, u64),
    Nothing,
}

fn wanted(headers: &HeaderMap, etag: Option<&str>, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    // RFC 9110 13.1.5: only a strong validator that is equal lets the range stand.
    if let Some(condition) = text(IF_RANGE)
        && (condition.starts_with("W/") || etag != Some(condition))
    {
        return Wanted::All;
    }
    let Some((from, to)) = range.split_once('-') else {
        return Wanted::All;
    };
    let last = size.saturating_sub(1);
    let (first, end) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(first), Ok(end)) => (first, end.min(last)),
        (Ok(first), Err(_)) => (first, last),
        (Err(_), Ok(suffix)) => (size.saturating_sub(suffix), last),
        (Err(_), Err(_)) => return Wanted::All,
    };
    if first >= size || first > end {
        Wanted::Nothing
    } else {
        Wanted::Part(first, end)
    }
}

/// Serves a file: whole or the range asked for, with its faults.
pub(super) fn file(asked: &Asked, bytes: &Bytes, hash: &str, faults: &[OriginFault]) -> Answer {
    let has = |fault: &OriginFault| faults.contains(fault);
    let mut bytes = bytes.clone();
    for fault in faults {
        if let OriginFault::FlipByte { at } = fault
            && let Ok(at) = usize::try_from(*at)
            && at < bytes.len()
        {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            bytes = flipped.into();
        }
    }
    // Of the true content: a flipped byte is damage on the way, which no tag tells.
    let etag = match &hash[..32] {
        _ if has(&OriginFault::NoEtag) => None,
        tag if has(&OriginFault::WeakEtag) => Some(format!("W/\"{tag}\"")),
        tag if has(&OriginFault::NewEtag) => Some(format!("\"{tag}-{}\"", asked.serial)),
        tag => Some(format!("\"{tag}\"")),
    };
    let size = bytes.len() as u64;
    let wanted = if has(&OriginFault::IgnoreRange) {
        Wanted::All
    } else {
        wanted(&asked.headers, etag.as_deref(), size)
    };
    let (status, first, mut body) = match wanted {
        Wanted::All => (StatusCode::OK, 0, bytes.clone()),
        Wanted::Part(first, end) => {
            let first = match first {
                0 if has(&OriginFault::WrongContentRange) => 1.min(end),
                first if has(&OriginFault::WrongContentRange) => first - 1,
                first => first,
            };
            (StatusCode::PARTIAL_CONTENT, first, slice(&bytes, first, end + 1))
        }
        Wanted::Nothing => {
            let range = format!("bytes */{size}");
            let headers = [(CONTENT_RANGE.as_str(), range.as_str())];
            return answer(StatusCode::RANGE_NOT_SATISFIABLE, &headers, OriginBody::complete(""));
        }
    };
    let content_range = format!("bytes {first}-{}/{size}", (first + body.len() as u64).saturating_sub(1));
    let (mut end, mut speed, mut length) = (End::Complete, None, None);
    for fault in faults {
        match fault {
            OriginFault::LongBody { extra } => body = [&body[..], &vec![b'x'; *extra as usize]].concat().into(),
            OriginFault::ShortBody { missing } => body = slice(&body, 0, (body.len() as u64).saturating_sub(*missing)),
            _ => {}
        }
    }
    let true_length = body.len() as u64;
    for fault in faults {
        match fault {
            OriginFault::Cut { after } | OriginFault::Stall { after } if *after < true_length => {
                body = slice(&body, 0, *after);
                let cut = matches!(fault, OriginFault::Cut { .. });
                end = if cut { End::Cut } else { End::Stall };
            }
            OriginFault::Slow { bytes_per_second } => speed = Some(*bytes_per_second),
            OriginFault::WrongContentLength { off_by } => {
                length = Some(true_length.saturating_add_signed(*off_by));
                // An honest end would contradict the header, and the server library would refuse to send it.
                if *off_by > 0 {
                    end = End::Cut;
                }
                body = slice(&body, 0, true_length.saturating_add_signed(*off_by).min(true_length));
            }
            _ => {}
        }
    }
    let length = length.unwrap_or(true_length).to_string();
    let mut all = vec![
        (CONTENT_TYPE.as_str(), "application/octet-stream"),
        (ACCEPT_RANGES.as_str(), "bytes"),
        (CONTENT_LENGTH.as_str(), length.as_str()),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        all.push((CONTENT_RANGE.as_str(), content_range.as_str()));
    }
    if let Some(etag) = &etag {
        all.push((ETAG.as_str(), etag.as_str()));
    }
    let body = if asked.method == Method::HEAD {
        OriginBody::complete("")
    } else {
        OriginBody::new(body, end, speed)
    };
    answer(status, &all, body)
}

fn slice(bytes: &Bytes, from: u64, to: u64) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(from)..at(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(range: &str, condition: Option<&str>) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        if let Some(condition) = condition {
            headers.insert(IF_RANGE, condition.parse().unwrap());
        }
        wanted(&headers, Some("\"a\""), 10)
    }

    #[test]
    fn ranges() {
        assert_eq!(ask("bytes=2-5", None), Wanted::Part(2, 5));
        assert_eq!(ask("bytes=2-", None), Wanted::Part(2, 9));
        assert_eq!(ask("bytes=-3", None), Wanted::Part(7, 9));
        assert_eq!(ask("bytes=2-50", None), Wanted::Part(2, 9));
        assert_eq!(ask("bytes=10-", None), Wanted::Nothing);
        assert_eq!(ask("bytes=x", None), Wanted::All);
        assert_eq!(ask("bytes=2-5", Some("\"a\"")), Wanted::Part(2, 5));
        assert_eq!(ask("bytes=2-5", Some("\"b\"")), Wanted::All);
        assert_eq!(ask("bytes=2-5", Some("W/\"a\"")), Wanted::All);
    }
}
