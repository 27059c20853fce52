use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Digest, StoreError};

/// Media types of layers (contract 11).
pub mod media {
    /// The manifest itself.
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// The config blob.
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// The weights, GGUF; several are the parts of a split model in order.
    pub const MODEL: &str = "application/vnd.ollama.image.model";
    /// Projector for image or audio input, GGUF.
    pub const PROJECTOR: &str = "application/vnd.ollama.image.projector";
    /// LoRA adapter, GGUF.
    pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
    /// Prompt template in Go's template language.
    pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
    /// The old name of [`TEMPLATE`].
    pub const PROMPT: &str = "application/vnd.ollama.image.prompt";
    /// System prompt.
    pub const SYSTEM: &str = "application/vnd.ollama.image.system";
    /// Options, a JSON object.
    pub const PARAMS: &str = "application/vnd.ollama.image.params";
    /// Messages before the conversation, a JSON array.
    pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
    /// Licence text; may repeat.
    pub const LICENSE: &str = "application/vnd.ollama.image.license";
    /// One tensor of a safetensors model, which this product cannot run.
    pub const TENSOR: &str = "application/vnd.ollama.image.tensor";
}

/// One content of a model: what it is, its digest and its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// What it is, see [`media`].
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Digest of the contents; the blob's name.
    pub digest: Digest,
    /// Length in bytes.
    #[serde(default)]
    pub size: u64,
    /// Name of the model the layer was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    /// [`media::MANIFEST`].
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// The config blob.
    pub config: Layer,
    /// All other contents, in order.
    #[serde(default)]
    pub layers: Vec<Layer>,
}

impl Manifest {
    /// A manifest of a config blob and layers.
    pub fn new(config: Layer, layers: Vec<Layer>) -> Self {
        Self {
            schema_version: 2,
            media_type: media::MANIFEST.into(),
            config,
            layers,
        }
    }

    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// [`StoreError::InvalidManifest`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| StoreError::InvalidManifest(error.to_string()))
    }

    /// The bytes of a manifest made here. One that came from a registry keeps the bytes it came in.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data of strings and numbers always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The config blob, then every layer.
    pub fn all(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The layers of one kind, in order.
    pub fn of_kind(&self, media_type: &str) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(move |layer| layer.media_type == media_type)
    }

    /// Sum of all contents in bytes: Ollama's `size`.
    pub fn size(&self) -> u64 {
        self.all().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// The config blob: facts about the model that need no reading of the weights.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `gguf` or `safetensors`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model_format: String,
    /// Architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model_family: String,
    /// Architectures of all parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_families: Option<Vec<String>>,
    /// Parameter count for people: `8.0B`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model_type: String,
    /// Quantization label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file_type: String,
    /// Name of a built-in prompt renderer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub renderer: String,
    /// Name of a built-in output parser.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parser: String,
    /// Least Ollama version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub requires: String,
    /// Host that runs the model; such an entry has no weights.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    /// Name of the model there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_model: String,
    /// Processor; a constant of the format.
    pub architecture: String,
    /// System; a constant of the format.
    pub os: String,
    /// Whatever else stands there, kept when a model is made from this one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}
