//! From files and their records to models: split sets, projectors, keys, settings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use domain::{Capability, ModelFacts, ModelSource};
use gguf::SplitName;

use crate::catalog::Named;
use crate::entry::{build, build_stored, build_voice};
use crate::names::{Naming, assign_keys, free, normal_name, normal_quant, slugs, split_quant, unique};
use crate::projector::{Candidate, pick};
use crate::record::{ModelRecord, PartRecord, Record};
use crate::scan::Found;
use crate::settings::{EntrySettings, VoiceEngine};
use crate::speech::{self, Origin, SpeechRecord};
use crate::stored::Stored;
use crate::{Problem, RegistrySettings};

/// One file with what is known of it.
pub(crate) type Known = (Found, Record);

/// A model before it has a key.
pub(crate) struct Draft<'s> {
    pub(crate) first: &'s Found,
    pub(crate) rest: Vec<&'s Found>,
    pub(crate) record: ModelRecord,
    /// Stem without shard numbers.
    pub(crate) stem: String,
    pub(crate) naming: Naming,
    pub(crate) projector: Option<&'s Known>,
    /// The config entry that names this file, if one does.
    pub(crate) entry: Option<(&'s str, &'s EntrySettings)>,
    /// The named model of a store that it is.
    stored: Option<&'s Stored>,
    /// Where it came from, of a speech-to-text model.
    pub(crate) speech: Option<Origin>,
}

/// Puts the models together. `explicit` lists the config entries that name a file, with the file's path as found.
pub(crate) fn assemble(
    known: &[Known],
    explicit: &[(String, PathBuf)],
    stored: &[Stored],
    settings: &RegistrySettings,
    problems: &mut Vec<Problem>,
) -> Vec<Named> {
    let by_path: HashMap<&Path, &Known> = known.iter().map(|known| (known.0.path.as_path(), known)).collect();
    let mut drafts = Vec::new();
    let mut named_files = HashSet::new();
    for (key, path) in explicit {
        let (Some(known), Some((key, entry))) = (by_path.get(path.as_path()), settings.entries.get_key_value(key))
        else {
            continue;
        };
        named_files.insert(known.0.real.as_path());
        match draft(known, &by_path) {
            Ok(Some(mut draft)) => {
                draft.entry = Some((key, entry));
                draft.projector = entry.mmproj.as_deref().and_then(|path| by_path.get(path)).copied();
                drafts.push(draft);
            }
            Ok(None) => problems.push(Problem::of(
                path,
                format!("models.entries.{key}.path does not name a model"),
            )),
            Err(reason) => problems.push(Problem::of(path, reason)),
        }
    }
    let mut hidden = copies_of_builtin(known);
    hidden.extend(speech::superseded(known, settings.speech_dir.as_deref()));
    for file in known {
        let (found, _) = file;
        if named_files.contains(found.real.as_path())
            || matches!(
                found.source,
                ModelSource::Config | ModelSource::OwnStore | ModelSource::OllamaStore
            )
            || hidden.contains(&found.path)
        {
            continue;
        }
        match draft(file, &by_path) {
            Ok(Some(draft)) => drafts.push(draft),
            Ok(None) => {}
            Err(reason) => problems.push(Problem::of(&found.path, reason)),
        }
    }
    for model in stored {
        let Some(known) = by_path.get(model.first.as_path()) else {
            continue;
        };
        let reason = match draft(known, &by_path) {
            Ok(Some(mut draft)) => {
                draft.stored = Some(model);
                draft.projector = model.projector.as_deref().and_then(|path| by_path.get(path)).copied();
                drafts.push(draft);
                continue;
            }
            Ok(None) => "holds no model".to_owned(),
            Err(reason) => reason,
        };
        problems.push(Problem::of(
            &known.0.path,
            format!("the weights of the stored model '{}': {reason}", model.name),
        ));
    }
    // Explicit entries keep their order (by name); of the rest, the user's own files come before the demonstration model.
    drafts.sort_by(|a, b| {
        let rank = |draft: &Draft<'_>| {
            (
                draft.entry.is_none(),
                draft.stored.is_none(),
                draft.first.source == ModelSource::BuiltIn,
            )
        };
        rank(a).cmp(&rank(b)).then_with(|| match (a.entry, b.entry) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            _ if a.stored.is_some() => a
                .stored
                .map(|model| &model.name)
                .cmp(&b.stored.map(|model| &model.name)),
            _ => a.first.path.cmp(&b.first.path),
        })
    });
    attach_projectors(&mut drafts, known);
    finish(drafts, &settings.voices)
}

/// The demonstration model is not shown beside the same file in a folder of the user's.
fn copies_of_builtin(known: &[Known]) -> HashSet<PathBuf> {
    let same = |a: &Found, b: &Found| a.size == b.size && a.path.file_name() == b.path.file_name();
    known
        .iter()
        .filter(|(file, _)| file.source == ModelSource::BuiltIn)
        .filter(|(file, _)| {
            known
                .iter()
                .any(|(other, _)| other.source == ModelSource::Folder && same(file, other))
        })
        .map(|(file, _)| file.path.clone())
        .collect()
}

/// A model from one file or folder. `Ok(None)`: it is something else, and that is fine.
fn draft<'s>(file: &'s Known, by_path: &HashMap<&Path, &'s Known>) -> Result<Option<Draft<'s>>, String> {
    let (found, record) = file;
    if let Record::Speech(record) = record {
        return Ok(Some(speech_draft(found, record)));
    }
    let stem = found.stem();
    let (stem, name) = match SplitName::parse(&stem) {
        Some(name) if name.count > 1 => (name.prefix.clone(), Some(name)),
        Some(single) => (single.prefix, None),
        None => (stem, None),
    };
    let model = match (record, &name) {
        (Record::Bad { reason }, _) => return Err(reason.clone()),
        (Record::Other { .. } | Record::Projector { .. } | Record::Speech(_), _) => return Ok(None),
        (Record::Part(part), None) => {
            let number = part.split.map_or(0, |split| split.0) + 1;
            return Err(format!(
                "is part {number} of a split model, but its name does not say so"
            ));
        }
        (Record::Part(_), Some(name)) => {
            let first = found.folder().join(name.file_name(1));
            return match by_path.get(first.as_path()) {
                Some(_) => Ok(None),
                None => Err(format!("part 1 of {} is missing", name.count)),
            };
        }
        (Record::Model(model), _) => model,
    };
    let mut record = model.clone();
    let mut rest = Vec::new();
    if let Some(name) = &name {
        let mut parts = vec![record.part.split_info().map(|info| (info, record.part.tensors))];
        for number in 2..=name.count.min(1000) {
            let path = found.folder().join(name.file_name(number));
            let Some((file, Record::Part(part))) = by_path.get(path.as_path()).copied() else {
                parts.push(None);
                continue;
            };
            parts.push(part.split_info().map(|info| (info, part.tensors)));
            record.part.parameters = record.part.parameters.saturating_add(part.parameters);
            record.part.bytes = record.part.bytes.saturating_add(part.bytes);
            rest.push(file);
        }
        gguf::check_parts(&parts).map_err(|problem| problem.to_string())?;
        record.facts.parameters = record.part.parameters;
        if record.part.parameters > 0 {
            record.facts.bits_per_weight = record.part.bytes as f64 * 8.0 / record.part.parameters as f64;
        }
    } else if let Some((_, count, _)) = record.part.split {
        return Err(format!(
            "is part 1 of {count}, but its name does not say so: the engine could not find the others"
        ));
    }
    let (base, quant) = split_quant(&stem);
    let naming = Naming {
        base: normal_name(base),
        quant: quant.unwrap_or_else(|| normal_quant(&record.facts.quantization)),
        publisher: publisher(&found.relative).to_owned(),
    };
    Ok(Some(Draft {
        first: found,
        rest,
        record,
        stem,
        naming,
        projector: None,
        entry: None,
        stored: None,
        speech: None,
    }))
}

fn speech_draft<'s>(found: &'s Found, record: &'s SpeechRecord) -> Draft<'s> {
    let origin = Origin::of(found);
    Draft {
        first: found,
        rest: Vec::new(),
        record: ModelRecord {
            capabilities: origin.capabilities(record),
            facts: ModelFacts {
                name: Some(origin.display_name()),
                ..record.facts.clone()
            },
            part: PartRecord::default(),
        },
        stem: origin.name.clone(),
        naming: Naming {
            base: origin.base(),
            quant: normal_quant(&record.facts.quantization),
            publisher: origin.owner.clone(),
        },
        projector: None,
        entry: None,
        stored: None,
        speech: Some(origin),
    }
}

/// `publisher` of `…/publisher/repo/file.gguf`, empty when the path is shorter.
fn publisher(relative: &str) -> &str {
    relative.rsplit('/').nth(2).unwrap_or_default()
}

fn attach_projectors<'s>(drafts: &mut [Draft<'s>], known: &'s [Known]) {
    let mut folders: HashMap<&Path, Vec<&'s Known>> = HashMap::new();
    for file in known
        .iter()
        .filter(|(_, record)| matches!(record, Record::Projector { .. }))
    {
        folders.entry(file.0.folder()).or_default().push(file);
    }
    if folders.is_empty() {
        return;
    }
    let mut bases: HashMap<&Path, HashSet<String>> = HashMap::new();
    for draft in drafts
        .iter()
        .filter(|draft| draft.record.capabilities.has(Capability::Completion))
    {
        bases
            .entry(draft.first.folder())
            .or_default()
            .insert(draft.naming.base.clone());
    }
    for draft in drafts.iter_mut() {
        if draft.projector.is_some() || draft.stored.is_some() || !draft.record.capabilities.has(Capability::Completion)
        {
            continue;
        }
        let folder = draft.first.folder();
        let Some(files) = folders.get(folder) else { continue };
        let candidates: Vec<Candidate<'s>> = files.iter().map(|(file, record)| Candidate { file, record }).collect();
        let alone = bases.get(folder).is_some_and(|bases| bases.len() == 1);
        let chosen = pick(&draft.naming.base, &draft.record.facts, alone, &candidates).map(|found| &found.file.path);
        draft.projector = chosen.and_then(|path| files.iter().copied().find(|(file, _)| file.path == *path));
    }
}

/// Gives keys and slugs and builds the entries.
fn finish(drafts: Vec<Draft<'_>>, voices: &[VoiceEngine]) -> Vec<Named> {
    let mut taken = HashSet::new();
    let (explicit, scanned): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|draft| draft.entry.is_some());
    let mut named: Vec<Named> = explicit
        .into_iter()
        .map(|draft| {
            let wanted: String = draft
                .entry
                .map_or("", |(key, _)| key)
                .chars()
                .filter(|c| !c.is_control())
                .collect();
            let key = unique(&free(wanted.trim()), &mut taken, 255);
            let base = wanted.trim().to_lowercase();
            build(&draft, key, base)
        })
        .collect();
    let (stored, scanned): (Vec<_>, Vec<_>) = scanned.into_iter().partition(|draft| draft.stored.is_some());
    for draft in stored {
        let Some(model) = draft.stored else { continue };
        // A name that was given on purpose goes before names made from files.
        let key = unique(&free(&model.key()), &mut taken, 255);
        named.push(build_stored(&draft, model, key));
    }
    let namings: Vec<Naming> = scanned.iter().map(|draft| draft.naming.clone()).collect();
    let assigned = assign_keys(&namings, &taken);
    named.extend(
        scanned
            .iter()
            .zip(assigned)
            .map(|(draft, own)| build(draft, own.key, own.base)),
    );
    let mut taken: HashSet<String> = named
        .iter()
        .map(|named| named.entry.key.as_str().to_lowercase())
        .collect();
    named.extend(voices.iter().map(|voice| {
        let key = unique(&free(&normal_name(&voice.key)), &mut taken, 255);
        build_voice(voice, key)
    }));
    named.sort_by(|a, b| a.entry.key.cmp(&b.entry.key));
    let slugs = slugs(named.iter().map(|named| named.entry.key.as_str()));
    for (named, slug) in named.iter_mut().zip(slugs) {
        named.entry.slug = slug;
    }
    named
}

/// Settings of entries by lower-case name, for those that do not name a file.
pub(crate) fn adjusting(settings: &RegistrySettings) -> BTreeMap<&str, &EntrySettings> {
    settings
        .entries
        .iter()
        .filter(|(_, entry)| entry.path.is_none())
        .map(|(key, entry)| (key.as_str(), entry))
        .collect()
}
