//! Names of the three kinds of origin → files with addresses, hashes and sizes.

use crate::http::Http;
use crate::{DownloadError, DownloadSettings, Plan, Source};

/// What a source needs to ask its origin.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The one client for everything outside.
    pub http: Http,
    /// Our store for models of a registry: a clone of the handle that the API works with (hand it in with `DownloadDeps`), so
    /// that blobs a pull waits for are held while a model is deleted.
    pub ollama_store: ollama_store::Store,
    /// Base addresses, folders, tokens.
    pub settings: std::sync::Arc<DownloadSettings>,
}

/// Asks the origin what belongs to a source.
pub async fn resolve(source: &Source, origin: &Origin) -> Result<Plan, DownloadError> {
    let _ = (source, origin);
    std::future::ready(Err(DownloadError::Unsupported("not offered yet".into()))).await
}
