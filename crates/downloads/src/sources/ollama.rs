use std::collections::HashSet;

use http::HeaderMap;
use ollama_store::{Digest, Layer, Manifest, Store, media};
use reqwest::Url;

use super::registry::Registry;
use super::{Origin, blocking, hub_model};
use crate::{DownloadError, Finish, Plan, PlannedFile};

/// Hosts whose names mean a repository of the hub.
const HUB_HOSTS: [&str; 2] = ["hf.co", "huggingface.co"];

/// What belongs to a model of a registry. Errors carry Ollama's words (contract 3.7).
pub(super) async fn resolve(origin: &Origin, text: &str, insecure: bool) -> Result<Plan, DownloadError> {
    let registry = Registry::of(origin, text, insecure)?;
    let is_hub = HUB_HOSTS
        .iter()
        .any(|host| registry.name().host.eq_ignore_ascii_case(host));
    let plan = if is_hub {
        hub_model::resolve(origin, registry.name()).await
    } else {
        of_registry(origin, registry).await
    };
    plan.map_err(in_ollamas_words)
}

/// `pull model manifest: …`, as everything that goes wrong before the first layer.
fn in_ollamas_words(error: DownloadError) -> DownloadError {
    let said = |text: String| format!("pull model manifest: {text}");
    match error {
        DownloadError::NotFound(text) => DownloadError::NotFound(said(text)),
        DownloadError::Unauthorized(text) => DownloadError::Unauthorized(said(text)),
        DownloadError::Refused(text) => DownloadError::Refused(said(text)),
        DownloadError::Origin(text) => DownloadError::Origin(said(text)),
        DownloadError::Network(text) => DownloadError::Network(said(text)),
        DownloadError::Unsupported(text) => DownloadError::Unsupported(said(text)),
        other => other,
    }
}

async fn of_registry(origin: &Origin, mut registry: Registry<'_>) -> Result<Plan, DownloadError> {
    let bytes = registry.manifest().await?;
    let manifest = Manifest::parse(&bytes)
        .map_err(|_| DownloadError::Origin("the registry's answer is not a model manifest".into()))?;
    if manifest.of_kind(media::TENSOR).next().is_some() {
        return Err(DownloadError::Unsupported(
            "this model is stored as safetensors, which the engine cannot run: look for a GGUF version".into(),
        ));
    }
    let name = registry.name().clone();
    let (root, headers) = (origin.ollama_store.root().to_owned(), registry.headers());
    let mut files = Vec::new();
    for layer in each_once(&manifest) {
        let digest = layer.digest.to_string();
        let url = registry.address(&["blobs", &digest])?;
        files.push(layer_file(&origin.ollama_store, layer, url, headers.clone()));
    }
    let store = origin.ollama_store.clone();
    let present = {
        let (store, name, bytes, manifest) = (store.clone(), name.clone(), bytes.clone(), manifest.clone());
        blocking(move || is_present(&store, &name, &bytes, &manifest)).await?
    };
    let hold = store.hold(manifest.all().map(|layer| layer.digest));
    let shown = name.to_string();
    Ok(Plan {
        name: shown,
        quantization: None,
        root,
        files,
        already_present: present,
        becomes: None,
        finish: Finish::with(move || {
            let written = store.write_manifest(&name, &bytes);
            drop(hold);
            written.map(|_| ()).map_err(DownloadError::from)
        }),
    })
}

/// Every content of a manifest, the config last, as Ollama fetches them; one that several layers share comes once.
pub(super) fn each_once(manifest: &Manifest) -> Vec<&Layer> {
    let mut seen: HashSet<Digest> = HashSet::new();
    let all = manifest.layers.iter().chain([&manifest.config]);
    all.filter(|layer| seen.insert(layer.digest)).collect()
}

/// A layer as a file of the store.
pub(super) fn layer_file(store: &Store, layer: &Layer, url: Url, headers: HeaderMap) -> PlannedFile {
    PlannedFile {
        url,
        headers,
        sha256: Some(layer.digest),
        git_sha1: None,
        size: (layer.size > 0).then_some(layer.size),
        path: store.blob_path(&layer.digest),
        label: layer.digest.to_string(),
    }
}

/// Is this very model there, with all it consists of?
fn is_present(store: &Store, name: &ollama_store::Name, bytes: &[u8], manifest: &Manifest) -> bool {
    let same = store.read(name).is_ok_and(|stored| stored.digest == Digest::of(bytes));
    same && manifest.all().all(|layer| has(store, layer))
}

pub(super) fn has(store: &Store, layer: &Layer) -> bool {
    store.blob_size(&layer.digest) == Some(layer.size)
}
