//! Faults of the whole process, from `STUB_*` variables.

use std::path::PathBuf;
use std::str::FromStr;

use crate::death::Death;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// `STUB_RECORD=FILE`: JSON line per event, see `testkit::Recorded`; `tokens` counts the lines or pieces sent.
    pub(crate) record: Option<PathBuf>,
    /// `STUB_SCRIPT=FILE`: what requests meet, read anew for each; see [`crate::script`].
    pub(crate) script: Option<PathBuf>,
    /// `STUB_LOAD_GATE=FILE`: halfway, loading waits until this file is there.
    pub(crate) load_gate: Option<PathBuf>,
    /// `STUB_LOAD_STEPS=N`: progress lines (default 4).
    pub(crate) load_steps: u32,
    /// `STUB_LOAD_FAILED=SENTENCE`: the model cannot be loaded (exit code 3).
    pub(crate) load_failed: Option<String>,
    /// `STUB_DIE_BEFORE_BIND`, `STUB_DIE_LOADING`, `STUB_DIE_READY` = `exit:N` or `signal:N`.
    pub(crate) die_before_bind: Option<Death>,
    pub(crate) die_loading: Option<Death>,
    pub(crate) die_ready: Option<Death>,
    /// `STUB_DIE_MESSAGE=TEXT`: a line on stderr before dying.
    pub(crate) die_message: Option<String>,
    /// `STUB_IGNORE_TERM=1`: SIGTERM and the end of stdin have no effect.
    pub(crate) ignore_term: bool,
    /// `STUB_STUCK=FILE`: `/stats` says that the worker is stuck while this file is there.
    pub(crate) stuck: Option<PathBuf>,
    /// `STUB_MULTILINGUAL=0`: an English-only model.
    pub(crate) multilingual: bool,
    /// `STUB_TRANSLATES=0`: a model that cannot translate.
    pub(crate) translates: bool,
}

impl Faults {
    pub(crate) fn from_env() -> Self {
        let faults = Self {
            record: text("STUB_RECORD").map(PathBuf::from),
            script: text("STUB_SCRIPT").map(PathBuf::from),
            load_gate: text("STUB_LOAD_GATE").map(PathBuf::from),
            load_steps: value("STUB_LOAD_STEPS").unwrap_or(4),
            load_failed: text("STUB_LOAD_FAILED"),
            die_before_bind: value("STUB_DIE_BEFORE_BIND"),
            die_loading: value("STUB_DIE_LOADING"),
            die_ready: value("STUB_DIE_READY"),
            die_message: text("STUB_DIE_MESSAGE"),
            ignore_term: text("STUB_IGNORE_TERM").is_some_and(|value| value != "0"),
            stuck: text("STUB_STUCK").map(PathBuf::from),
            multilingual: text("STUB_MULTILINGUAL").is_none_or(|value| value != "0"),
            translates: text("STUB_TRANSLATES").is_none_or(|value| value != "0"),
        };
        // `STUB_ONCE=FILE`: faults only in the first process that gets to make the file; later ones behave.
        let again = std::env::var_os("STUB_ONCE").is_some_and(|once| std::fs::File::create_new(once).is_err());
        if !again {
            return faults;
        }
        Self {
            record: faults.record,
            script: faults.script,
            multilingual: faults.multilingual,
            translates: faults.translates,
            ..Self::default()
        }
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn value<T: FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}
