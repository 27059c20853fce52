use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::{Capability, EngineKind, KnownWhisper, ModelEntry, ModelKey};

use crate::assemble::adjusting;
use crate::instances::Instances;
use crate::names::{NameMap, lookup_form, normal_name, normal_quant};
use crate::settings::EntrySettings;
use crate::speech_names::SpeechChoice;
use crate::{Problem, RegistrySettings};

/// Longest name that is looked up.
const MAX_NAME: usize = 1024;
/// A suggestion is made from this likeness on (0 to 1, Jaro-Winkler).
const LIKENESS: f64 = 0.8;
/// What LM Studio puts before the names of embedding models.
const EMBEDDING: &str = "text-embedding-";

/// A model with the names it was made from.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) entry: ModelEntry,
    /// Name that the variants of one model share, publisher included where that was needed.
    pub(crate) base: String,
    /// The same without the publisher.
    pub(crate) plain_base: String,
    /// Quantization in key form.
    pub(crate) quant: String,
    /// File stem without shard numbers.
    pub(crate) stem: String,
    /// The `models.entries` key that names the file.
    pub(crate) config_key: Option<String>,
    /// All further names of a model of a store: it answers to nothing else, so that a client that asks for another tag is
    /// told that there is none.
    pub(crate) own_names: Option<Vec<String>>,
    /// Names that it has only where no other model has them: a speech model must not take `base` or `small` away from one
    /// that is called so.
    pub(crate) late_names: Vec<String>,
    /// The known speech model that it is.
    pub(crate) known: Option<&'static KnownWhisper>,
    /// When it came to be, Unix nanoseconds.
    pub(crate) since_ns: i64,
}

/// A projector file that the settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProjectorFile {
    pub(crate) size: u64,
    pub(crate) vision: bool,
    pub(crate) audio: bool,
}

/// All models known at one moment. Immutable; the registry replaces it as a whole.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    entries: Vec<Arc<ModelEntry>>,
    names: Arc<NameMap>,
    /// Per entry: its quantization in key form, and how far it is from the preferred one.
    variants: Arc<Vec<Variant>>,
    /// Further instances of models, while they exist.
    instances: Arc<Instances>,
    /// What requests for speech mean that leave the choice to us.
    speech: Arc<SpeechChoice>,
}

#[derive(Debug, Default)]
struct Variant {
    quant: String,
    /// Names that other variants of the model have too, in look-up form.
    shared_names: Vec<String>,
    /// Lower-case path for prefix look-ups.
    path: String,
    rank: (u64, u64),
}

impl Catalog {
    /// Builds the look-up and applies the settings that name models.
    pub(crate) fn build(
        mut models: Vec<Named>,
        settings: &RegistrySettings,
        projectors: &HashMap<PathBuf, ProjectorFile>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        models.sort_by(|a, b| a.entry.key.cmp(&b.entry.key));
        let variants: Vec<Variant> = models.iter().map(Variant::of).collect();
        let mut catalog = Self {
            entries: Vec::new(),
            names: Arc::default(),
            variants: Arc::new(variants),
            instances: Arc::default(),
            speech: Arc::new(SpeechChoice::of(settings, &models)),
        };
        catalog.names = Arc::new(catalog.derived_names(&mut models));

        let mut wishes: Vec<Option<&EntrySettings>> = models
            .iter()
            .map(|model| model.config_key.as_ref().and_then(|key| settings.entries.get(key)))
            .collect();
        for (key, entry) in adjusting(settings) {
            match catalog.find(key).and_then(|at| wishes.get_mut(at)) {
                Some(wish) => *wish = Some(entry),
                None => problems.push(Problem::plain(format!("models.entries.{key}: there is no such model"))),
            }
        }
        // Aliases come before every other name (LM Studio contract 2 puts them last, but a user who writes an alias
        // means it). Their targets are looked up without aliases, so that they cannot lead in circles.
        let mut aliases: BTreeMap<String, usize> = BTreeMap::new();
        for (at, wish) in wishes.iter().enumerate() {
            for alias in wish.iter().flat_map(|wish| &wish.aliases) {
                aliases.entry(alias.trim().to_owned()).or_insert(at);
            }
        }
        for (alias, target) in &settings.aliases {
            match catalog.find(target) {
                Some(at) => drop(aliases.insert(alias.trim().to_owned(), at)),
                None => problems.push(Problem::plain(format!(
                    "model_aliases.{alias}: there is no model '{target}'"
                ))),
            }
        }
        let mut names = NameMap::default();
        let mut own: Vec<Vec<String>> = vec![Vec::new(); models.len()];
        for (alias, at) in aliases {
            if !alias.is_empty()
                && names.claim(&alias, at)
                && let Some(own) = own.get_mut(at)
            {
                own.push(alias);
            }
        }
        names.fill_from(&catalog.names);
        catalog.names = Arc::new(names);
        for ((model, wish), own) in models.iter_mut().zip(wishes).zip(own) {
            model.entry.aliases.splice(0..0, own);
            if let Some(wish) = wish {
                apply(&mut model.entry, wish, problems);
                if let Some((path, file)) = wish.mmproj.as_deref().and_then(|path| projectors.get_key_value(path)) {
                    attach(&mut model.entry, path, file);
                }
            }
        }
        share_instances(&mut models);
        catalog.entries = models.into_iter().map(|model| model.entry.shared()).collect();
        catalog
    }

    /// Names that follow from keys, files and paths, in the order in which they win.
    fn derived_names(&self, models: &mut [Named]) -> NameMap {
        let mut names = NameMap::default();
        for (at, model) in models.iter().enumerate() {
            names.claim(model.entry.key.as_str(), at);
        }
        for (at, model) in models.iter().enumerate() {
            names.claim(&model.entry.slug, at);
        }
        // From here on several models may want one name; the preferred variant is asked first.
        let mut order: Vec<usize> = (0..models.len()).collect();
        order.sort_by_key(|at| self.variants.get(*at).map(|variant| variant.rank));
        let mut claim = |wanted: &dyn Fn(&Named) -> Vec<String>| {
            for at in &order {
                let Some(model) = models.get_mut(*at) else { continue };
                let own = model.own_names.clone();
                for name in own.unwrap_or_else(|| wanted(model)) {
                    let is_key = lookup_form(&name) == lookup_form(model.entry.key.as_str());
                    if names.claim(&name, *at) && !is_key && !model.entry.aliases.contains(&name) {
                        model.entry.aliases.push(name);
                    }
                }
            }
        };
        claim(&|model| vec![model.base.clone(), format!("{}:{}", model.base, model.quant)]);
        claim(&|model| {
            vec![
                model.plain_base.clone(),
                format!("{}:{}", model.plain_base, model.quant),
            ]
        });
        // LM Studio's clients expect this beginning on embedding models (contract 2).
        claim(&|model| {
            let embeds = model.entry.can(Capability::Embedding) && !model.base.starts_with(EMBEDDING);
            embeds
                .then(|| format!("{EMBEDDING}{}", model.base))
                .into_iter()
                .collect()
        });
        claim(&|model| vec![model.entry.indexed_path.clone()]);
        claim(&|model| {
            repository(&model.entry.indexed_path)
                .map(str::to_owned)
                .into_iter()
                .collect()
        });
        claim(&|model| vec![model.stem.clone()]);
        claim(&|model| {
            let file = model
                .entry
                .path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            file.into_iter().collect()
        });
        for at in order {
            let Some(model) = models.get_mut(at) else { continue };
            for name in std::mem::take(&mut model.late_names) {
                let is_key = lookup_form(&name) == lookup_form(model.entry.key.as_str());
                if names.claim(&name, at) && !is_key && !model.entry.aliases.contains(&name) {
                    model.entry.aliases.push(name);
                }
            }
        }
        names
    }

    /// Every model, unlisted ones included, sorted by key.
    pub fn entries(&self) -> &[Arc<ModelEntry>] {
        &self.entries
    }

    /// The models that lists show, sorted by key.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.entries.iter().filter(|entry| !entry.unlisted)
    }

    /// Further instances of models, by identifier (LM Studio contract 2). They are in no other list.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.instances.iter()
    }

    /// The same models with these further instances.
    pub(crate) fn with_instances(mut self, instances: Arc<Instances>) -> Self {
        self.instances = instances;
        self
    }

    pub(crate) fn speech(&self) -> &SpeechChoice {
        &self.speech
    }

    /// The model, or further instance, with exactly this key.
    pub fn get(&self, key: &ModelKey) -> Option<&Arc<ModelEntry>> {
        match self.entries.binary_search_by(|entry| entry.key.cmp(key)) {
            Ok(at) => self.entries.get(at),
            Err(_) => self.instances.get(key),
        }
    }

    /// The model a caller means, by any of its names, in any case (Ollama contract 1.2, LM Studio contract 2).
    ///
    /// In this order: identifier of a further instance, config alias, key, slug, `base:quantization`, path, `publisher/repo`, file name, beginning of a
    /// path. `:latest`, `:local`, a scheme, and the hosts of the public registries are taken off where needed. Names are
    /// only compared, never opened (promise D4).
    pub fn resolve(&self, name: &str) -> Option<Arc<ModelEntry>> {
        if let Some(instance) = self.instances.find(name) {
            return Some(Arc::clone(instance));
        }
        self.find(name).and_then(|at| self.entries.get(at)).cloned()
    }

    /// [`Self::resolve`], where of several models that a name fits equally well a loaded one is preferred, and a further
    /// instance to a model that is not loaded (LM Studio contract 2).
    pub fn resolve_loaded(&self, name: &str, is_loaded: impl Fn(&ModelEntry) -> bool) -> Option<Arc<ModelEntry>> {
        let found = self.resolve(name)?;
        if found.instance_of.is_some() || is_loaded(&found) {
            return Some(found);
        }
        let instance_of = |model: &ModelEntry| {
            self.instances()
                .find(|instance| instance.instance_of.as_ref() == Some(&model.key) && is_loaded(instance))
        };
        if let Some(instance) = instance_of(&found) {
            return Some(Arc::clone(instance));
        }
        let form = lookup_form(name.trim());
        if form == lookup_form(found.key.as_str()) {
            return Some(found);
        }
        // Only names that several variants share leave a choice: the base name, the repository, the beginning of a path.
        let fits = |variant: &Variant| {
            variant.shared_names.contains(&form) || is_path_prefix(&form) && variant.path.starts_with(&form)
        };
        let mut others = self.entries.iter().zip(self.variants.iter());
        let loaded = others.find_map(|(entry, variant)| {
            let instance = || {
                if is_loaded(entry) {
                    Some(entry)
                } else {
                    instance_of(entry)
                }
            };
            fits(variant).then(instance).flatten()
        });
        Some(loaded.map_or(found, Arc::clone))
    }

    /// Is the identifier of a further instance a name of another model, or a spelling of its own model's key?
    pub(crate) fn is_taken(&self, instance: &ModelEntry) -> bool {
        let form = lookup_form(instance.key.as_str());
        let bare = form.strip_suffix(":latest").unwrap_or(&form);
        self.get(&instance.key).is_some()
            || self
                .find(instance.key.as_str())
                .and_then(|at| self.entries.get(at))
                .is_some_and(|named| {
                    Some(&named.key) != instance.instance_of.as_ref() || lookup_form(named.key.as_str()) == bare
                })
    }

    fn find(&self, name: &str) -> Option<usize> {
        if name.len() > MAX_NAME {
            return None;
        }
        let name = lookup_form(name.trim());
        let name = name.strip_suffix(":local").unwrap_or(&name);
        if name.is_empty() {
            return None;
        }
        self.find_form(name).or_else(|| {
            let bare = without_host(name);
            (bare != name).then(|| self.find_form(bare)).flatten()
        })
    }

    /// One spelling, with its variations of tag and ending.
    fn find_form(&self, name: &str) -> Option<usize> {
        if let Some(at) = self.names.get(name) {
            return Some(at);
        }
        let (left, tag) = match name.rsplit_once(':') {
            Some((left, tag)) if !tag.contains('/') => (left, Some(tag)),
            _ => (name, None),
        };
        let tag = tag.filter(|tag| *tag != "latest").map(normal_quant);
        let left = left.strip_suffix(".gguf").unwrap_or(left);
        // Only the last part of a path is written freely; folders are names of their own. What normalising would cut off
        // makes it another name.
        let free =
            !left.contains('/') && left.starts_with(char::is_alphanumeric) && left.ends_with(char::is_alphanumeric);
        let plain = if free { normal_name(left) } else { left.to_owned() };
        for left in [left, &plain] {
            let found = match &tag {
                None => self.names.get(left).or_else(|| self.names.get(&format!("{left}.gguf"))),
                Some(tag) => self.names.get(&format!("{left}:{tag}")).or_else(|| {
                    // `alias:quantization` and `key:quantization` of a model that has only this one.
                    self.names
                        .get(left)
                        .filter(|at| self.variants.get(*at).is_some_and(|v| v.quant == *tag))
                }),
            };
            if found.is_some() {
                return found;
            }
        }
        self.by_path_prefix(left, tag.as_deref())
    }

    /// `publisher/repo-or-its-beginning`, optionally with a quantization; the preferred variant of what fits.
    fn by_path_prefix(&self, prefix: &str, quant: Option<&str>) -> Option<usize> {
        if !is_path_prefix(prefix) {
            return None;
        }
        self.variants
            .iter()
            .enumerate()
            .filter(|(_, v)| v.path.starts_with(prefix) && quant.is_none_or(|quant| v.quant == quant))
            .min_by_key(|(_, variant)| variant.rank)
            .map(|(at, _)| at)
    }

    /// The listed model whose name is most like an unknown one, for "did you mean".
    pub fn nearest(&self, name: &str) -> Option<ModelKey> {
        let wanted: String = lookup_form(name.trim()).chars().take(120).collect();
        let wanted = wanted.strip_suffix(":latest").unwrap_or(&wanted);
        let likeness = |entry: &ModelEntry| {
            let names = std::iter::once(entry.key.as_str()).chain(entry.aliases.iter().map(String::as_str));
            names
                .map(|name| strsim::jaro_winkler(wanted, &lookup_form(name)))
                .fold(0.0, f64::max)
        };
        self.listed()
            .map(|entry| (likeness(entry), entry))
            .filter(|(likeness, _)| *likeness >= LIKENESS)
            .max_by(|(a, x), (b, y)| a.total_cmp(b).then_with(|| y.key.cmp(&x.key)))
            .map(|(_, entry)| entry.key.clone())
    }
}

impl Variant {
    fn of(model: &Named) -> Self {
        let facts = &model.entry.facts;
        let bits = gguf::label_bits(&facts.quantization).unwrap_or(facts.bits_per_weight);
        // Thousandths, so that it can be sorted; among equally distant ones the larger file first.
        let distance = ((bits - gguf::PREFERRED_BITS).abs() * 1000.0).round() as u64;
        let bases = [
            Some(model.base.as_str()),
            Some(&model.plain_base),
            repository(&model.entry.indexed_path),
        ];
        if model.own_names.is_some() {
            // Found by its own names only. A speech model has a quantization that may be asked for.
            let quant = if model.late_names.is_empty() {
                String::new()
            } else {
                model.quant.clone()
            };
            return Self {
                quant,
                ..Self::default()
            };
        }
        Self {
            quant: model.quant.clone(),
            shared_names: bases.into_iter().flatten().map(lookup_form).collect(),
            path: model.entry.indexed_path.to_lowercase(),
            rank: (distance, u64::MAX - model.entry.size),
        }
    }
}

/// Models that differ in nothing the engine is told run as one (Ollama contract 9): the oldest of them, so that a further
/// name changes nothing for an engine that runs.
fn share_instances(models: &mut [Named]) {
    let mut firsts: HashMap<PathBuf, Vec<usize>> = HashMap::new();
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by_key(|at| models.get(*at).map(|model| model.since_ns));
    for at in order {
        let Some(Named { entry, .. }) = models.get(at) else {
            continue;
        };
        let same = |other: &ModelEntry| {
            other.same_files(entry)
                && other.launch == entry.launch
                && other.pinned == entry.pinned
                && other.keep_alive == entry.keep_alive
        };
        let candidates = firsts.entry(entry.path.clone()).or_default();
        let first = candidates
            .iter()
            .filter_map(|first| models.get(*first))
            .find(|first| same(&first.entry));
        match first.map(|first| first.entry.key.clone()) {
            Some(key) => {
                if let Some(model) = models.get_mut(at) {
                    model.entry.runs_as = Some(key);
                }
            }
            None => candidates.push(at),
        }
    }
}

fn apply(entry: &mut ModelEntry, wish: &EntrySettings, problems: &mut Vec<Problem>) {
    entry.launch = wish.launch.or(&entry.launch);
    entry.keep_alive = wish.keep_alive;
    entry.pinned = wish.pinned;
    entry.unlisted = wish.unlisted;
    if let Some(engine) = wish.engine {
        // A command of the user's may run anything; the others know one kind of file each.
        if engine == natural_engine(entry) || engine == EngineKind::Custom {
            entry.engine = engine;
        } else {
            entry.engine = natural_engine(entry);
            problems.push(Problem::plain(format!(
                "models.entries.{}.engine: this engine cannot run the model's files",
                entry.key
            )));
        }
    }
    if let Some(name) = &wish.display_name {
        entry.display_name.clone_from(name);
    }
    if let Some(description) = &wish.description {
        entry.description = Some(description.clone());
    }
}

fn natural_engine(entry: &ModelEntry) -> EngineKind {
    if entry.can(Capability::Transcription) {
        EngineKind::FasterWhisper
    } else if entry.can(Capability::Speech) {
        EngineKind::Speech
    } else {
        EngineKind::LlamaServer
    }
}

/// Gives a model the projector that the settings name, unless it has it already.
fn attach(entry: &mut ModelEntry, path: &Path, file: &ProjectorFile) {
    if entry.mmproj.as_deref() == Some(path) {
        return;
    }
    entry.size = entry.size.saturating_add(file.size);
    entry.mmproj = Some(path.to_owned());
    for (has, capability) in [(file.vision, Capability::Vision), (file.audio, Capability::Audio)] {
        if has {
            entry.capabilities.insert(capability);
        }
    }
}

/// Could this be `publisher/` and the beginning of a repository?
fn is_path_prefix(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(publisher, repository)| !publisher.is_empty() && !repository.is_empty())
}

/// `publisher/repo` of `publisher/repo/file.gguf`.
fn repository(path: &str) -> Option<&str> {
    let (folder, _) = path.rsplit_once('/')?;
    folder.contains('/').then_some(folder)
}

/// A lower-case name without a scheme and without the hosts and folders that public registries put before it.
fn without_host(name: &str) -> &str {
    let name = ["https://", "http://", "ollama://", "hf://"]
        .iter()
        .find_map(|s| name.strip_prefix(s))
        .unwrap_or(name);
    let hosts = ["registry.ollama.ai/", "ollama.com/", "hf.co/", "huggingface.co/"];
    let name = hosts.iter().find_map(|host| name.strip_prefix(host)).unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}
