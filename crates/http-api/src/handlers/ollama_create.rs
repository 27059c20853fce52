//! `POST /api/create` (Ollama contract 3.6).

use std::path::Path;
use std::sync::Arc;

use dialects::ollama::{self, CreateBase, CreateCall, CreateFile};
use domain::{ModelEntry, ModelFacts, ModelSource, RegistryName, RunnerError};
use hyper::body::Incoming;
use models::FileKind;
use ollama_store::{Config, Digest, Hold, Layer, Manifest, Store, StoreError, media};
use serde_json::{Map, json};

use super::Answer;
use super::ollama_store::{fetch, on_disk, store_error, told};
use crate::dispatch::Cx;
use crate::state::ApiState;
use crate::written::Writer;

/// Types that can be quantized.
const WHOLE: [&str; 3] = ["F16", "F32", "BF16"];

/// `POST /api/create`.
pub(super) async fn create(cx: &Cx, body: Incoming) -> Answer {
    let call = CreateCall::parse(&cx.collect(body).await?)?;
    let state = Arc::clone(cx.state());
    told(call.stream, move |tell| async move { make(&state, call, &tell).await }).await
}

/// A model under way: its contents, and what keeps them from being cleaned away.
struct Draft {
    config: Config,
    layers: Vec<Layer>,
    facts: Option<ModelFacts>,
    holds: Vec<Hold>,
}

async fn make(state: &ApiState, call: CreateCall, tell: &Writer) -> Result<(), RunnerError> {
    let mut draft = match &call.base {
        CreateBase::From(name) => from_model(state, name, tell).await?,
        CreateBase::Files(files) => from_files(state, files.clone(), tell).await?,
    };
    add_adapters(state, &call.adapters, &mut draft).await?;
    if let Some(kind) = &call.quantize {
        quantize(state, kind, &mut draft, tell).await?;
    }
    let (store, told) = (state.ollama_store.clone(), tell.clone());
    on_disk(move || write(&store, &call, draft, &told)).await?;
    state.registry.rescan().await;
    tell.line(|out| ollama::status_line("success", out));
    Ok(())
}

/// Another model: ours, one that lies elsewhere on this machine, or one that is fetched now.
async fn from_model(state: &ApiState, asked: &str, tell: &Writer) -> Result<Draft, RunnerError> {
    let asked = ollama::lookup_name(asked)?;
    let Some(name) = RegistryName::parse(&asked) else {
        return Err(RunnerError::invalid("invalid model name").param("from"));
    };
    let entry = state.resolve(&asked);
    if let Some(draft) = existing(state, name.clone(), entry).await? {
        return Ok(draft);
    }
    fetch(state, asked.clone(), false, tell).await?;
    existing(state, name, state.resolve(&asked))
        .await?
        .ok_or_else(|| RunnerError::model_not_found(&asked))
}

async fn existing(
    state: &ApiState,
    name: RegistryName,
    entry: Option<Arc<ModelEntry>>,
) -> Result<Option<Draft>, RunnerError> {
    adoptable(entry.as_ref())?;
    let store = state.ollama_store.clone();
    let facts = entry.as_ref().map(|entry| entry.facts.clone());
    on_disk(move || {
        let (mut manifest, hold) = match (store.read(&name), entry) {
            (Ok(stored), _) => {
                let hold = store.hold(stored.manifest.all().map(|layer| layer.digest));
                (stored.manifest, hold)
            }
            (Err(StoreError::NotFound(_)), Some(entry)) => adopt(&store, &entry)?,
            (Err(StoreError::NotFound(_)), None) => return Ok(None),
            (Err(error), _) => return Err(error),
        };
        for layer in &mut manifest.layers {
            if layer.media_type == media::MODEL {
                layer.from = Some(name.to_string());
            }
        }
        let config = readable("configuration", &store.read_text(&manifest.config)?)?;
        Ok(Some(Draft {
            config,
            layers: manifest.layers,
            facts,
            holds: vec![hold],
        }))
    })
    .await
}

/// A layer of the base in JSON. One that cannot be read is not left out: what it says would be lost.
fn readable<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::InvalidManifest(format!("the model's {what}: {error}")))
}

/// The store knows models of llama.cpp only.
pub(super) fn adoptable(entry: Option<&Arc<ModelEntry>>) -> Result<(), RunnerError> {
    match entry.filter(|entry| entry.is_speech()) {
        None => Ok(()),
        Some(entry) => Err(RunnerError::invalid(format!(
            "\"{}\" is a speech model: it can be neither copied nor built upon",
            entry.key
        ))
        .param("model")),
    }
}

/// A manifest in our store for a model that lies elsewhere. Its files are referred to, not copied.
pub(super) fn adopt(store: &Store, entry: &ModelEntry) -> Result<(Manifest, Hold), StoreError> {
    let mut layers = Vec::new();
    let mut file = |path: &Path, media_type: &str| {
        // Blobs of another store are named after their digest, which that store has checked.
        let known = (entry.source == ModelSource::OllamaStore)
            .then(|| path.file_name()?.to_str()?.parse().ok())
            .flatten();
        let (digest, size) = store.adopt(path, known)?;
        layers.push(Layer {
            media_type: media_type.into(),
            digest,
            size,
            from: None,
        });
        Ok::<_, StoreError>(())
    };
    for part in std::iter::once(&entry.path).chain(&entry.parts) {
        file(part, media::MODEL)?;
    }
    if let Some(projector) = &entry.mmproj {
        file(projector, media::PROJECTOR)?;
    }
    for adapter in &entry.profile.adapters {
        file(adapter, media::ADAPTER)?;
    }
    let profile = &entry.profile;
    let texts = [(media::TEMPLATE, &profile.template), (media::SYSTEM, &profile.system)];
    for (media_type, text) in texts
        .into_iter()
        .filter_map(|(kind, text)| Some((kind, text.as_ref()?)))
    {
        layers.push(store.put_layer(media_type, text.as_bytes())?);
    }
    if !profile.parameters.is_empty() {
        layers.push(store.put_layer(media::PARAMS, &to_bytes(&profile.parameters))?);
    }
    if !profile.messages.is_empty() {
        layers.push(store.put_layer(media::MESSAGES, &to_bytes(&ollama::stored_messages(&profile.messages)))?);
    }
    for license in &profile.license {
        layers.push(store.put_layer(media::LICENSE, license.as_bytes())?);
    }
    let config = store.put_layer(media::CONFIG, &to_bytes(&config_of(&entry.facts, &layers)))?;
    let manifest = Manifest::new(config, layers);
    let hold = store.hold(manifest.all().map(|layer| layer.digest));
    Ok((manifest, hold))
}

fn to_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    // Plain data always has a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

fn config_of(facts: &ModelFacts, layers: &[Layer]) -> Config {
    Config {
        model_format: "gguf".into(),
        model_family: facts.architecture.clone(),
        model_families: Some(vec![facts.architecture.clone()]),
        model_type: ollama::parameter_size(facts.parameters),
        file_type: facts.quantization.clone(),
        ..with_layers(Config::default(), layers)
    }
}

/// The constants of the format, and the list of contents it asks for.
fn with_layers(mut config: Config, layers: &[Layer]) -> Config {
    config.architecture = "amd64".into();
    config.os = "linux".into();
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    config
        .other
        .insert("rootfs".into(), json!({ "type": "layers", "diff_ids": digests }));
    config
}

/// Uploaded files: GGUF weights, one or several parts, and what goes with them.
async fn from_files(state: &ApiState, mut files: Vec<CreateFile>, tell: &Writer) -> Result<Draft, RunnerError> {
    // Parts of a split model are named in order.
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let (store, told) = (state.ollama_store.clone(), tell.clone());
    let blobs: Vec<(CreateFile, Digest)> = files
        .into_iter()
        .map(|file| Some((Digest::from_hex(&file.sha256)?, file)).map(|(digest, file)| (file, digest)))
        .collect::<Option<_>>()
        .ok_or_else(ollama::invalid_digest)?;
    let hold = store.hold(blobs.iter().map(|(_, digest)| *digest));
    let parsed = tokio::task::spawn_blocking(move || {
        let mut layers = Vec::new();
        let mut facts = None;
        for (file, digest) in &blobs {
            let Some(size) = store.blob_size(digest) else {
                return Err(store_error(StoreError::MissingBlob(*digest)));
            };
            told.line(|out| ollama::status_line("parsing GGUF", out));
            let media_type = match kind(&store.blob_path(digest), &file.name)? {
                FileKind::Model(found) => {
                    facts = facts.or(Some(*found));
                    media::MODEL
                }
                FileKind::Part => media::MODEL,
                FileKind::Projector => media::PROJECTOR,
                FileKind::Adapter => media::ADAPTER,
                FileKind::Other(what) => {
                    return Err(RunnerError::invalid(format!("'{}' is {what}, not a model", file.name)).param("files"));
                }
            };
            layers.push(Layer {
                media_type: media_type.into(),
                digest: *digest,
                size,
                from: None,
            });
        }
        Ok((layers, facts))
    })
    .await
    .map_err(|_| RunnerError::internal("Reading the uploaded files broke off."))?;
    let (layers, facts) = parsed?;
    let Some(facts) = facts else {
        return Err(RunnerError::invalid("none of the files is a model").param("files"));
    };
    Ok(Draft {
        config: config_of(&facts, &layers),
        layers,
        facts: Some(facts),
        holds: vec![hold],
    })
}

/// What an uploaded file is, or the error in Ollama's words.
fn kind(path: &Path, name: &str) -> Result<FileKind, RunnerError> {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    if read.is_err() || magic != *b"GGUF" {
        let extension = Path::new(name)
            .extension()
            .and_then(|end| end.to_str())
            .unwrap_or_default();
        let words = match extension.to_ascii_lowercase().as_str() {
            "gguf" | "bin" => "supplied file was not in GGUF format",
            "safetensors" | "json" | "pt" | "pth" => {
                "safetensors and PyTorch models cannot be converted here: convert the model to GGUF first"
            }
            _ => "unknown type",
        };
        return Err(RunnerError::invalid(words).param("files"));
    }
    models::inspect(path).map_err(|error| RunnerError::invalid(error.to_string()).param("files"))
}

async fn add_adapters(state: &ApiState, adapters: &[CreateFile], draft: &mut Draft) -> Result<(), RunnerError> {
    for adapter in adapters {
        let digest = Digest::from_hex(&adapter.sha256).ok_or_else(ollama::invalid_digest)?;
        let store = state.ollama_store.clone();
        draft.holds.push(store.hold([digest]));
        let name = adapter.name.clone();
        let size = on_disk(move || {
            store
                .blob_size(&digest)
                .map(|size| (size, store.blob_path(&digest)))
                .ok_or(StoreError::MissingBlob(digest))
        });
        let (size, path) = size.await?;
        let kind = tokio::task::spawn_blocking(move || kind(&path, &name))
            .await
            .map_err(|_| RunnerError::internal("Reading the adapter broke off."))??;
        if !matches!(kind, FileKind::Adapter) {
            return Err(RunnerError::invalid(format!("'{}' is not an adapter", adapter.name)).param("adapters"));
        }
        draft.layers.retain(|layer| layer.media_type != media::ADAPTER);
        draft.layers.push(Layer {
            media_type: media::ADAPTER.into(),
            digest,
            size,
            from: None,
        });
    }
    Ok(())
}

/// Writes the weights anew in another type.
async fn quantize(state: &ApiState, kind: &str, draft: &mut Draft, tell: &Writer) -> Result<(), RunnerError> {
    let Some(facts) = &mut draft.facts else {
        return Err(RunnerError::invalid("the type of the model's weights is not known").param("quantize"));
    };
    let have = facts.quantization.clone();
    if have == kind {
        return Ok(());
    }
    if !WHOLE.contains(&have.as_str()) {
        return Err(
            RunnerError::invalid("quantization is only supported for F16, F32 and BF16 models").param("quantize"),
        );
    }
    let store = state.ollama_store.clone();
    let weights: Vec<Layer> = draft
        .layers
        .iter()
        .filter(|layer| layer.media_type == media::MODEL)
        .cloned()
        .collect();
    let total: u64 = weights.iter().map(|layer| layer.size).sum();
    let without_weights = || RunnerError::invalid("the model has no weights to quantize").param("quantize");
    let first = weights.first().ok_or_else(without_weights)?.digest;
    let opened = store.clone();
    let parts = weights.clone();
    let (input, output) = on_disk(move || Ok((opened.part_paths(&parts)?, opened.scratch()?))).await?;
    let input = input.into_iter().next().ok_or_else(without_weights)?;
    let status = format!("quantizing {have} model to {kind}");
    let line = |completed: u64| {
        tell.line(|out| ollama::work_line(&status, &first.to_string(), total, completed, out));
    };
    line(0);
    state
        .router
        .quantize(&input, &output, kind, |share| {
            line((total as f64 * f64::from(share)) as u64);
        })
        .await?;
    let (digest, size) = on_disk(move || store.take_in(output)).await?;
    draft.holds.push(state.ollama_store.hold([digest]));
    draft.layers.retain(|layer| layer.media_type != media::MODEL);
    draft.layers.insert(
        0,
        Layer {
            media_type: media::MODEL.into(),
            digest,
            size,
            from: None,
        },
    );
    kind.clone_into(&mut draft.config.file_type);
    Ok(())
}

/// The layers of the request over those of the base, then the manifest.
fn write(store: &Store, call: &CreateCall, draft: Draft, tell: &Writer) -> Result<(), StoreError> {
    let Draft { config, mut layers, .. } = draft;
    let mut made = Vec::new();
    let mut put = |layers: &mut Vec<Layer>, replaced: &[&str], media_type: &str, contents: &[u8]| {
        layers.retain(|layer| !replaced.contains(&layer.media_type.as_str()));
        let layer = store.put_layer(media_type, contents)?;
        made.push(layer.digest);
        layers.push(layer);
        Ok::<_, StoreError>(())
    };
    if let Some(template) = &call.template {
        put(
            &mut layers,
            &[media::TEMPLATE, media::PROMPT],
            media::TEMPLATE,
            template.as_bytes(),
        )?;
    }
    if let Some(system) = &call.system {
        put(&mut layers, &[media::SYSTEM], media::SYSTEM, system.as_bytes())?;
    }
    for license in &call.license {
        put(&mut layers, &[], media::LICENSE, license.as_bytes())?;
    }
    if !call.parameters.is_empty() {
        let mut all = match layers.iter().find(|layer| layer.media_type == media::PARAMS) {
            Some(layer) => readable("parameters", &store.read_text(layer)?)?,
            None => Map::new(),
        };
        all.extend(call.parameters.clone());
        put(&mut layers, &[media::PARAMS], media::PARAMS, &to_bytes(&all))?;
    }
    if !call.messages.is_empty() {
        put(
            &mut layers,
            &[media::MESSAGES],
            media::MESSAGES,
            &to_bytes(&call.messages),
        )?;
    }
    let config = store.put_layer(media::CONFIG, &to_bytes(&with_layers(config, &layers)))?;
    for layer in &layers {
        let status = if made.contains(&layer.digest) {
            "creating new layer"
        } else {
            "using existing layer"
        };
        tell.line(|out| ollama::status_line(&format!("{status} {}", layer.digest), out));
    }
    tell.line(|out| ollama::status_line("writing manifest", out));
    store
        .write_manifest(&call.name, &Manifest::new(config, layers).to_bytes())
        .map(drop)
}
