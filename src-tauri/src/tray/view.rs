//! What the tray shows, as values: pure, so that every state is a table in a test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use domain::{ModelKey, ModelState};

use crate::core::{Facts, ModelFact};

/// Model lines in the menu; the window has the rest.
pub(crate) const SLOTS: usize = 8;
/// Busy is shown only when it lasts, and then long enough to be seen (UX guide 8).
const BUSY_AFTER: Duration = Duration::from_millis(400);
const BUSY_FOR: Duration = Duration::from_millis(800);
/// How often countdowns are told anew.
const COUNTDOWN: Duration = Duration::from_secs(20);

/// The small sign on the icon. Higher ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Emblem {
    /// Nothing loaded.
    Idle,
    /// A model is loaded.
    Ready,
    /// Requests run.
    Busy,
    /// A model starts.
    Loading,
    /// Something needs attention.
    Warning,
    /// A model failed.
    Error,
}

/// One model's line and submenu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelLine {
    pub(crate) key: ModelKey,
    pub(crate) label: String,
    pub(crate) can_start: bool,
    pub(crate) can_stop: bool,
    pub(crate) can_chat: bool,
}

/// All texts of the tray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) emblem: Emblem,
    /// First line and tooltip.
    pub(crate) status: String,
    /// By slot: a model keeps its place.
    pub(crate) models: Vec<ModelLine>,
    /// Something is loaded that can be unloaded.
    pub(crate) can_free: bool,
    /// There is a problem to show.
    pub(crate) problem: bool,
    /// The model it is about.
    pub(crate) problem_model: Option<ModelKey>,
    /// "Quit (stops 2 models)".
    pub(crate) quit: String,
}

/// The time, twice: what passes and what the clock says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    pub(crate) unix_ms: i64,
}

impl Now {
    /// This moment.
    pub(crate) fn read() -> Self {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            at: Instant::now(),
            unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// Turns facts into views; remembers what the eye needs: places, held states, seen problems.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    slots: Vec<ModelKey>,
    busy_since: Option<Instant>,
    busy_until: Option<Instant>,
    problems: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Watcher {
    /// The view of these facts.
    pub(crate) fn view(&mut self, facts: &Facts, now: Now) -> View {
        self.place(facts);
        let busy = self.busy(facts.requests > 0, now.at);
        let count = |wanted: fn(&ModelState) -> bool| facts.models.iter().filter(|model| wanted(&model.state)).count();
        let loaded = count(|state| matches!(state, ModelState::Ready));
        let running = count(is_running);
        let failed = facts
            .models
            .iter()
            .find(|model| matches!(model.state, ModelState::Failed(_)));
        let names = Names::of(facts);
        let problem_of = |model: &ModelFact| format!("{} did not start", names.name(model));

        self.problems = facts.warnings.iter().cloned().collect();
        self.problems.extend(
            facts
                .models
                .iter()
                .filter(|m| matches!(m.state, ModelState::Failed(_)))
                .map(problem_of),
        );
        // A problem that went away is news when it comes back.
        self.seen.retain(|problem| self.problems.contains(problem));
        let unseen_failure = facts
            .models
            .iter()
            .find(|m| matches!(m.state, ModelState::Failed(_)) && !self.seen.contains(&problem_of(m)));
        let unseen_warning = facts.warnings.iter().find(|warning| !self.seen.contains(*warning));
        let loading = facts
            .models
            .iter()
            .find(|model| matches!(model.state, ModelState::Loading { .. } | ModelState::Queued));

        let (emblem, words) = if let Some(model) = unseen_failure {
            (Emblem::Error, format!("problem · {}", problem_of(model)))
        } else if let Some(warning) = unseen_warning {
            (Emblem::Warning, format!("attention · {}", first_sentence(warning)))
        } else if let Some(model) = loading {
            (Emblem::Loading, starting(names.name(model), &model.state))
        } else if busy {
            (
                Emblem::Busy,
                format!("working · {}", counted(facts.requests.max(1), "request", "requests")),
            )
        } else if loaded > 0 {
            (Emblem::Ready, format!("serving · {}", loaded_words(facts, loaded)))
        } else {
            (Emblem::Idle, "serving · no model loaded".into())
        };
        View {
            emblem,
            status: format!("LlamaRunner · {words}"),
            models: self
                .slots
                .iter()
                .filter_map(|key| facts.models.iter().find(|model| model.entry.key == *key))
                .map(|model| line(names.name(model), model, now.unix_ms))
                .collect(),
            can_free: running > 0,
            problem: !self.problems.is_empty(),
            problem_model: failed.map(|model| model.entry.key.clone()),
            quit: match running {
                0 => "Quit".into(),
                n => format!("Quit (stops {})", counted(n, "model", "models")),
            },
        }
    }

    /// When to look again without an event.
    pub(crate) fn wake(&self, view: &View, now: Instant) -> Option<Instant> {
        let edge = match (self.busy_since, self.busy_until) {
            (Some(since), None) => Some(since + BUSY_AFTER),
            (None, Some(until)) => Some(until),
            _ => None,
        };
        let countdown = (view.emblem > Emblem::Idle).then(|| now + COUNTDOWN);
        edge.into_iter().chain(countdown).min()
    }

    /// The user has looked: the emblems go, the causes stay.
    pub(crate) fn problems_seen(&mut self) {
        self.seen.clone_from(&self.problems);
    }

    /// Gives every model a slot that it keeps. A running model without one takes the slot of one that does not run.
    fn place(&mut self, facts: &Facts) {
        let find = |key: &ModelKey| facts.models.iter().find(|model| model.entry.key == *key);
        self.slots.retain(|key| find(key).is_some());
        let mut others: Vec<&ModelFact> = facts
            .models
            .iter()
            .filter(|model| !self.slots.contains(&model.entry.key))
            .collect();
        others.sort_by_key(|model| !is_running(&model.state));
        for model in others {
            if self.slots.len() < SLOTS {
                self.slots.push(model.entry.key.clone());
            } else if is_running(&model.state) {
                let idle = self
                    .slots
                    .iter()
                    .rposition(|key| find(key).is_none_or(|model| !is_running(&model.state)));
                if let Some(slot) = idle.and_then(|at| self.slots.get_mut(at)) {
                    *slot = model.entry.key.clone();
                }
            } else {
                break;
            }
        }
    }

    fn busy(&mut self, requests: bool, now: Instant) -> bool {
        if requests {
            let since = *self.busy_since.get_or_insert(now);
            if now >= since + BUSY_AFTER && self.busy_until.is_none() {
                self.busy_until = Some(now + BUSY_FOR);
            }
            return self.busy_until.is_some();
        }
        self.busy_since = None;
        let held = self.busy_until.is_some_and(|until| now < until);
        if !held {
            self.busy_until = None;
        }
        held
    }
}

fn is_running(state: &ModelState) -> bool {
    matches!(
        state,
        ModelState::Ready | ModelState::Loading { .. } | ModelState::Queued | ModelState::Draining
    )
}

/// What to call models: by the name for people where it is one model's only, else by key.
struct Names<'a>(BTreeSet<&'a str>);

impl<'a> Names<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut once = BTreeSet::new();
        let all = facts.models.iter().map(|model| model.entry.display_name.as_str());
        Self(all.filter(|name| !once.insert(*name)).collect())
    }

    fn name<'m>(&self, model: &'m ModelFact) -> &'m str {
        let name = model.entry.display_name.as_str();
        if self.0.contains(name) {
            model.entry.key.as_str()
        } else {
            name
        }
    }
}

fn line(name: &str, model: &ModelFact, unix_ms: i64) -> ModelLine {
    let label = match &model.state {
        ModelState::Unloaded => name.to_owned(),
        ModelState::Queued => format!("{name} · queued"),
        ModelState::Loading { .. } => match percent(&model.state) {
            Some(percent) => format!("{name} · starting {percent}"),
            None => format!("{name} · starting"),
        },
        ModelState::Ready => join(name, &[memory(model), Some(use_words(model, unix_ms))]),
        ModelState::Draining => format!("{name} · stopping"),
        ModelState::Failed(_) => format!("{name} · failed"),
    };
    let stoppable = matches!(
        model.state,
        ModelState::Ready | ModelState::Loading { .. } | ModelState::Queued
    );
    ModelLine {
        key: model.entry.key.clone(),
        label,
        can_start: matches!(model.state, ModelState::Unloaded | ModelState::Failed(_)),
        can_stop: stoppable,
        can_chat: model.entry.can(domain::Capability::Chat),
    }
}

fn join(name: &str, parts: &[Option<String>]) -> String {
    let mut text = name.to_owned();
    for part in parts.iter().flatten() {
        text.push_str(" · ");
        text.push_str(part);
    }
    text
}

fn memory(model: &ModelFact) -> Option<String> {
    let instance = model.instance.as_ref()?;
    let bytes = instance.memory_bytes.unwrap_or(0) + instance.vram_bytes.unwrap_or(0);
    (bytes > 0).then(|| size(bytes))
}

fn use_words(model: &ModelFact, unix_ms: i64) -> String {
    let Some(instance) = &model.instance else {
        return "loaded".into();
    };
    if instance.active > 0 {
        return "in use".into();
    }
    let Some(expires) = instance.expires_at_ms else {
        return "loaded".into();
    };
    match (expires - unix_ms) / 60_000 {
        ..=0 => "idle, unloads in under 1 min".into(),
        minutes => format!("idle, unloads in {minutes} min"),
    }
}

fn starting(name: &str, state: &ModelState) -> String {
    percent(state).map_or_else(
        || format!("starting {name}"),
        |percent| format!("starting {name} · {percent}"),
    )
}

/// How far a start is, once the engine says.
fn percent(state: &ModelState) -> Option<String> {
    match state {
        ModelState::Loading { progress } if *progress > 0.0 => Some(format!("{:.0} %", progress * 100.0)),
        _ => None,
    }
}

fn loaded_words(facts: &Facts, loaded: usize) -> String {
    let bytes: u64 = facts
        .models
        .iter()
        .filter_map(|model| model.instance.as_ref())
        .map(|instance| instance.memory_bytes.unwrap_or(0) + instance.vram_bytes.unwrap_or(0))
        .sum();
    let models = counted(loaded, "model", "models");
    if bytes > 0 {
        format!("{models}, {}", size(bytes))
    } else {
        models
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The first sentence of a message, for one line.
fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end]).trim_end_matches('.')
}

/// Memory: binary, written GB as operating systems do (UX guide 3).
fn size(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    let mib = bytes as f64 / MIB;
    if mib >= 1023.5 {
        format!("{:.1} GB", mib / 1024.0)
    } else {
        format!("{mib:.0} MB")
    }
}

#[cfg(test)]
mod tests;
