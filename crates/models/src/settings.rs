use std::collections::BTreeMap;
use std::path::PathBuf;

use domain::{EngineKind, KeepAlive, LaunchOptions};

/// What the library shows and where it looks. `app` fills it from the configuration, so that this crate does not depend
/// on the configuration's shape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegistrySettings {
    /// `models.dirs`: folders to scan, in order of preference. A folder that does not exist yet is waited for.
    pub dirs: Vec<PathBuf>,
    /// Our own store in Ollama's layout.
    pub store: Option<PathBuf>,
    /// Other programs' stores in Ollama's layout, served in place. A name that an earlier one has is left out.
    pub other_stores: Vec<PathBuf>,
    /// `models.watch`: follow changes in the folders.
    pub watch: bool,
    /// `model_aliases`: name → model, as the user wrote both.
    pub aliases: BTreeMap<String, String>,
    /// `models.entries`: settings by model name.
    pub entries: BTreeMap<String, EntrySettings>,
    /// The demonstration model that comes with the product.
    pub builtin: Option<PathBuf>,
    /// Speech-to-text models that were downloaded, in folders `<owner>__<name>`.
    pub speech_dir: Option<PathBuf>,
    /// Voice engines, in order of preference; each is a model.
    pub voices: Vec<VoiceEngine>,
    /// `audio.default_model`: speech to text for requests that name no model of ours.
    pub default_listener: Option<String>,
    /// `audio.default_speech_model`: text to speech for requests that name no model of ours.
    pub default_speaker: Option<String>,
    /// Where the scan index is kept. It can be deleted at any time.
    pub index_path: PathBuf,
}

impl RegistrySettings {
    /// The folders whose changes matter. Of a store it is the manifests: blobs come before them and mean nothing alone.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let stores = self.store.iter().chain(&self.other_stores);
        self.dirs
            .iter()
            .chain(&self.speech_dir)
            .cloned()
            .chain(stores.map(|root| root.join("manifests")))
            .collect()
    }
}

/// A text-to-speech engine that is there, as a model of the library.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VoiceEngine {
    /// Its key, unless another model has it: `espeak-ng`, `kokoro`.
    pub key: String,
    /// [`EngineKind::Speech`], or [`EngineKind::Custom`] for a command of the user's.
    pub engine: EngineKind,
    /// What the engine is told to load: `espeak-ng`, `platform`, `kokoro`, `piper`, or the name of the custom engine. Becomes
    /// `facts.architecture`.
    pub backend: String,
    /// Its program, or the folder of its files.
    pub path: PathBuf,
    /// Name for people.
    pub display_name: String,
    /// One line: what it is, and its licence where that matters.
    pub description: Option<String>,
    /// Bytes on disk, 0 when unknown.
    pub size: u64,
    /// Further names.
    pub aliases: Vec<String>,
    /// It hears instead: a speech-to-text model of a command of the user's.
    pub hears: bool,
}

/// One `models.entries.<key>`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntrySettings {
    /// An explicit model file, or the folder of a speech-to-text model. Absent: the entry adjusts the scanned model of that
    /// name.
    pub path: Option<PathBuf>,
    /// An explicit projector file.
    pub mmproj: Option<PathBuf>,
    /// Which engine runs it; absent: what its files are for.
    pub engine: Option<EngineKind>,
    /// Launch options.
    pub launch: LaunchOptions,
    /// Keep-alive.
    pub keep_alive: Option<KeepAlive>,
    /// Never evicted and never unloaded when idle.
    pub pinned: bool,
    /// Left out of lists, still resolvable.
    pub unlisted: bool,
    /// Further names.
    pub aliases: Vec<String>,
    /// Name for people; absent: from the file.
    pub display_name: Option<String>,
    /// One line of description.
    pub description: Option<String>,
}
