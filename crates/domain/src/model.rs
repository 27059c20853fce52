use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{EngineMode, LaunchOptions, ModelKey};

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// llama.cpp's `llama-server`.
    #[default]
    LlamaServer,
    /// `faster-whisper`: speech to text.
    FasterWhisper,
    /// Text to speech, by a voice engine in the same program as `faster-whisper`.
    Speech,
    /// A command of the user's that speaks the OpenAI API (`engines.custom.<name>`).
    Custom,
}

/// One thing a model can do, in Ollama's and our merged model object's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u16)]
pub enum Capability {
    /// Raw text completion.
    Completion = 1,
    /// Chat with a template.
    Chat = 1 << 1,
    /// Embedding vectors.
    Embedding = 1 << 2,
    /// Document scores.
    Rerank = 1 << 3,
    /// Image input (needs a projector).
    Vision = 1 << 4,
    /// Audio input (needs a projector).
    Audio = 1 << 5,
    /// Tool calls in the chat template.
    Tools = 1 << 6,
    /// Reasoning split off by the chat template.
    Thinking = 1 << 7,
    /// Fill in the middle.
    Insert = 1 << 8,
    /// Speech to text.
    Transcription = 1 << 9,
    /// Speech of any language to English text.
    Translation = 1 << 10,
    /// Text to speech.
    Speech = 1 << 11,
}

impl Capability {
    /// All capabilities, in the order lists show them.
    pub const ALL: [Self; 12] = [
        Self::Completion,
        Self::Chat,
        Self::Tools,
        Self::Insert,
        Self::Vision,
        Self::Audio,
        Self::Embedding,
        Self::Rerank,
        Self::Thinking,
        Self::Transcription,
        Self::Translation,
        Self::Speech,
    ];

    /// The wire word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
            Self::Vision => "vision",
            Self::Audio => "audio",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Insert => "insert",
            Self::Transcription => "transcription",
            Self::Translation => "translation",
            Self::Speech => "speech",
        }
    }
}

/// A set of [`Capability`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Adds one.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= capability as u16;
    }

    /// Is it in the set?
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability as u16 != 0
    }

    /// All members, in the order of [`Capability::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |c| self.has(*c))
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<T: IntoIterator<Item = Capability>>(iter: T) -> Self {
        let mut set = Self::default();
        iter.into_iter().for_each(|c| set.insert(c));
        set
    }
}

impl Serialize for Capabilities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Capability>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Where a model entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSource {
    /// A folder the user named.
    Folder,
    /// The demonstration model that comes with the product.
    BuiltIn,
    /// An explicit `models.entries` path.
    Config,
    /// Another program's store, served in place.
    OllamaStore,
    /// LM Studio's folder, served in place.
    LmStudioStore,
    /// The Hugging Face cache, served in place.
    HuggingFaceCache,
    /// Our own store in Ollama's layout: pulled and created models.
    OwnStore,
}

/// What a stored model adds to its weights (Ollama contract 11): the layers of its manifest besides the files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelProfile {
    /// System prompt, used when a request brings none.
    pub system: Option<String>,
    /// Template text as stored. One in Go's language is only shown, and the template inside the GGUF file is in use; see
    /// [`ModelProfile::jinja`].
    pub template: Option<String>,
    /// Options under those of a request, by Ollama's names.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// Messages that come before those of a request.
    pub messages: Vec<crate::chat::Message>,
    /// Licence texts.
    pub license: Vec<String>,
    /// LoRA files put on the weights at launch.
    pub adapters: Vec<PathBuf>,
    /// The model it was made from, as its maker wrote it.
    pub parent: Option<String>,
}

impl ModelProfile {
    /// The stored template, when it is in the language of the engine: then it takes the place of the one inside the file.
    pub fn jinja(&self) -> Option<&str> {
        self.template.as_deref().filter(|template| template.contains("{%"))
    }
}

/// What the GGUF header says, plus file facts. All numbers are as written in the file; absent ones are `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.basename`.
    pub basename: Option<String>,
    /// Parameter count, summed over the tensors of all parts.
    pub parameters: u64,
    /// Quantization label as Ollama and llama.cpp write it: `Q4_K_M`, `F16`, or `unknown`.
    pub quantization: String,
    /// Average bits per weight of the tensor data.
    pub bits_per_weight: f64,
    /// Trained context length, in tokens.
    pub context_length: Option<u32>,
    /// Embedding width.
    pub embedding_length: Option<u32>,
    /// Transformer blocks.
    pub block_count: Option<u32>,
    /// KV-cache bytes for one token at F16, from heads and widths; `None` when the header does not say.
    pub kv_bytes_per_token: Option<u64>,
    /// Experts, for mixture-of-experts models.
    pub expert_count: Option<u32>,
    /// Vocabulary size.
    pub vocab_size: Option<u32>,
    /// True when a chat template is present.
    pub has_chat_template: bool,
}

/// Entries that every Whisper vocabulary beyond English has at least; the English one has one less.
const MULTILINGUAL_VOCABULARY: u32 = 51_865;

impl ModelFacts {
    /// Of a speech-to-text model: it knows more languages than English. Told from the vocabulary, as the engine does; where that
    /// is not known, nothing speaks against it.
    pub fn is_multilingual(&self) -> bool {
        self.vocab_size.is_none_or(|size| size >= MULTILINGUAL_VOCABULARY)
    }
}

/// One model the product can run: the only object behind every dialect's "model" (management contract 1.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Unique name.
    pub key: ModelKey,
    /// Restricted form for path segments: `^[a-zA-Z0-9._-]+$`, at most 50 characters.
    pub slug: String,
    /// Which engine runs it.
    pub engine: EngineKind,
    /// Where it came from.
    pub source: ModelSource,
    /// First (or only) file of the weights; of a speech-to-text model its folder, of a voice engine its program or folder.
    pub path: PathBuf,
    /// Further parts of a split model, in order.
    pub parts: Vec<PathBuf>,
    /// Projector file for image or audio input.
    pub mmproj: Option<PathBuf>,
    /// Sum of all parts and the projector, in bytes.
    pub size: u64,
    /// File modification time, Unix seconds.
    pub modified: i64,
    /// Owner on a hub or the folder's name: `publisher` of `publisher/repo/file`; empty when unknown.
    pub publisher: String,
    /// LM Studio's path form, `publisher/repo/file.gguf`, always with forward slashes.
    pub indexed_path: String,
    /// Name for people.
    pub display_name: String,
    /// One line of description; the demonstration model says here what it is.
    pub description: Option<String>,
    /// Stable 64 hex digits standing for the contents (Ollama contract 3.1): a hash of path, size and mtime.
    pub digest: String,
    /// Other names that resolve here: config aliases first, then derived ones.
    pub aliases: Vec<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Header facts.
    pub facts: ModelFacts,
    /// Launch options of `models.entries.<key>` in the config.
    pub launch: LaunchOptions,
    /// Keep-alive of `models.entries.<key>`.
    pub keep_alive: Option<crate::KeepAlive>,
    /// Never evicted and never unloaded when idle.
    pub pinned: bool,
    /// Left out of lists but resolvable.
    pub unlisted: bool,
    /// What a stored model adds to its weights.
    #[serde(default)]
    pub profile: Arc<ModelProfile>,
    /// Key of the instance that serves it, when another name over the same weights and launch came first (Ollama
    /// contract 9). `None`: its own.
    #[serde(default)]
    pub runs_as: Option<ModelKey>,
    /// The model this is a further instance of (LM Studio contract 2): `key:2` or a name the caller chose. Never in lists
    /// of models, gone when it is unloaded.
    #[serde(default)]
    pub instance_of: Option<ModelKey>,
}

impl ModelEntry {
    /// True when the model can do this.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.has(capability)
    }

    /// True for models that only hear or speak. Lists of clients that know chat and embedding models leave them out: one
    /// entry of another kind makes such a list invalid for LM Studio's libraries (`lmstudio.md`, "JS list").
    pub fn is_speech(&self) -> bool {
        self.natural_mode().is_speech()
    }

    /// The form of its files, for people; empty: voice engines and commands of the user's have their own.
    pub fn format(&self) -> &'static str {
        match self.engine {
            EngineKind::LlamaServer => "GGUF",
            EngineKind::FasterWhisper => "CTranslate2",
            EngineKind::Speech | EngineKind::Custom => "",
        }
    }

    /// What the model is loaded for when the request does not decide it.
    pub fn natural_mode(&self) -> EngineMode {
        if self.can(Capability::Completion) || self.can(Capability::Chat) {
            EngineMode::Completion
        } else if self.can(Capability::Rerank) {
            EngineMode::Rerank
        } else if self.can(Capability::Embedding) {
            EngineMode::Embedding
        } else if self.can(Capability::Transcription) {
            EngineMode::Transcription
        } else if self.can(Capability::Speech) {
            EngineMode::Speech
        } else {
            EngineMode::Completion
        }
    }

    /// The key under which it runs.
    pub fn instance_key(&self) -> &ModelKey {
        self.runs_as.as_ref().unwrap_or(&self.key)
    }

    /// Can an instance started for `other` answer for this entry? Names and what a request adds (system prompt,
    /// parameters) may differ; the files may not.
    pub fn same_files(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.engine == other.engine
                && self.files().eq(other.files())
                && self.facts.architecture == other.facts.architecture
                && self.mmproj == other.mmproj
                && self.profile.adapters == other.profile.adapters
                && self.profile.jinja() == other.profile.jinja()
    }

    /// Every file of the entry: parts in order, then the projector.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.path).chain(&self.parts).chain(&self.mmproj)
    }

    /// Shared handle.
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}
