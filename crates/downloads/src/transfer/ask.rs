//! One request for bytes, and the judgement of its answer (promise D2): an odd answer is an error or a new start, its bytes
//! are never appended.

use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::partial::{Ledger, Partial};
use super::ranges::ContentRange;
use crate::http::{Http, Response, host_of};
use crate::{DownloadError, PlannedFile};

/// An answer whose bytes belong at `start`.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) response: Response,
    /// Where the first byte of the body belongs.
    pub(crate) start: u64,
    /// Where the body ends, when that is known.
    pub(crate) end: Option<u64>,
    /// It is the whole file, or the whole rest of it.
    pub(crate) whole: bool,
}

/// Why a request gave no usable bytes.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Worth another try, after the time the origin asked for.
    Retry(DownloadError, Option<Duration>),
    /// The answer contradicts itself or the question. Worth few tries.
    Odd(DownloadError),
    /// What is there does not belong to what the origin has now: everything from the start.
    Restart(DownloadError),
    /// The file is complete: this is its size.
    Complete(u64),
    /// No use in trying.
    Fatal(DownloadError),
}

/// Asks for the bytes from `at` up to `end`, or all that follow.
///
/// Without anything to continue and with `plain` the whole file is asked for, as for small files.
pub(crate) async fn ask(
    http: &Http,
    file: &PlannedFile,
    partial: &Partial,
    at: u64,
    end: Option<u64>,
    plain: bool,
) -> Result<Opened, Refusal> {
    let validator = {
        let ledger = partial.ledger();
        ledger.validator.clone().filter(|_| !ledger.ignore_validator)
    };
    let ranged = !plain || at > 0;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if ranged {
        let range = end.map_or_else(|| format!("bytes={at}-"), |end| format!("bytes={at}-{}", end - 1));
        headers.insert(RANGE, value(&range)?);
        if let Some(validator) = &validator {
            headers.insert(IF_RANGE, value(validator)?);
        }
    }
    let response = http
        .walk(Method::GET, &file.url, &file.headers, &headers, None)
        .await
        .map_err(|error| match error {
            DownloadError::Network(_) => Refusal::Retry(error, None),
            other => Refusal::Fatal(other),
        })?;
    judge(response, file, partial, &Asked { at, end, ranged })
}

struct Asked {
    at: u64,
    end: Option<u64>,
    ranged: bool,
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text)
        .map_err(|_| Refusal::Fatal(DownloadError::Origin("the origin's ETag is not usable".into())))
}

fn judge(response: Response, file: &PlannedFile, partial: &Partial, asked: &Asked) -> Result<Opened, Refusal> {
    let host = host_of(response.url());
    let odd = |what: &str| Refusal::Odd(DownloadError::Origin(format!("{host} {what}")));
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(unsatisfied(&response, partial, asked)),
        status => return Err(refused(&response, file, status)),
    }
    if response.is_html() {
        return Err(Refusal::Fatal(DownloadError::Origin(format!(
            "{host} sent a web page instead of the file; it may ask for a login"
        ))));
    }
    if response
        .header(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.trim().eq_ignore_ascii_case("identity"))
    {
        return Err(odd("sent the file in a compressed form that nobody asked for"));
    }
    let mut ledger = partial.ledger();
    let fresh = validator(&response);
    let same = match (&ledger.validator, &fresh) {
        _ if ledger.ignore_validator => true,
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    let changed = || {
        Refusal::Restart(DownloadError::Origin(format!(
            "the file at {host} changed during the download"
        )))
    };
    let (start, end, total) = if response.status() == StatusCode::PARTIAL_CONTENT {
        if !asked.ranged {
            return Err(odd("sent a part where the whole was asked for"));
        }
        let Some(ContentRange::Part(range, total)) = response.header(CONTENT_RANGE).and_then(ContentRange::parse)
        else {
            return Err(odd("sent a part without saying which"));
        };
        if range.start != asked.at || asked.end.is_some_and(|end| range.end > end) {
            return Err(odd("sent another part than the one asked for"));
        }
        if response
            .content_length()
            .is_some_and(|length| length != range.end - range.start)
        {
            return Err(odd("contradicts itself about the length of a part"));
        }
        // Without an end in the question and a total in the answer, the end of the part is the end of the file.
        let total = total.or_else(|| (asked.end.is_none() && ledger.size.is_none()).then_some(range.end));
        (range.start, Some(range.end), total)
    } else {
        if asked.at > 0 || ledger.done.bytes() > 0 {
            // The whole file instead of a part: it changed (RFC 9110 13.1.5), or this origin knows no ranges.
            if same && fresh.is_some() {
                ledger.whole_only = true;
                return Err(Refusal::Restart(DownloadError::Origin(format!(
                    "{host} serves no parts of files"
                ))));
            }
            return Err(changed());
        }
        if asked.ranged || response.header(ACCEPT_RANGES).is_some_and(|unit| unit.trim() == "none") {
            ledger.whole_only = true;
        }
        let length = response.content_length();
        (0, length, length)
    };
    if !same {
        return Err(changed());
    }
    learn(&mut ledger, total, fresh).map_err(|known| {
        Refusal::Restart(DownloadError::Origin(format!(
            "{host} has a file of another size ({}) than announced ({known} bytes)",
            total.unwrap_or_default()
        )))
    })?;
    let whole = response.status() == StatusCode::OK || (end.is_some() && end == ledger.size);
    drop(ledger);
    Ok(Opened {
        response,
        start,
        end,
        whole,
    })
}

/// Takes over size and version; the known size when the two contradict.
fn learn(ledger: &mut Ledger, total: Option<u64>, fresh: Option<String>) -> Result<(), u64> {
    match (ledger.size, total) {
        (Some(known), Some(total)) if known != total => return Err(known),
        (None, total) => ledger.size = total,
        _ => {}
    }
    if ledger.validator.is_none() {
        ledger.validator = fresh;
    }
    Ok(())
}

fn unsatisfied(response: &Response, partial: &Partial, asked: &Asked) -> Refusal {
    let host = host_of(response.url());
    let odd = |what: &str| DownloadError::Origin(format!("{host} {what}"));
    let Some(ContentRange::Unsatisfied(Some(total))) = response.header(CONTENT_RANGE).and_then(ContentRange::parse)
    else {
        return Refusal::Odd(odd("refused the part that was asked for"));
    };
    let ledger = partial.ledger();
    let known = ledger.size;
    if known.is_some_and(|size| size != total) {
        return Refusal::Restart(odd("has a file of another size now"));
    }
    if ledger.done.bytes() == total && asked.at == total {
        return Refusal::Complete(total);
    }
    if known.is_none() && asked.at > total {
        return Refusal::Restart(odd("has a shorter file now"));
    }
    Refusal::Odd(odd("refused a part of the file that it says it has"))
}

/// Statuses that bring no file (management contract 3.3).
fn refused(response: &Response, file: &PlannedFile, status: StatusCode) -> Refusal {
    let host = host_of(response.url());
    // A signed address of a second host may have run out; the way to it is asked for anew with each try.
    let second_host = response.url().host_str() != file.url.host_str();
    let error = match status.as_u16() {
        401 => DownloadError::Unauthorized(format!(
            "{host} asks for a login (401): set a token, for the Hugging Face hub in the variable HF_TOKEN"
        )),
        403 => DownloadError::Unauthorized(format!(
            "{host} does not allow this (403): the repository may be gated; accept its conditions there and set a token"
        )),
        404 | 410 => DownloadError::NotFound("File not found on server".into()),
        _ => DownloadError::Origin(format!("{host} answered {status}")),
    };
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Refusal::Retry(error, response.retry_after()),
        401 | 403 if second_host => Refusal::Odd(error),
        _ => Refusal::Fatal(error),
    }
}

/// What `If-Range` may hold (RFC 9110 13.1.5): a strong ETag, or a modification date that is older than the answer.
fn validator(response: &Response) -> Option<String> {
    if let Some(tag) = response.header(ETAG) {
        let tag = tag.trim();
        return (tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"')).then(|| tag.to_owned());
    }
    let modified = response.header(LAST_MODIFIED)?;
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let sent = response.header(DATE).and_then(date).unwrap_or_else(SystemTime::now);
    (date(modified)? + Duration::from_secs(1) < sent).then(|| modified.to_owned())
}
