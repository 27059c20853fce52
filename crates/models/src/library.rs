//! One scan, start to end: list, read what is new, put together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use domain::ModelSource;
use gguf::SplitName;

use crate::assemble::{Known, assemble};
use crate::catalog::ProjectorFile;
use crate::index::Index;
use crate::record::Record;
use crate::scan::{Found, Listing, Place, file as file_at, named as named_at};
use crate::{Catalog, Problem, RegistrySettings, ScanReport};

/// Scans everything that the settings name.
pub(crate) fn scan(settings: &RegistrySettings, index: &mut Index) -> (Catalog, ScanReport) {
    let mut listing = Listing::default();
    // The demonstration model first: it says what it is even where its folder is also a models folder.
    for place in settings.builtin.iter().map(|path| Place::BuiltIn(path.clone())) {
        listing.add(&place);
    }
    for folder in &settings.dirs {
        listing.add(&Place::Folder(folder.clone()));
    }
    if let Some(folder) = &settings.speech_dir {
        listing.add(&Place::SpeechFolder(folder.clone()));
    }
    let stores = settings.store.iter().map(|root| (root, ModelSource::OwnStore));
    let others = settings
        .other_stores
        .iter()
        .map(|root| (root, ModelSource::OllamaStore));
    for (root, source) in stores.chain(others) {
        listing.add(&Place::OllamaStore(root.clone(), source));
    }
    let mut named = NamedFiles::default();
    named.collect(settings, &listing);
    let mut problems = std::mem::take(&mut listing.problems);
    problems.append(&mut named.problems);

    let stored = listing.stored;
    let mut files = listing.files;
    let mut seen: HashSet<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    files.extend(named.files.into_iter().filter(|file| seen.insert(file.path.clone())));
    let (records, read) = index.records(&files);
    let known: Vec<Known> = files.into_iter().zip(records).collect();

    let projectors: HashMap<PathBuf, ProjectorFile> = known
        .iter()
        .filter_map(|(file, record)| match record {
            Record::Projector { vision, audio, .. } => Some((
                file.path.clone(),
                ProjectorFile {
                    size: file.size,
                    vision: *vision,
                    audio: *audio,
                },
            )),
            _ => None,
        })
        .collect();
    for (key, path) in settings
        .entries
        .iter()
        .filter_map(|(key, entry)| Some((key, entry.mmproj.as_ref()?)))
    {
        if !projectors.contains_key(path) {
            problems.push(Problem::of(
                path,
                format!("models.entries.{key}.mmproj does not name a projector"),
            ));
        }
    }
    let models = assemble(&known, &named.explicit, &stored, settings, &mut problems);
    let catalog = Catalog::build(models, settings, &projectors, &mut problems);
    let report = ScanReport {
        models: catalog.entries().len(),
        files: known.len(),
        read,
        changed: false,
        problems,
    };
    (catalog, report)
}

/// The files that `models.entries` name by path.
#[derive(Default)]
struct NamedFiles {
    files: Vec<Found>,
    explicit: Vec<(String, PathBuf)>,
    problems: Vec<Problem>,
}

impl NamedFiles {
    fn collect(&mut self, settings: &RegistrySettings, listing: &Listing) {
        let by_real: HashMap<_, _> = listing.files.iter().map(|file| (file.real.as_path(), file)).collect();
        for (key, entry) in &settings.entries {
            if let Some(path) = &entry.path {
                match named_at(path) {
                    Ok(Some(mut file)) => {
                        // A file that a folder has too keeps its place there, for its `publisher/repo/file` name.
                        if let Some(same) = by_real.get(file.real.as_path()) {
                            file.relative.clone_from(&same.relative);
                        }
                        self.explicit.push((key.clone(), file.path.clone()));
                        if let Some(name) = SplitName::parse(&file.stem()) {
                            for number in 2..=name.count.min(1000) {
                                self.add(&file.folder().join(name.file_name(number)));
                            }
                        }
                        self.files.push(file);
                    }
                    Ok(None) => self.problems.push(Problem::of(
                        path,
                        format!("models.entries.{key}.path is neither a file nor a folder"),
                    )),
                    Err(error) => self
                        .problems
                        .push(Problem::of(path, format!("models.entries.{key}.path: {error}"))),
                }
            }
            if let Some(path) = &entry.mmproj {
                self.add(path);
            }
        }
    }

    /// A file that belongs to another one; if it is missing, the one it belongs to is reported.
    fn add(&mut self, path: &Path) {
        if let Ok(Some(file)) = file_at(path, String::new(), ModelSource::Config) {
            self.files.push(file);
        }
    }
}
