//! The one client for everything outside.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Url;

use crate::{DownloadError, DownloadSettings};

/// Sends requests to origins. Clones share connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
}

/// An answer, its body still to be read.
#[derive(Debug)]
pub struct Response {
    inner: reqwest::Response,
}

impl Http {
    /// A client for these settings.
    pub fn new(settings: &DownloadSettings) -> Result<Self, DownloadError> {
        let _ = settings;
        let client = reqwest::Client::builder()
            .build()
            .map_err(|error| DownloadError::Network(error.to_string()))?;
        Ok(Self { client })
    }

    /// One request, redirects followed (at most five). `headers` go to the host of `url` alone.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        self.once(method, url, headers, body).await
    }

    /// One request; a redirect is an answer like any other.
    pub async fn once(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, DownloadError> {
        let request = self.client.request(method, url.clone()).headers(headers.clone());
        let request = match body {
            Some(body) => request.body(body),
            None => request,
        };
        let inner = request
            .send()
            .await
            .map_err(|error| DownloadError::Network(error.to_string()))?;
        Ok(Response { inner })
    }
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

    /// The address that answered, after redirects.
    pub fn url(&self) -> &Url {
        self.inner.url()
    }

    /// `Retry-After`, when it was sent.
    pub fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DownloadError> {
        self.inner
            .chunk()
            .await
            .map_err(|error| DownloadError::Network(error.to_string()))
    }

    /// The whole body, refused beyond `limit` bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, DownloadError> {
        let mut all = Vec::new();
        while let Some(piece) = self.chunk().await? {
            if all.len() + piece.len() > limit {
                return Err(DownloadError::Origin("the origin's answer is too long".into()));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}
