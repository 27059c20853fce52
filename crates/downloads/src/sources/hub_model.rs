//! `hf.co/<owner>/<repo>[:<quantization or file>]` into the store of Ollama's layout. The hub's own registry does this for
//! single files only; the listing has everything a manifest needs, split models and tokens included.

use std::fs::File;

use domain::RegistryName;
use ollama_store::{Config, Digest, Layer, Manifest, Store, media};

use super::hub::{self, Entry, Repo};
use super::ollama::{has, layer_file};
use super::{Origin, blocking, speech};
use crate::{DownloadError, Finish, Plan};

/// Longest `template`, `system` or `params` file, in bytes.
const LONGEST_TEXT: usize = 1 << 20;
/// Files of a repository that become layers (contract 12).
const TEXTS: [(&str, &str); 3] = [
    ("template", media::TEMPLATE),
    ("system", media::SYSTEM),
    ("params", media::PARAMS),
];

/// What a model consists of besides its files.
struct Small {
    media_type: &'static str,
    contents: Vec<u8>,
}

pub(super) async fn resolve(origin: &Origin, name: &RegistryName) -> Result<Plan, DownloadError> {
    let repo = Repo::of(&name.namespace, &name.model);
    let entries = hub::list(origin, &repo).await?;
    if name.tag.eq_ignore_ascii_case("latest") && speech::is_converted(&entries) {
        return speech::plan(origin, &repo, &entries).await;
    }
    let wanted = (!name.tag.eq_ignore_ascii_case("latest")).then_some(name.tag.as_str());
    let variant = hub::choose(&repo.id(), &hub::variants(&entries), &entries, wanted)?;
    let mut layers = Vec::new();
    let mut files = Vec::new();
    let projector = hub::projector(&entries, &variant);
    let weights = variant.files.iter().map(|entry| (media::MODEL, entry));
    for (media_type, entry) in weights.chain(projector.map(|entry| (media::PROJECTOR, entry))) {
        let layer = layer(&repo, media_type, entry)?;
        let url = repo.file_address(origin, &entry.path)?;
        files.push(layer_file(&origin.ollama_store, &layer, url, hub::headers(origin)));
        layers.push(layer);
    }
    hub::may_read(origin, &repo, &files).await?;
    let mut small = Vec::new();
    for (path, media_type) in TEXTS {
        if let Some(contents) = hub::small_file(origin, &repo, &entries, path, LONGEST_TEXT).await? {
            layers.push(Layer {
                media_type: media_type.to_owned(),
                digest: Digest::of(&contents),
                size: contents.len() as u64,
                from: None,
            });
            small.push(Small { media_type, contents });
        }
    }
    let store = origin.ollama_store.clone();
    let already_present = {
        let (store, name, layers) = (store.clone(), name.clone(), layers.clone());
        blocking(move || is_present(&store, &name, &layers)).await?
    };
    // The weights lie in the store long before a manifest names them.
    let hold = store.hold(layers.iter().map(|layer| layer.digest));
    let (name, shown) = (name.clone(), name.to_string());
    Ok(Plan {
        name: shown,
        quantization: variant.label,
        root: store.root().to_owned(),
        files,
        already_present,
        becomes: None,
        finish: Finish::with(move || {
            let written = write(&store, &name, layers, &small);
            drop(hold);
            written
        }),
    })
}

fn layer(repo: &Repo, media_type: &str, entry: &Entry) -> Result<Layer, DownloadError> {
    let digest = entry.sha256;
    Ok(Layer {
        media_type: media_type.to_owned(),
        digest: digest.ok_or_else(|| {
            DownloadError::Unsupported(format!(
                "the hub publishes no SHA-256 of {:?} in {}",
                entry.path,
                repo.id()
            ))
        })?,
        size: entry.size,
        from: None,
    })
}

/// Is a model of these contents there under this name?
fn is_present(store: &Store, name: &RegistryName, layers: &[Layer]) -> bool {
    store
        .read(name)
        .is_ok_and(|stored| stored.manifest.layers == layers && stored.manifest.all().all(|layer| has(store, layer)))
}

/// Writes what came with the listing, a config that tells what the weights are, and the manifest.
fn write(store: &Store, name: &RegistryName, layers: Vec<Layer>, small: &[Small]) -> Result<(), DownloadError> {
    for text in small {
        store.put_layer(text.media_type, &text.contents)?;
    }
    let config = layers
        .first()
        .and_then(|weights| config(store, weights))
        .unwrap_or_default();
    let config = serde_json::to_vec(&config).map_err(|error| DownloadError::Io(error.to_string()))?;
    let config = store.put_layer(media::CONFIG, &config)?;
    // Nothing names the config until the manifest does.
    let hold = store.hold([config.digest]);
    let manifest = Manifest::new(config, layers);
    store.write_manifest(name, &manifest.to_bytes())?;
    drop(hold);
    Ok(())
}

/// The facts that Ollama keeps beside the weights. A header that cannot be read leaves them out; the scan says why.
fn config(store: &Store, weights: &Layer) -> Option<Config> {
    let mut file = File::open(store.blob_path(&weights.digest)).ok()?;
    let header = gguf::Header::read(&mut file, weights.size, gguf::Detail::Facts).ok()?;
    let facts = gguf::facts(&header);
    Some(Config {
        model_format: "gguf".into(),
        model_families: Some(vec![facts.architecture.clone()]),
        model_family: facts.architecture,
        file_type: facts.quantization,
        architecture: "amd64".into(),
        os: "linux".into(),
        ..Config::default()
    })
}
