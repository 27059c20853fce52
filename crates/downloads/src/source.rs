use domain::whisper::is_converted;
use domain::{JobKind, KnownWhisper};
use serde::{Deserialize, Serialize};

/// What to fetch. Kept in the database, so it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A model of an Ollama registry (also `hf.co/…`), into our Ollama store.
    Ollama {
        /// The name as asked.
        name: String,
        /// Plain HTTP is allowed, as Ollama's own field of that name does.
        #[serde(default)]
        insecure: bool,
    },
    /// Files of a Hugging Face repository, into `<publisher>/<repo>/`.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// A file of it, or a quantization label; left out: the best common choice.
        file_or_quant: Option<String>,
    },
    /// A speech-to-text model of the hub, as a folder of its own.
    Whisper {
        /// `owner/repo`.
        repo: String,
    },
    /// Voices for a voice engine that is installed on request.
    Voices {
        /// `kokoro`, `piper` or `piper/<voice>`.
        name: String,
    },
    /// One file at an address.
    Url {
        /// The address.
        url: String,
        /// The name it gets; left out: the address's own.
        file_name: Option<String>,
    },
}

impl Source {
    /// The speech-to-text model that a size, OpenAI's name for it or a repository means (audio contract 5).
    pub fn whisper(name: &str) -> Option<Self> {
        let name = name.trim();
        // What is only called so may hold another form of model: its files decide.
        let other = || {
            is_converted(name).then(|| Self::Hub {
                repo: name.to_owned(),
                file_or_quant: None,
            })
        };
        Self::known_whisper(name).or_else(other)
    }

    /// The same for the known ones alone.
    fn known_whisper(name: &str) -> Option<Self> {
        KnownWhisper::named(name).map(|known| Self::Whisper {
            repo: known.repository.to_owned(),
        })
    }

    /// The same source, where a known speech model is meant as such: it is one download whoever asks for it by whatever name.
    pub(crate) fn normal(self) -> Self {
        let whisper = match &self {
            // A registry may have a model that is called `small`; none of its models is called like a converted Whisper.
            Self::Ollama { name, .. } => {
                let lower = name.trim().to_ascii_lowercase();
                let hubs = ["hf.co/", "huggingface.co/"];
                let bare = hubs.iter().find_map(|host| lower.strip_prefix(host)).unwrap_or(&lower);
                let telling = bare.contains("whisper") || bare.starts_with("distil-");
                telling.then(|| Self::known_whisper(bare)).flatten()
            }
            Self::Hub {
                repo,
                file_or_quant: None,
            }
            | Self::Whisper { repo } => Self::known_whisper(repo),
            Self::Hub { .. } | Self::Voices { .. } | Self::Url { .. } => None,
        };
        whisper.unwrap_or(self)
    }

    /// Which kind of origin it is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Ollama { .. } => JobKind::Registry,
            Self::Hub { .. } | Self::Whisper { .. } | Self::Voices { .. } => JobKind::Hub,
            Self::Url { .. } => JobKind::Url,
        }
    }

    /// What was asked for, for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Ollama { name, .. } | Self::Voices { name } => name,
            Self::Hub { repo, .. } | Self::Whisper { repo } => repo,
            Self::Url { url, .. } => url,
        }
    }
}
