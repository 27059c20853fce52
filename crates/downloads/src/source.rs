use domain::JobKind;
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
    /// One file at an address.
    Url {
        /// The address.
        url: String,
        /// The name it gets; left out: the address's own.
        file_name: Option<String>,
    },
}

impl Source {
    /// Which kind of origin it is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Ollama { .. } => JobKind::Registry,
            Self::Hub { .. } => JobKind::Hub,
            Self::Url { .. } => JobKind::Url,
        }
    }

    /// What was asked for, for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Ollama { name, .. } => name,
            Self::Hub { repo, .. } => repo,
            Self::Url { url, .. } => url,
        }
    }
}
