use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the configuration says about downloads.
#[derive(Clone, PartialEq)]
pub struct DownloadSettings {
    /// Where files of the hub and of plain addresses go: `<publisher>/<repo>/<file>` below it.
    pub models_dir: PathBuf,
    /// Where speech models go: `<owner>__<name>/` below it.
    pub speech_dir: PathBuf,
    /// Where voices go: a folder for each voice engine below it.
    pub voices_dir: PathBuf,
    /// Files downloaded at once, all jobs together.
    pub max_parallel: usize,
    /// Bytes per second, all jobs together.
    pub bandwidth_limit: Option<u64>,
    /// The hub or a mirror. Exempt from `allow_private_hosts`.
    pub huggingface_base_url: String,
    /// The Ollama registry or a mirror. Exempt from `allow_private_hosts`.
    pub ollama_registry_base_url: String,
    /// Ask also addresses in private networks and on this machine (promise S11).
    pub allow_private_hosts: bool,
    /// Go on with interrupted jobs at the start; otherwise they come back paused.
    pub resume_on_start: bool,
    /// Token for the hub, sent to the hub alone (promise S7).
    pub hub_token: Option<String>,
    /// Sizes and times.
    pub tuning: Tuning,
}

/// The token is left out.
impl fmt::Debug for DownloadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadSettings")
            .field("models_dir", &self.models_dir)
            .field("speech_dir", &self.speech_dir)
            .field("voices_dir", &self.voices_dir)
            .field("max_parallel", &self.max_parallel)
            .field("bandwidth_limit", &self.bandwidth_limit)
            .field("huggingface_base_url", &self.huggingface_base_url)
            .field("ollama_registry_base_url", &self.ollama_registry_base_url)
            .field("allow_private_hosts", &self.allow_private_hosts)
            .field("resume_on_start", &self.resume_on_start)
            .field("hub_token", &self.hub_token.is_some())
            .field("tuning", &self.tuning)
            .finish()
    }
}

impl DownloadSettings {
    /// What a fresh configuration says, with everything below this folder.
    pub fn below(folder: &Path) -> Self {
        Self {
            models_dir: folder.join("models"),
            speech_dir: folder.join("models/whisper"),
            voices_dir: folder.join("models/voices"),
            max_parallel: 3,
            bandwidth_limit: None,
            huggingface_base_url: "https://huggingface.co".into(),
            ollama_registry_base_url: "https://registry.ollama.ai".into(),
            allow_private_hosts: false,
            resume_on_start: true,
            hub_token: None,
            tuning: Tuning::default(),
        }
    }

    /// These settings with one origin for everything, also one on this machine.
    #[must_use]
    pub fn asking(self, origin: &str) -> Self {
        Self {
            huggingface_base_url: origin.into(),
            ollama_registry_base_url: origin.into(),
            allow_private_hosts: true,
            ..self
        }
    }
}

/// Sizes and times that only tests change.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Bytes per ranged request.
    pub part_size: u64,
    /// Connections for one file.
    pub parts_at_once: usize,
    /// Tries after failures without progress (management contract 3.3: 50).
    pub retries: u32,
    /// First wait after a failure; it grows by half each time (management contract 3.3: 2 s × 1.5ⁿ).
    pub back_off: Duration,
    /// Longest wait after a failure, unless the origin asks for more (management contract 3.3: 5 min).
    pub back_off_max: Duration,
    /// A connection without data for this long is given up and made anew, free of charge.
    pub stall: Duration,
    /// How long making a connection may take.
    pub connect: Duration,
    /// Bytes of disk that downloads leave free for settings, logs and the database (promise D3).
    pub disk_reserve: u64,
    /// Time between two looks at the disk and two notes of what has arrived.
    pub save_every: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            part_size: 64 << 20,
            parts_at_once: 4,
            retries: 50,
            back_off: Duration::from_secs(2),
            back_off_max: Duration::from_mins(5),
            stall: Duration::from_secs(30),
            connect: Duration::from_secs(30),
            disk_reserve: 512 << 20,
            save_every: Duration::from_secs(2),
        }
    }
}
