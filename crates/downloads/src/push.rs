//! Uploads a model of an Ollama-layout store to a registry: every blob it lacks, the manifest last.

use std::path::Path;

use bytes::Bytes;
use domain::RegistryName;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use ollama_store::{Layer, Store, media};
use reqwest::Url;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::http::Response;
use crate::sources::registry::{Registry, refusal};
use crate::{DownloadError, Origin};

/// Bytes per request of an upload.
const CHUNK: usize = 8 << 20;
/// Tries for one blob; each begins it anew.
const TRIES: u32 = 3;

/// How far a push is (Ollama contract 3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushStep {
    /// The model is looked up.
    RetrievingManifest,
    /// A content is being uploaded, or was there already.
    Pushing {
        /// `sha256:` and 64 hex digits.
        digest: String,
        /// Its length in bytes.
        total: u64,
        /// Bytes that are there.
        completed: u64,
    },
    /// All contents are there.
    PushingManifest,
}

/// Uploads a model of `store`. `progress` hears every step; dropping the future stops the upload.
///
/// # Errors
/// With Ollama's words: [`DownloadError::NotFound`] for a model that is not here, [`DownloadError::Unauthorized`] when the
/// registry wants to know who we are, [`DownloadError::Origin`] with the registry's text for every other refusal.
pub async fn push(
    origin: &Origin,
    store: &Store,
    name: &str,
    insecure: bool,
    mut progress: impl FnMut(PushStep),
) -> Result<(), DownloadError> {
    let mut registry = Registry::of(origin, name, insecure)?;
    progress(PushStep::RetrievingManifest);
    let (manifest, bytes) = read(store, registry.name()).await?;
    let mut all: Vec<&Layer> = manifest.layers.iter().collect();
    all.push(&manifest.config);
    for layer in all {
        upload(&mut registry, store, layer, &mut progress).await?;
    }
    progress(PushStep::PushingManifest);
    let tag = registry.name().tag.clone();
    let url = registry.address(&["manifests", &tag])?;
    let kind = [(CONTENT_TYPE, media::MANIFEST.to_owned())];
    let answer = registry.send(Method::PUT, &url, &kind, Some(bytes)).await?;
    accepted(answer).await.map(|_| ())
}

/// The manifest in the bytes it has: they are the model's identity.
async fn read(store: &Store, name: &RegistryName) -> Result<(ollama_store::Manifest, Bytes), DownloadError> {
    let (store, wanted) = (store.clone(), name.clone());
    let read = tokio::task::spawn_blocking(move || store.read_bytes(&wanted)).await;
    let (stored, bytes) = read
        .map_err(|_| DownloadError::Io("the work on the model store broke off".into()))?
        .map_err(|error| match error {
            ollama_store::StoreError::NotFound(_) => DownloadError::NotFound(format!("model '{name}' not found")),
            other => other.into(),
        })?;
    Ok((stored.manifest, bytes.into()))
}

async fn upload(
    registry: &mut Registry<'_>,
    store: &Store,
    layer: &Layer,
    progress: &mut impl FnMut(PushStep),
) -> Result<(), DownloadError> {
    let digest = layer.digest.to_string();
    let step = |completed: u64| PushStep::Pushing {
        digest: digest.clone(),
        total: layer.size,
        completed,
    };
    let known = registry.address(&["blobs", &digest])?;
    let answer = registry.send(Method::HEAD, &known, &[], None).await?;
    match answer.status() {
        StatusCode::NOT_FOUND => {}
        // A redirect leads to the content, which is therefore there.
        status if status.is_success() || status.is_redirection() => {
            progress(step(layer.size));
            return Ok(());
        }
        _ => return Err(refusal(answer).await),
    }
    let path = store.blob_path(&layer.digest);
    let mut tries = 0;
    loop {
        tries += 1;
        progress(step(0));
        match send_blob(registry, &path, layer, &mut |completed| progress(step(completed))).await {
            Err(DownloadError::Network(_)) if tries < TRIES => {}
            done => return done,
        }
    }
}

/// One upload from its beginning to its end (OCI distribution specification, "Pushing a blob in chunks").
async fn send_blob(
    registry: &mut Registry<'_>,
    path: &Path,
    layer: &Layer,
    completed: &mut impl FnMut(u64),
) -> Result<(), DownloadError> {
    let begin = registry.address(&["blobs", "uploads", ""])?;
    let answer = registry.send(Method::POST, &begin, &[], Some(Bytes::new())).await?;
    let mut at = location(&accepted(answer).await?)?;
    let unreadable = |error: std::io::Error| DownloadError::io("reading a stored layer", &error);
    let mut file = File::open(path).await.map_err(unreadable)?;
    let mut sent = 0_u64;
    while sent < layer.size {
        let most = usize::try_from(layer.size - sent).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = vec![0; most];
        file.read_exact(&mut chunk).await.map_err(unreadable)?;
        let range = format!("{sent}-{}", sent + most as u64 - 1);
        let with = [
            (CONTENT_RANGE, range),
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
        ];
        let answer = registry.send(Method::PATCH, &at, &with, Some(chunk.into())).await?;
        at = location(&accepted(answer).await?)?;
        sent += most as u64;
        completed(sent);
    }
    at.query_pairs_mut().append_pair("digest", &layer.digest.to_string());
    let answer = registry.send(Method::PUT, &at, &[], Some(Bytes::new())).await?;
    accepted(answer).await.map(|_| ())
}

async fn accepted(answer: Response) -> Result<Response, DownloadError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    Err(refusal(answer).await)
}

/// Where the next part of an upload goes; the registry may name another host, which gets the bytes but no token.
fn location(answer: &Response) -> Result<Url, DownloadError> {
    let next = answer.header(LOCATION).and_then(|next| answer.url().join(next).ok());
    next.filter(|next| matches!(next.scheme(), "http" | "https"))
        .filter(|next| answer.url().scheme() == "http" || next.scheme() == "https")
        .ok_or_else(|| DownloadError::Origin("the registry does not say where to upload to".into()))
}
