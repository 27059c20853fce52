//! Names of all kinds of origin → files with addresses, hashes and sizes.
//!
//! `ollama` speaks the registry protocol, `hub` the Hugging Face hub's, `url` takes one address; `hub_model` makes of a hub
//! repository what the hub's own registry would, and what it cannot; `speech` takes the folder of a speech model from the hub. `registry` holds the requests that pulls and pushes
//! share.

pub mod hub;
mod hub_model;
mod ollama;
pub(crate) mod registry;
mod speech;
mod url;
pub mod voices;

pub use speech::remove as remove_speech_model;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Url;

use crate::http::{Http, Response};
use crate::transfer::back_off;
use crate::{DownloadError, DownloadSettings, Plan, Source};

/// Tries for an answer to a question, when the origin says that it is busy.
const BUSY_TRIES: u32 = 6;
/// Tries when it cannot be reached at all: whoever waits wants to know soon.
const NETWORK_TRIES: u32 = 2;
/// Longest answer to a question, in bytes: manifests and listings.
const LONGEST_ANSWER: usize = 16 << 20;

/// What a source needs to ask its origin.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The one client for everything outside.
    pub http: Http,
    /// Our store for models of a registry: a clone of the handle that the API works with (hand it in with `DownloadDeps`), so
    /// that blobs a pull waits for are held while a model is deleted.
    pub ollama_store: ollama_store::Store,
    /// Base addresses, folders, tokens.
    pub settings: Arc<DownloadSettings>,
}

impl Origin {
    /// Asks a question, again when the origin is busy; any other answer is given back.
    async fn ask(&self, method: Method, url: &Url, headers: &HeaderMap) -> Result<Response, DownloadError> {
        let tuning = &self.settings.tuning;
        let mut tries = 0;
        loop {
            tries += 1;
            let asked = match self.http.send(method.clone(), url, headers, None).await {
                Err(DownloadError::Network(_)) if tries < NETWORK_TRIES => None,
                Ok(response) if is_busy(response.status()) && tries < BUSY_TRIES => response.retry_after(),
                answer => return answer,
            };
            tokio::time::sleep(back_off(tuning.back_off, tuning.back_off_max, tries, asked)).await;
        }
    }

    /// `base` and path segments, each percent-encoded.
    fn address(base: &str, segments: &[&str]) -> Result<Url, DownloadError> {
        let wrong = || DownloadError::InvalidName(format!("{base:?} is not an http address"));
        let mut url = parse(base).ok_or_else(wrong)?;
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// An http or https address with a host and without credentials: those would be kept in the database and in logs.
fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && plain).then_some(url)
}

/// The header that shows a token.
fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// File-system work of a source, away from the threads that serve requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DownloadError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| DownloadError::Io("the work on the model store broke off".into()))
}

impl From<ollama_store::StoreError> for DownloadError {
    fn from(error: ollama_store::StoreError) -> Self {
        Self::Io(error.to_string())
    }
}

/// Asks the origin what belongs to a source.
pub async fn resolve(source: &Source, origin: &Origin) -> Result<Plan, DownloadError> {
    match source {
        Source::Ollama { name, insecure } => ollama::resolve(origin, name, *insecure).await,
        Source::Hub { repo, file_or_quant } => hub::resolve(origin, repo, file_or_quant.as_deref()).await,
        Source::Whisper { repo } => speech::resolve(origin, repo).await,
        Source::Voices { name } => voices::resolve(origin, name).await,
        Source::Url { url, file_name } => url::resolve(origin, url, file_name.as_deref()).await,
    }
}
