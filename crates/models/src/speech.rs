//! Speech-to-text models: folders with a Whisper model in CTranslate2's form (audio contract 7.7). Files are read within
//! bounds, whatever they claim to be.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use domain::{Capabilities, Capability, KnownWhisper, ModelFacts, ModelSource};
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Problem;
use crate::ctranslate::{self, Refused, Weights};
use crate::names::normal_name;
use crate::record::Record;
use crate::scan::{Found, is_ignored, modified_ns};

/// The weights' file.
pub(crate) const WEIGHTS: &str = "model.bin";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const VOCABULARIES: [&str; 2] = ["vocabulary.json", "vocabulary.txt"];
/// All files of a model; nothing else in its folder is looked at.
const FILES: [&str; 6] = [
    CONFIG,
    PREPROCESSOR,
    WEIGHTS,
    TOKENIZER,
    VOCABULARIES[0],
    VOCABULARIES[1],
];

/// Settings are a few kilobytes.
const LONGEST_SETTINGS: u64 = 1 << 20;
/// Vocabularies are about 1 MB.
const LONGEST_VOCABULARY: u64 = 16 << 20;
/// Bands that the engine takes for granted; others it has to be told.
const USUAL_BANDS: u32 = 80;

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpeechRecord {
    pub(crate) facts: ModelFacts,
    /// Its structure is that of a model trained to translate.
    pub(crate) may_translate: bool,
}

/// Whether the names in a folder make it look like a model.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    weights: bool,
    config: bool,
    vocabulary: bool,
}

impl Seen {
    /// A name in the folder.
    pub(crate) fn see(&mut self, name: &str) {
        self.weights |= name == WEIGHTS;
        self.config |= name == CONFIG;
        self.vocabulary |= VOCABULARIES.contains(&name);
    }

    /// Is it worth a look?
    pub(crate) fn is_candidate(&self) -> bool {
        self.weights || self.config && self.vocabulary
    }
}

/// The folder as one thing: its size is that of the model's files, its time the newest of theirs.
pub(crate) fn found(path: PathBuf, real: PathBuf, relative: String, source: ModelSource) -> Found {
    let files = || FILES.iter().filter_map(|name| file(&path, name));
    Found {
        size: files().map(|(_, data)| data.len()).fold(0, u64::saturating_add),
        modified_ns: files().map(|(_, data)| modified_ns(&data)).max().unwrap_or(0),
        path,
        real,
        relative,
        source,
    }
}

/// A regular file of the folder, links followed: the hub's cache is made of them.
fn file(folder: &Path, name: &str) -> Option<(PathBuf, fs::Metadata)> {
    let path = folder.join(name);
    let data = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    Some((path, data))
}

/// What lies in a folder of speech models.
#[derive(Debug, Default)]
pub struct SpeechFolders {
    /// Models that the engine can load.
    pub usable: usize,
    /// Folders that look like models but cannot be used.
    pub problems: Vec<Problem>,
}

/// Looks at the folders right below `folder`, without a library. Blocking.
pub fn speech_folders(folder: &Path) -> SpeechFolders {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| !is_ignored(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort();
    let mut folders = SpeechFolders::default();
    for path in paths {
        match read(&path).0 {
            Record::Speech(_) => folders.usable += 1,
            Record::Bad { reason } => folders.problems.push(Problem::of(&path, reason)),
            _ => {}
        }
    }
    folders
}

/// Reads a folder. The flag says whether the result may be kept until a file changes.
pub(crate) fn read(folder: &Path) -> (Record, bool) {
    let bad = |reason: String| Record::Bad { reason };
    match read_model(folder) {
        Ok(record) => (record, true),
        Err(Refused::Other) => (
            Record::Other {
                what: "a folder of something else".to_owned(),
            },
            true,
        ),
        Err(Refused::Damaged(reason)) => (bad(reason.to_owned()), true),
        Err(Refused::Io(error)) => (bad(format!("cannot be read: {error}")), false),
    }
}

fn read_model(folder: &Path) -> Result<Record, Refused> {
    let weights = match file(folder, WEIGHTS) {
        Some((path, data)) => Some(ctranslate::read(&mut BufReader::new(File::open(path)?), data.len())?),
        // Others keep a config and a vocabulary too.
        None if is_whispers(folder) => None,
        None => return Err(Refused::Other),
    };
    if let Some(missing) = missing(folder, weights.as_ref()) {
        return Ok(Record::Bad {
            reason: format!("is a speech model without {missing}: download it again, or copy what is missing"),
        });
    }
    let weights = weights.unwrap_or_default();
    json::<IgnoredAny>(folder, CONFIG, LONGEST_SETTINGS)?;
    let vocabulary = vocabulary(folder)?;
    let parameters = weights.parameters;
    Ok(Record::Speech(SpeechRecord {
        // What cannot be told does not speak against it.
        may_translate: weights.decoder_layers >= weights.encoder_layers,
        facts: ModelFacts {
            architecture: "whisper".to_owned(),
            parameters,
            quantization: match weights.quantization {
                "" => "unknown".to_owned(),
                label => label.to_owned(),
            },
            bits_per_weight: if parameters > 0 {
                weights.bytes as f64 * 8.0 / parameters as f64
            } else {
                0.0
            },
            embedding_length: weights.width,
            block_count: (weights.encoder_layers > 0).then_some(weights.encoder_layers),
            vocab_size: Some(vocabulary),
            ..ModelFacts::default()
        },
    }))
}

/// The names of missing files, for people.
fn missing(folder: &Path, weights: Option<&Weights>) -> Option<String> {
    let has = |name: &str| file(folder, name).is_some_and(|(_, data)| data.len() > 0);
    let mut missing: Vec<&str> = [WEIGHTS, CONFIG, TOKENIZER]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    if !VOCABULARIES.iter().any(|name| has(name)) {
        missing.push("vocabulary.json or vocabulary.txt");
    }
    let bands = weights.and_then(|weights| weights.mel_bands);
    if bands.is_some_and(|bands| bands != USUAL_BANDS) && !has(PREPROCESSOR) {
        missing.push(PREPROCESSOR);
    }
    let (last, rest) = missing.split_last()?;
    Some(if rest.is_empty() {
        (*last).to_owned()
    } else {
        format!("{} and {last}", rest.join(", "))
    })
}

/// What only Whisper's configuration has.
#[derive(Deserialize)]
struct Config {
    lang_ids: Option<IgnoredAny>,
    alignment_heads: Option<IgnoredAny>,
    suppress_ids_begin: Option<IgnoredAny>,
}

fn is_whispers(folder: &Path) -> bool {
    // Opening a named pipe would wait for ever.
    file(folder, CONFIG).is_some()
        && json::<Config>(folder, CONFIG, LONGEST_SETTINGS).is_ok_and(|config| {
            config.suppress_ids_begin.is_some() && (config.lang_ids.is_some() || config.alignment_heads.is_some())
        })
}

fn json<T: DeserializeOwned>(folder: &Path, name: &'static str, longest: u64) -> Result<T, Refused> {
    let wrong = match name {
        CONFIG => "config.json is not what it should be: download the model again",
        _ => "the vocabulary is not what it should be: download the model again",
    };
    let file = File::open(folder.join(name))?;
    serde_json::from_reader(BufReader::new(file.take(longest))).map_err(|error| match error.io_error_kind() {
        Some(kind) => Refused::Io(kind.into()),
        None => Refused::Damaged(wrong),
    })
}

/// Counts the tokens without keeping them.
struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Count, A::Error> {
                let mut count = 0_u32;
                while tokens.next_element::<IgnoredAny>()?.is_some() {
                    count = count.saturating_add(1);
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Tokens)
    }
}

fn vocabulary(folder: &Path) -> Result<u32, Refused> {
    let count = if file(folder, VOCABULARIES[0]).is_some() {
        json::<Count>(folder, VOCABULARIES[0], LONGEST_VOCABULARY)?.0
    } else {
        lines(File::open(folder.join(VOCABULARIES[1]))?)?
    };
    if count == 0 {
        return Err(Refused::Damaged("the vocabulary is empty: download the model again"));
    }
    Ok(count)
}

fn lines(file: impl Read) -> io::Result<u32> {
    let mut lines = BufReader::new(file.take(LONGEST_VOCABULARY)).split(b'\n');
    let count = lines.try_fold(0_u32, |count, line| line.map(|_| count.saturating_add(1)))?;
    Ok(count)
}

/// Where a model came from, as its folder's name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `owner` of `owner/name`; empty when unknown.
    pub(crate) owner: String,
    /// The repository's or the folder's name.
    pub(crate) name: String,
    /// The owner is written there, not guessed from the folder above.
    sure: bool,
    /// It lies in the hub's cache.
    pub(crate) in_cache: bool,
}

impl Origin {
    /// From `<owner>__<name>`, from `models--<owner>--<name>/snapshots/<revision>`, else from the folder and the one above it
    /// below its place.
    pub(crate) fn of(found: &Found) -> Self {
        let part = |folder: Option<&Path>| {
            folder
                .and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let name = part(Some(&found.path));
        if let Some(repository) = cached(&found.path)
            && let Some((owner, name)) = part(Some(repository))
                .strip_prefix("models--")
                .and_then(|rest| rest.split_once("--"))
        {
            return Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
                sure: true,
                in_cache: true,
            };
        }
        let sure = name
            .split_once("__")
            .filter(|(owner, name)| !owner.is_empty() && !name.is_empty());
        let above = || found.relative.rsplit('/').nth(1).unwrap_or_default();
        let (owner, own) = sure.unwrap_or_else(|| (above(), &name));
        Self {
            owner: owner.to_owned(),
            name: own.to_owned(),
            sure: sure.is_some(),
            in_cache: false,
        }
    }

    /// `owner/name`, when the owner is known for sure.
    pub(crate) fn repository(&self) -> Option<String> {
        self.sure.then(|| format!("{}/{}", self.owner, self.name))
    }

    /// The known model it is a copy of.
    pub(crate) fn known(&self) -> Option<&'static KnownWhisper> {
        // Whoever converts OpenAI's models; a model of anybody else that is called like one is another one.
        const CONVERTERS: [&str; 5] = ["systran", "guillaumekln", "mobiuslabsgmbh", "distil-whisper", "openai"];
        let theirs = !self.sure || CONVERTERS.contains(&self.owner.to_lowercase().as_str());
        KnownWhisper::of_folder(&self.name).filter(|_| theirs)
    }

    /// Base name of its key.
    pub(crate) fn base(&self) -> String {
        self.known().map_or_else(|| normal_name(&self.name), KnownWhisper::key)
    }

    /// Name for people.
    pub(crate) fn display_name(&self) -> String {
        self.known()
            .map_or_else(|| self.name.clone(), |known| format!("Whisper {}", known.size))
    }

    /// Its names besides the key.
    pub(crate) fn names(&self) -> Vec<String> {
        let known = self.known();
        let mut names = known.map(KnownWhisper::names).unwrap_or_default();
        // Of a folder whose owner nobody knows, the one that it is probably from.
        let repository = self
            .repository()
            .or_else(|| known.map(|known| known.repository.to_owned()));
        names.extend(repository);
        names.push(self.name.clone());
        names.push(normal_name(&self.name));
        names
    }

    /// What it can do.
    pub(crate) fn capabilities(&self, record: &SpeechRecord) -> Capabilities {
        let name = self.name.to_lowercase();
        // Which languages it knows is told by its vocabulary alone, here and by the engine, whatever its name ends in.
        let learned = record.may_translate && !name.contains("distil") && !name.contains("turbo");
        let translates = learned && record.facts.is_multilingual();
        [
            Some(Capability::Transcription),
            translates.then_some(Capability::Translation),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// One line for people.
pub(crate) fn description(facts: &ModelFacts, translates: bool) -> &'static str {
    match (facts.is_multilingual(), translates) {
        (true, true) => "Speech to text in many languages, and to English.",
        (true, false) => "Speech to text in many languages.",
        (false, _) => "Speech to text, English only.",
    }
}

/// The repository's folder of a snapshot in the hub's cache.
fn cached(path: &Path) -> Option<&Path> {
    let snapshots = path.parent()?;
    (snapshots.file_name()? == "snapshots")
        .then(|| snapshots.parent())
        .flatten()
}

/// Folders that are not shown: of several snapshots of one repository all but the one in use, and copies of a model that is
/// there already, in the folder of downloads or earlier.
pub(crate) fn superseded(known: &[(Found, Record)], downloads: Option<&Path>) -> HashSet<PathBuf> {
    let mut hidden = HashSet::new();
    let mut snapshots: HashMap<&Path, Vec<&Found>> = HashMap::new();
    let models = || {
        known
            .iter()
            .filter(|(_, record)| matches!(record, Record::Speech(_)))
            .map(|(found, _)| found)
    };
    // Incomplete ones count: an old snapshot that was cleaned up is no news.
    for (found, _) in known {
        if let Some(repository) = cached(&found.path).filter(|_| found.path.is_dir()) {
            snapshots.entry(repository).or_default().push(found);
        }
    }
    for (repository, mut all) in snapshots {
        if all.len() < 2 {
            continue;
        }
        let main = revision(repository);
        let whole: HashSet<&Path> = models().map(|found| found.path.as_path()).collect();
        all.sort_by_key(|found| {
            let in_use =
                main.is_some() && found.path.file_name().map(|name| name.to_string_lossy().into_owned()) == main;
            (
                whole.contains(found.path.as_path()),
                in_use,
                found.modified_ns,
                found.path.clone(),
            )
        });
        all.pop();
        hidden.extend(all.into_iter().map(|found| found.path.clone()));
    }
    let mut shown = HashSet::new();
    let own = |found: &&Found| downloads.is_some_and(|folder| found.path.parent() == Some(folder));
    let (first, then): (Vec<_>, Vec<_>) = models().filter(|found| !hidden.contains(&found.path)).partition(own);
    for found in first.into_iter().chain(then) {
        let Some(repository) = Origin::of(found).repository() else {
            continue;
        };
        if found.source != ModelSource::Config && !shown.insert((repository.to_lowercase(), found.size)) {
            hidden.insert(found.path.clone());
        }
    }
    hidden
}

/// The commit that the cache's main revision is at.
fn revision(repository: &Path) -> Option<String> {
    let mut text = String::new();
    let (path, _) = file(repository, "refs/main")?;
    let file = File::open(path).ok()?;
    file.take(200).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(path: &str, relative: &str) -> Origin {
        Origin::of(&Found {
            path: path.into(),
            real: path.into(),
            relative: relative.into(),
            source: ModelSource::Folder,
            size: 0,
            modified_ns: 0,
        })
    }

    #[test]
    fn names_of_folders() {
        for (path, relative, base, repository) in [
            (
                "/w/Systran__faster-whisper-base",
                "Systran__faster-whisper-base",
                "whisper-base",
                Some("Systran/faster-whisper-base"),
            ),
            (
                "/h/models--Systran--faster-whisper-tiny.en/snapshots/1a2b",
                "x",
                "whisper-tiny.en",
                Some("Systran/faster-whisper-tiny.en"),
            ),
            ("/h/models--a--b--c/snapshots/1", "x", "b--c", Some("a/b--c")),
            (
                "/m/faster-whisper-large-v3",
                "faster-whisper-large-v3",
                "whisper-large-v3",
                None,
            ),
            ("/m/whisper/turbo", "whisper/turbo", "whisper-large-v3-turbo", None),
            ("/m/faster-distil-whisper-small.en", "", "whisper-distil-small.en", None),
            ("/m/tiny-whisper", "tiny-whisper", "tiny-whisper", None),
            (
                "/m/me__whisper-small",
                "me__whisper-small",
                "whisper-small",
                Some("me/whisper-small"),
            ),
            ("/m/__x", "__x", "x", None),
            ("/m/snapshots/abc", "snapshots/abc", "abc", None),
        ] {
            let origin = origin(path, relative);
            let base = if base == "b--c" { "b-c" } else { base };
            assert_eq!(
                (origin.base().as_str(), origin.repository().as_deref()),
                (base, repository),
                "{path}"
            );
        }
        let theirs = origin("/m/me__whisper-small", "");
        assert_eq!(
            theirs.known(),
            None,
            "somebody's own model that is called like a known one"
        );
        assert!(!theirs.names().contains(&"small".to_owned()));
    }

    #[test]
    fn a_vocabulary_is_counted() {
        let count = |text: &str| serde_json::from_str::<Count>(text).map(|count| count.0).ok();
        assert_eq!(count(r#"["a", "b", "\"", "]"]"#), Some(4));
        assert_eq!(count("[]"), Some(0));
        assert_eq!(count(r#"{"a": 1}"#), None);
        for (text, wanted) in [("", 0), ("a", 1), ("a\n", 1), ("a\n\nb", 3)] {
            assert_eq!(lines(std::io::Cursor::new(text)).unwrap(), wanted, "{text:?}");
        }
    }
}
