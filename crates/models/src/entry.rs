//! From a model that has a key to its entry.

use std::path::PathBuf;

use domain::{Capability, EngineKind, ModelEntry, ModelFacts, ModelKey, ModelSource};
use sha2::{Digest, Sha256};

use crate::assemble::Draft;
use crate::catalog::Named;
use crate::record::Record;
use crate::scan::{Found, modified_ns};
use crate::settings::VoiceEngine;
use crate::speech::{self, Origin};
use crate::stored::Stored;

/// What the demonstration model says about itself.
const DEMONSTRATION: &str = "Demonstration model: knows a few hundred sentences.";

pub(crate) fn build(draft: &Draft<'_>, key: String, base: String) -> Named {
    let named = build_file(draft, key, base);
    match &draft.speech {
        Some(origin) => build_speech(named, origin),
        None => named,
    }
}

fn build_file(draft: &Draft<'_>, key: String, base: String) -> Named {
    let files = || std::iter::once(draft.first).chain(draft.rest.iter().copied());
    let mut capabilities = draft.record.capabilities;
    if let Some((_, Record::Projector { vision, audio, .. })) = draft.projector {
        for (has, capability) in [(*vision, Capability::Vision), (*audio, Capability::Audio)] {
            if has {
                capabilities.insert(capability);
            }
        }
    }
    let builtin = draft.first.source == ModelSource::BuiltIn;
    let settings = draft.entry.map(|(_, settings)| settings);
    let source = if settings.is_some() {
        ModelSource::Config
    } else {
        draft.first.source
    };
    let name = draft.record.facts.name.clone().unwrap_or_else(|| draft.stem.clone());
    let display_name = if key.contains('@') {
        format!("{name} ({})", draft.naming.quant.to_uppercase())
    } else {
        name
    };
    let file_name = || {
        draft
            .first
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let indexed_path = match draft.first.relative.as_str() {
        "" => file_name(),
        relative => last_three(relative).to_owned(),
    };
    let projector = draft.projector.map(|(file, _)| file);
    let entry = ModelEntry {
        key: ModelKey::from(key),
        slug: String::new(),
        engine: settings
            .and_then(|settings| settings.engine)
            .unwrap_or(if draft.speech.is_some() {
                EngineKind::FasterWhisper
            } else {
                EngineKind::LlamaServer
            }),
        source,
        path: draft.first.path.clone(),
        parts: draft.rest.iter().map(|part| part.path.clone()).collect(),
        mmproj: projector.map(|file| file.path.clone()),
        size: files()
            .chain(projector)
            .map(|file| file.size)
            .fold(0, u64::saturating_add),
        modified: draft.first.modified_ns.div_euclid(1_000_000_000),
        publisher: draft.naming.publisher.clone(),
        indexed_path,
        display_name,
        description: builtin.then(|| DEMONSTRATION.to_owned()),
        digest: digest(files().chain(projector)),
        aliases: Vec::new(),
        capabilities,
        facts: draft.record.facts.clone(),
        launch: domain::LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    };
    Named {
        entry,
        base,
        plain_base: draft.naming.base.clone(),
        quant: draft.naming.quant.clone(),
        stem: draft.stem.clone(),
        config_key: draft.entry.map(|(key, _)| key.to_owned()),
        own_names: None,
        late_names: Vec::new(),
        known: None,
        since_ns: draft.first.modified_ns,
    }
}

/// An entry for a speech-to-text model: its path is its folder, and its names are the contract's.
fn build_speech(mut named: Named, origin: &Origin) -> Named {
    let entry = &mut named.entry;
    if origin.in_cache && entry.source == ModelSource::Folder {
        entry.source = ModelSource::HuggingFaceCache;
    }
    let place = [origin.owner.as_str(), &origin.name, speech::WEIGHTS];
    entry.indexed_path = place
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    let translates = entry.can(Capability::Translation);
    entry.description = Some(speech::description(&entry.facts, translates).to_owned());
    let mut names = origin.names();
    names.splice(0..0, [named.base.clone(), named.plain_base.clone()]);
    named.late_names = names;
    named.own_names = Some(Vec::new());
    named.known = origin.known();
    named
}

/// An entry for a voice engine.
pub(crate) fn build_voice(voice: &VoiceEngine, key: String) -> Named {
    let base = key.to_lowercase();
    let modified_ns = std::fs::metadata(&voice.path).map_or(0, |data| modified_ns(&data));
    // Several engines may be parts of one program.
    let told = Found {
        path: voice.path.join(&voice.backend),
        real: PathBuf::new(),
        relative: String::new(),
        source: ModelSource::Config,
        size: voice.size,
        modified_ns,
    };
    let entry = ModelEntry {
        key: ModelKey::from(key),
        slug: String::new(),
        engine: voice.engine,
        source: ModelSource::Config,
        path: voice.path.clone(),
        parts: Vec::new(),
        mmproj: None,
        size: voice.size,
        modified: modified_ns.div_euclid(1_000_000_000),
        publisher: String::new(),
        indexed_path: base.clone(),
        display_name: voice.display_name.clone(),
        description: voice.description.clone(),
        digest: digest(std::iter::once(&told)),
        aliases: Vec::new(),
        capabilities: if voice.hears {
            // What it cannot do it refuses itself.
            [Capability::Transcription, Capability::Translation]
                .into_iter()
                .collect()
        } else {
            [Capability::Speech].into_iter().collect()
        },
        facts: ModelFacts {
            architecture: voice.backend.clone(),
            name: Some(voice.display_name.clone()),
            ..ModelFacts::default()
        },
        launch: domain::LaunchOptions::default(),
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    };
    Named {
        entry,
        base: base.clone(),
        plain_base: base.clone(),
        quant: String::new(),
        stem: base,
        config_key: None,
        own_names: Some(Vec::new()),
        late_names: voice.aliases.clone(),
        known: None,
        since_ns: modified_ns,
    }
}

/// An entry for a named model of a store: its names, digest, size and time are those of its manifest.
pub(crate) fn build_stored(draft: &Draft<'_>, model: &Stored, key: String) -> Named {
    let mut named = build(draft, key, model.name.model.to_lowercase());
    let entry = &mut named.entry;
    entry.source = model.source;
    entry.digest.clone_from(&model.digest);
    entry.size = model.size;
    entry.modified = model.modified_ns.div_euclid(1_000_000_000);
    entry.publisher.clone_from(&model.name.namespace);
    entry.indexed_path = model.path();
    entry.display_name = model.name.to_string();
    entry.launch = model.launch.clone();
    if let Some(template) = model.profile.jinja()
        && entry.can(Capability::Completion)
    {
        let of_template = [Capability::Chat, Capability::Tools, Capability::Thinking];
        let kept = entry
            .capabilities
            .iter()
            .filter(|capability| !of_template.contains(capability));
        entry.capabilities = kept.chain(gguf::template_capabilities(template).iter()).collect();
        entry.facts.has_chat_template = true;
    }
    entry.profile = std::sync::Arc::new(model.profile.clone());
    if model.inserts {
        entry.capabilities.insert(Capability::Insert);
    }
    named.since_ns = model.modified_ns;
    named.stem.clone_from(&model.name.tag);
    named.own_names = Some(model.names());
    named
}

/// The last three parts of a path: `publisher/repo/file.gguf`.
fn last_three(relative: &str) -> &str {
    let start = relative.rmatch_indices('/').nth(2).map_or(0, |(at, _)| at + 1);
    relative.get(start..).unwrap_or(relative)
}

/// 64 hex digits that change whenever a file of the model is another one.
fn digest<'f>(files: impl Iterator<Item = &'f Found>) -> String {
    let mut hash = Sha256::new();
    for file in files {
        let path = file.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(file.size.to_le_bytes());
        hash.update(file.modified_ns.to_le_bytes());
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for half in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(half), 16));
        }
        hex
    })
}
