//! The one client for everything outside: redirects followed by hand so that credentials stay with their host, private
//! addresses refused, every wait bounded.

mod address;
mod guard;
mod tls;

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

pub(crate) use self::guard::same_origin;
use self::guard::{CheckedResolver, Guard};
use crate::{DownloadError, DownloadSettings};

/// Redirects followed for one request (promise S11).
const MAX_REDIRECTS: usize = 5;

/// Sends requests to origins. Clones share connections.
#[derive(Debug, Clone)]
pub struct Http {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    guard: Arc<Guard>,
    connect: Duration,
    stall: Duration,
    /// Made at the first use: reading the system's certificates takes time that the start of the program must not.
    client: OnceLock<Result<reqwest::Client, DownloadError>>,
}

/// An answer, its body still to be read.
#[derive(Debug)]
pub struct Response {
    inner: reqwest::Response,
    stall: Duration,
}

/// How a body broke off.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nothing came for the stall time.
    Stalled,
    /// The connection failed or the body was cut.
    Cut(String),
}

impl Http {
    /// A client for these settings.
    pub fn new(settings: &DownloadSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                guard: Guard::new(settings),
                connect: settings.tuning.connect,
                stall: settings.tuning.stall,
                client: OnceLock::new(),
            }),
        }
    }

    fn client(&self) -> Result<&reqwest::Client, DownloadError> {
        let shared = &self.shared;
        let made = shared.client.get_or_init(|| {
            reqwest::Client::builder()
                .user_agent(concat!("llama-runner/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(shared.connect)
                .dns_resolver(CheckedResolver(Arc::clone(&shared.guard)))
                .tls_backend_preconfigured(tls::client_config()?)
                .build()
                .map_err(|error| DownloadError::Network(error.to_string()))
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// One request, redirects followed (at most five). `headers` go to the host of `url` alone, never to one it redirects
    /// to. Only requests without a body are repeated at another address.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        self.walk(method, url, headers, &HeaderMap::new(), body).await
    }

    /// As [`Http::send`]; `everywhere` goes to every host on the way and must hold no credential.
    pub(crate) async fn walk(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        everywhere: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut own = everywhere.clone();
            if same_origin(url, &at) {
                own.extend(headers.clone());
            }
            let response = self.once(method.clone(), &at, &own, body.clone()).await?;
            let Some(next) = redirect(&response, body.is_some())? else {
                return Ok(response);
            };
            if at.scheme() == "https" && next.scheme() != "https" {
                return Err(DownloadError::Refused(format!(
                    "{} redirects from https to an unprotected address",
                    host_of(&at)
                )));
            }
            at = next;
        }
        Err(DownloadError::Origin(format!(
            "{} redirects more than {MAX_REDIRECTS} times",
            host_of(url)
        )))
    }

    /// One request; a redirect is an answer like any other.
    pub async fn once(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        self.shared.guard.check(url).await?;
        let uploads = body.is_some();
        let mut request = self.client()?.request(method, url.clone()).headers(headers.clone());
        if let Some(body) = body {
            request = request.body(body);
        }
        // An upload takes as long as it takes; its answer comes at its end.
        let limit = if uploads {
            None
        } else {
            Some(self.shared.connect + self.shared.stall)
        };
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, request.send())
                .await
                .map_err(|_| DownloadError::Network(format!("{} does not answer", host_of(url))))?,
            None => request.send().await,
        };
        let inner = answer.map_err(|error| failure(url, error))?;
        Ok(Response {
            inner,
            stall: self.shared.stall,
        })
    }
}

/// The address this answer sends us to, if it is a redirect that can be followed.
fn redirect(response: &Response, has_body: bool) -> Result<Option<Url>, DownloadError> {
    let follow = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !follow || has_body {
        return Ok(None);
    }
    let from = host_of(response.url());
    let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = target.ok_or_else(|| DownloadError::Origin(format!("{from} redirects to nowhere")))?;
    let mut next = response
        .url()
        .join(target)
        .map_err(|_| DownloadError::Origin(format!("{from} redirects to something that is no address")))?;
    next.set_fragment(None);
    Ok(Some(next))
}

/// Host and port for messages: addresses may carry signatures that no log or answer should show (promise S7).
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the origin");
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn failure(url: &Url, error: reqwest::Error) -> DownloadError {
    if let Some(refusal) = guard::refusal(&error) {
        return refusal;
    }
    DownloadError::Network(format!(
        "{} cannot be reached: {}",
        host_of(url),
        innermost(&error.without_url())
    ))
}

/// The last cause of a client error; the ones above it only say "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut last: &dyn Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

impl Response {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// A header as text.
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// The address that answered, after redirects.
    pub fn url(&self) -> &Url {
        self.inner.url()
    }

    /// The length that the body announces.
    pub fn content_length(&self) -> Option<u64> {
        self.header(http::header::CONTENT_LENGTH)?.parse().ok()
    }

    /// A web page where a file or JSON was asked for: a login form, a captive portal.
    pub fn is_html(&self) -> bool {
        self.header(CONTENT_TYPE)
            .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"))
    }

    /// `Retry-After` from now, when it was sent: seconds or a date.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header(RETRY_AFTER)?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// The next piece of the body; `None` at its end. An error when nothing comes for the stall time.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        self.next().await.map_err(|broken| {
            let host = host_of(self.inner.url());
            DownloadError::Network(match broken {
                Broken::Stalled => format!("{host} stopped sending"),
                Broken::Cut(reason) => format!("{host} broke off: {reason}"),
            })
        })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match tokio::time::timeout(self.stall, self.inner.chunk()).await {
            Err(_) => Err(Broken::Stalled),
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Broken::Cut(innermost(&error.without_url()))),
        }
    }

    /// The whole body, refused beyond `limit` bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, DownloadError> {
        let mut all = Vec::new();
        while let Some(piece) = self.chunk().await? {
            if all.len() + piece.len() > limit {
                return Err(DownloadError::Origin(format!(
                    "the answer of {} is too long",
                    host_of(self.url())
                )));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests;
