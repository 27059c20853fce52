//! Models of stores in Ollama's layout, ours and other programs': what a manifest adds to the weights it names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use domain::chat::{Message, Role};
use domain::{LaunchOptions, ModelProfile, ModelSource};
use ollama_store::{Config, Manifest, Name, Store, StoreError, StoredModel, media};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Problem;
use crate::scan::{Found, file};

/// One named model of a store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Its name in the stored spelling.
    pub(crate) name: Name,
    /// Whose store.
    pub(crate) source: ModelSource,
    /// The weights' first (or only) file.
    pub(crate) first: PathBuf,
    /// The projector.
    pub(crate) projector: Option<PathBuf>,
    /// SHA-256 of the manifest.
    pub(crate) digest: String,
    /// Sum of all contents in bytes.
    pub(crate) size: u64,
    /// When the manifest was written, Unix nanoseconds.
    pub(crate) modified_ns: i64,
    /// What it adds to the weights.
    pub(crate) profile: ModelProfile,
    /// Launch options among its parameters.
    pub(crate) launch: LaunchOptions,
    /// It has a template with a place for the text after a gap.
    pub(crate) inserts: bool,
}

impl Stored {
    /// Its registry key: the display form, the tag `latest` left out as in the keys of files.
    pub(crate) fn key(&self) -> String {
        let shown = self.name.to_string();
        shown.strip_suffix(":latest").unwrap_or(&shown).to_owned()
    }

    /// Further names: other spellings of the hub's host, and the path form of LM Studio.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.to_string(), self.name.full(), self.path()];
        let Name {
            host,
            namespace,
            model,
            tag,
        } = &self.name;
        if matches!(host.as_str(), "hf.co" | "huggingface.co") {
            let bare = format!("{namespace}/{model}:{tag}");
            names.extend([format!("hf.co/{bare}"), format!("huggingface.co/{bare}"), bare]);
        }
        names
    }

    /// LM Studio's path form. No such file exists: the weights are shared between names.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}/{}.gguf", self.name.namespace, self.name.model, self.name.tag)
    }
}

/// Lists one store. Files go to `files`, once each; names that another store has already are left out.
pub(crate) fn list(
    root: &Path,
    source: ModelSource,
    stored: &mut Vec<Stored>,
    files: &mut impl FnMut(Found),
    problems: &mut Vec<Problem>,
) {
    // Nothing is made or changed by opening to read.
    let Ok(store) = Store::open(root, ollama_store::Access::Read) else {
        return;
    };
    let listing = store.list();
    problems.extend(
        listing
            .problems
            .into_iter()
            .map(|(path, error)| Problem::of(&path, error.to_string())),
    );
    let taken: HashSet<String> = stored.iter().map(|model| model.name.full().to_lowercase()).collect();
    for model in listing.models {
        if taken.contains(&model.name.full().to_lowercase()) {
            continue;
        }
        match read(&store, &model, source, files) {
            Ok(model) => stored.push(model),
            Err(reason) => problems.push(Problem::of(
                store.root(),
                format!("the stored model '{}' {reason}", model.name),
            )),
        }
    }
}

/// The reason completes "the stored model 'x' …".
fn read(
    store: &Store,
    model: &StoredModel,
    source: ModelSource,
    files: &mut impl FnMut(Found),
) -> Result<Stored, String> {
    let manifest = &model.manifest;
    let config: Config = match store.read_text(&manifest.config) {
        Ok(config) => json("configuration", &config)?,
        Err(StoreError::MissingBlob(_)) => Config::default(),
        Err(error) => return Err(unreadable(&error)),
    };
    if !config.remote_host.is_empty() {
        return Err(format!("runs on {} and has no weights here", config.remote_host));
    }
    let weights = store.model_paths(manifest);
    let Some(first) = weights.first().cloned() else {
        return Err(match config.model_format.as_str() {
            "safetensors" => "is in safetensors form, which the engine cannot load".to_owned(),
            _ if manifest.of_kind(media::TENSOR).next().is_some() => {
                "is in safetensors form, which the engine cannot load".to_owned()
            }
            _ => "has no weights".to_owned(),
        });
    };
    let blobs = |kind: &str| -> Vec<PathBuf> {
        manifest
            .of_kind(kind)
            .map(|layer| store.blob_path(&layer.digest))
            .collect()
    };
    let (projectors, adapters) = (blobs(media::PROJECTOR), blobs(media::ADAPTER));
    for path in weights.iter().chain(&projectors).chain(&adapters) {
        match file(path, String::new(), source) {
            Ok(Some(found)) => files(found),
            Ok(None) => return Err("is damaged: one of its blobs is not a file".to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err("is incomplete: one of its blobs is missing".to_owned());
            }
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    let profile = profile(store, manifest, adapters)?;
    Ok(Stored {
        name: model.name.clone(),
        source,
        first,
        projector: projectors.into_iter().next(),
        digest: model.digest.hex(),
        size: manifest.size(),
        modified_ns: model
            .modified
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
        launch: launch(&profile.parameters),
        inserts: profile
            .template
            .as_ref()
            .is_some_and(|template| template.contains(".Suffix")),
        profile,
    })
}

/// A layer in JSON. What it says would be lost if one that cannot be read were left out.
fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("is damaged: its {what} cannot be read: {error}"))
}

fn unreadable(error: &StoreError) -> String {
    format!("cannot be read: {error}")
}

fn profile(store: &Store, manifest: &Manifest, adapters: Vec<PathBuf>) -> Result<ModelProfile, String> {
    // The last of several layers of one kind counts, as in Ollama.
    let last = |kinds: &[&str]| {
        let layer = manifest
            .layers
            .iter()
            .rfind(|layer| kinds.contains(&layer.media_type.as_str()));
        layer
            .map(|layer| store.read_text(layer))
            .transpose()
            .map_err(|error| unreadable(&error))
    };
    let parameters = last(&[media::PARAMS])?;
    let messages = last(&[media::MESSAGES])?;
    Ok(ModelProfile {
        system: last(&[media::SYSTEM])?.filter(|text| !text.is_empty()),
        template: last(&[media::TEMPLATE, media::PROMPT])?.filter(|text| !text.is_empty()),
        parameters: parameters
            .map(|text| json::<Option<_>>("parameters", &text))
            .transpose()?
            .flatten()
            .unwrap_or_default(),
        messages: messages
            .map(|text| parse_messages(&text))
            .transpose()?
            .unwrap_or_default(),
        license: manifest
            .of_kind(media::LICENSE)
            .map(|layer| store.read_text(layer).map_err(|error| unreadable(&error)))
            .collect::<Result<_, _>>()?,
        adapters,
        parent: manifest.of_kind(media::MODEL).find_map(|layer| layer.from.clone()),
    })
}

/// A stored message; what a message of a request may have besides is never stored.
#[derive(Deserialize)]
struct StoredMessage {
    role: String,
    #[serde(default)]
    content: String,
}

fn parse_messages(text: &str) -> Result<Vec<Message>, String> {
    let messages: Option<Vec<StoredMessage>> = json("messages", text)?;
    let role = |role: &str| match role.to_ascii_lowercase().as_str() {
        "system" => Some(Role::System),
        "user" => Some(Role::User),
        "assistant" => Some(Role::Assistant),
        _ => None,
    };
    Ok(messages
        .into_iter()
        .flatten()
        .filter_map(|message| Some(Message::text(role(&message.role)?, message.content)))
        .collect())
}

/// The parameters that decide how the engine is started, for every dialect (Ollama contract 5).
fn launch(parameters: &Map<String, Value>) -> LaunchOptions {
    let number = |name: &str| {
        let value = parameters.get(name)?;
        let number = value.as_i64().or_else(|| value.as_f64().map(|n| n as i64))?;
        u32::try_from(number).ok()
    };
    let positive = |name: &str| number(name).filter(|n| *n > 0);
    LaunchOptions {
        context: positive("num_ctx"),
        batch: positive("num_batch"),
        gpu_layers: number("num_gpu"),
        main_gpu: number("main_gpu"),
        threads: positive("num_thread"),
        mmap: parameters.get("use_mmap").and_then(Value::as_bool),
        ..LaunchOptions::default()
    }
}
