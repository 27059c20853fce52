//! What the model names in audio requests mean (audio contract 5). Names are only compared, never opened (promise D4).

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use domain::audio::Task;
use domain::whisper::{is_any_listener, is_any_speaker, is_converted};
use domain::{Capability, EngineKind, KnownWhisper, ModelEntry, ModelKey};

use crate::catalog::Named;
use crate::names::normal_name;
use crate::{Catalog, RegistrySettings};

/// Longest name that is looked at; the longest path.
const MAX_NAME: usize = 4096;

/// What a name means.
#[derive(Debug, Clone, PartialEq)]
pub enum SpeechName {
    /// This model. Whether it can translate is for the caller to look at.
    Found(Arc<ModelEntry>),
    /// One that can be downloaded.
    Known(KnownSpeech),
    /// A model that is there but neither hears nor speaks.
    NotSpeech(Arc<ModelEntry>),
    /// Nothing that we know.
    Unknown,
}

/// A speech-to-text model that is not there but can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSpeech {
    /// `owner/name` on the hub.
    pub repository: String,
    /// The key it will have.
    pub key: String,
    /// Bytes to download, about; `None`: not known.
    pub bytes: Option<u64>,
}

impl From<&KnownWhisper> for KnownSpeech {
    fn from(known: &KnownWhisper) -> Self {
        Self {
            repository: known.repository.to_owned(),
            key: known.key(),
            bytes: Some(known.bytes),
        }
    }
}

/// What the settings and the models give for requests that leave the choice to us.
#[derive(Debug, Default)]
pub(crate) struct SpeechChoice {
    listener: Option<String>,
    speaker: Option<String>,
    /// Voice engines in the settings' order.
    voices: Vec<(EngineKind, String)>,
    /// Known models that are there, the preferred copy of each first.
    known: Vec<(&'static str, ModelKey)>,
}

impl SpeechChoice {
    pub(crate) fn of(settings: &RegistrySettings, models: &[Named]) -> Self {
        let name = |name: &Option<String>| name.clone().filter(|name| !name.trim().is_empty());
        Self {
            listener: name(&settings.default_listener),
            speaker: name(&settings.default_speaker),
            voices: settings
                .voices
                .iter()
                .map(|voice| (voice.engine, voice.backend.clone()))
                .collect(),
            known: models
                .iter()
                .filter_map(|model| Some((model.known?.size, model.entry.key.clone())))
                .collect(),
        }
    }
}

impl Catalog {
    /// The speech-to-text model that a request means; `None` or empty: it named none. In the contract's order: aliases and
    /// names of models that are there, a model's folder, OpenAI's names for the default, sizes, repositories.
    ///
    /// A model of llama.cpp is found too when its projector hears: then its engine transcribes. For OpenAI's names, a model
    /// that can do `task` is preferred.
    pub fn listener(&self, name: Option<&str>, task: Task) -> SpeechName {
        let name = name.unwrap_or_default().trim();
        let hears = |entry: &ModelEntry| entry.can(Capability::Transcription) || entry.can(Capability::Audio);
        match self.listener_named(name, hears) {
            SpeechName::Unknown if is_any_listener(name) => match &self.speech().listener {
                Some(name) => self.listener_named(name, hears),
                None => self
                    .best_listener(task)
                    .or_else(|| self.best_listener(Task::Transcribe))
                    .map_or_else(|| SpeechName::Known(KnownWhisper::first().into()), SpeechName::Found),
            },
            named => named,
        }
    }

    fn listener_named(&self, name: &str, hears: impl Fn(&ModelEntry) -> bool) -> SpeechName {
        let named = self.by_name(name, hears);
        if matches!(named, SpeechName::Found(_)) {
            return named;
        }
        if let Some(known) = KnownWhisper::named(name) {
            // Another model may have the short name that a known one would have.
            let there = self.speech().known.iter().find(|(size, _)| *size == known.size);
            if let Some(entry) = there.and_then(|(_, key)| self.get(key)) {
                return SpeechName::Found(Arc::clone(entry));
            }
            return match named {
                SpeechName::Unknown => SpeechName::Known(known.into()),
                other => other,
            };
        }
        match (named, repository(name)) {
            (SpeechName::Unknown, Some(repository)) => SpeechName::Known(repository),
            (named, _) => named,
        }
    }

    /// The text-to-speech model that a request means; `None` or empty: it named none.
    pub fn speaker(&self, name: Option<&str>) -> SpeechName {
        let name = name.unwrap_or_default().trim();
        let speaks = |entry: &ModelEntry| entry.can(Capability::Speech);
        match self.by_name(name, speaks) {
            SpeechName::Unknown if is_any_speaker(name) => match &self.speech().speaker {
                Some(name) => self.by_name(name, speaks),
                None => self.first_speaker().map_or(SpeechName::Unknown, SpeechName::Found),
            },
            named => named,
        }
    }

    /// The text-to-speech model for requests that name none of ours, unless the settings say which.
    fn first_speaker(&self) -> Option<Arc<ModelEntry>> {
        let place = |entry: &ModelEntry| {
            let voices = &self.speech().voices;
            let own = |(engine, backend): &(EngineKind, String)| {
                *engine == entry.engine && *backend == entry.facts.architecture
            };
            voices.iter().position(own).unwrap_or(voices.len())
        };
        let speakers = self.listed().filter(|entry| entry.can(Capability::Speech));
        speakers.min_by_key(|entry| place(entry)).cloned()
    }

    /// The best speech-to-text model that is there: one that can do the task and knows all languages, then the largest.
    /// `None`: none can do the task.
    pub fn best_listener(&self, task: Task) -> Option<Arc<ModelEntry>> {
        let needed = match task {
            Task::Transcribe => Capability::Transcription,
            Task::Translate => Capability::Translation,
        };
        self.listed()
            .filter(|entry| entry.can(needed))
            .max_by_key(|entry| {
                let facts = &entry.facts;
                (
                    facts.is_multilingual(),
                    facts.parameters,
                    entry.size,
                    Reverse(entry.key.clone()),
                )
            })
            .cloned()
    }

    /// A model by its names, or by its folder as the library found it.
    fn by_name(&self, name: &str, fits: impl Fn(&ModelEntry) -> bool) -> SpeechName {
        if name.is_empty() || name.len() > MAX_NAME {
            return SpeechName::Unknown;
        }
        match self.resolve(name).or_else(|| self.by_folder(name)) {
            Some(entry) if fits(&entry) => SpeechName::Found(entry),
            Some(entry) => SpeechName::NotSpeech(entry),
            None => SpeechName::Unknown,
        }
    }

    /// Only folders that a scan found below the folders of the settings can be named (audio contract 5).
    fn by_folder(&self, name: &str) -> Option<Arc<ModelEntry>> {
        let path = Path::new(name);
        let is_speech = |entry: &&Arc<ModelEntry>| entry.can(Capability::Transcription) && entry.path == path;
        path.is_absolute()
            .then(|| self.entries().iter().find(is_speech).cloned())
            .flatten()
    }
}

/// `owner/name` of what is called like a converted Whisper.
fn repository(name: &str) -> Option<KnownSpeech> {
    let (_, own) = name.split_once('/').filter(|_| is_converted(name))?;
    Some(KnownSpeech {
        repository: name.to_owned(),
        key: normal_name(own),
        bytes: None,
    })
}
