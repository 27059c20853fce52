//! Faults of the whole process, from `STUB_*` variables. A proxy filters headers and a supervisor filters the
//! environment, so tests of those pass them where the product lets an admin pass engine variables.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::death::Death;

#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// `STUB_RECORD=FILE`: JSON line per event, see `testkit::Recorded`.
    pub(crate) record: Option<PathBuf>,
    /// `STUB_THREADS=N`: worker threads; 1 by default.
    pub(crate) threads: usize,
    /// `STUB_BIND_DELAY_MS=N`: before the socket is bound.
    pub(crate) bind_delay: Duration,
    /// `STUB_LOAD_MS=N`: time from binding to ready.
    pub(crate) load: Duration,
    /// `STUB_LOAD_GATE=FILE`: halfway, loading waits until this file is there.
    pub(crate) load_gate: Option<PathBuf>,
    /// `STUB_TOKEN_GATE=FILE`: a stream's second token waits until this file is there.
    pub(crate) token_gate: Option<PathBuf>,
    /// `STUB_LOAD_STEPS=N`: progress lines meanwhile (default 4; 0: silent).
    pub(crate) load_steps: u32,
    /// `STUB_LOAD_DOTS=1`: progress as dots without newline on stderr instead.
    pub(crate) load_dots: bool,
    /// `STUB_DIE_BEFORE_BIND`, `STUB_DIE_LOADING`, `STUB_DIE_READY` = `exit:N` or `signal:N`.
    pub(crate) die_before_bind: Option<Death>,
    pub(crate) die_loading: Option<Death>,
    pub(crate) die_ready: Option<Death>,
    /// `STUB_DIE_AFTER_MS=N` with `STUB_DIE_READY`: so long after ready.
    pub(crate) die_after: Duration,
    /// `STUB_DIE_TOKENS=N,exit:N`: after that many tokens of any stream.
    pub(crate) die_tokens: Option<(u64, Death)>,
    /// `STUB_DIE_MESSAGE=TEXT`: an error line before dying.
    pub(crate) die_message: Option<String>,
    /// `STUB_IGNORE_TERM=1`: SIGTERM, SIGINT and the exit message have no effect.
    pub(crate) ignore_term: bool,
    /// `STUB_GRANDCHILD=1`: forks a process that keeps the listening socket and ignores SIGTERM.
    pub(crate) grandchild: bool,
    /// `STUB_STDERR_MIB=N`: writes so much to stderr without newline once ready.
    pub(crate) stderr_mib: usize,
    /// `STUB_STDERR_LINES=N`: writes so many lines of 100 bytes to stderr once ready.
    pub(crate) stderr_lines: usize,
    /// `STUB_WRONG_PORT=1`: tells port 1 instead of the one it listens on.
    pub(crate) wrong_port: bool,
    /// `STUB_REFUSE_KEY=1`: answers 401 to any key.
    pub(crate) refuse_key: bool,
    /// `STUB_ALLOC_MIB=N`: touches so much memory once ready.
    pub(crate) alloc_mib: usize,
    /// `STUB_NO_BODY_READ=1`: never reads a request body.
    pub(crate) no_body_read: bool,
    /// `STUB_IDLE_MS=N`, `STUB_KEEPALIVE_MAX=N`: closes connections as the real engine (5000 and 100).
    pub(crate) idle: Duration,
    pub(crate) keepalive_max: u32,
    /// `STUB_ANSWERS=FILE`: scripts chosen by what is asked; see [`crate::answers`].
    pub(crate) answers: crate::answers::Answers,
    /// Defaults for every request; see [`crate::script::Script`].
    pub(crate) script: crate::script::Script,
}

impl Faults {
    pub(crate) fn from_env() -> Result<Self, String> {
        let mut faults = Self::read()?;
        // `STUB_ONCE=FILE`: faults only in the first process that gets to make the file; later ones behave.
        if let Some(once) = std::env::var_os("STUB_ONCE")
            && std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(once)
                .is_err()
        {
            faults = Self {
                record: faults.record,
                idle: faults.idle,
                keepalive_max: faults.keepalive_max,
                ..Self::default()
            };
        }
        Ok(faults)
    }

    fn read() -> Result<Self, String> {
        let tokens = text("STUB_DIE_TOKENS").and_then(|text| {
            let (tokens, death) = text.split_once(',')?;
            Some((tokens.parse().ok()?, death.parse().ok()?))
        });
        Ok(Self {
            answers: match text("STUB_ANSWERS") {
                Some(path) => crate::answers::Answers::read(path.as_ref())?,
                None => crate::answers::Answers::default(),
            },
            record: text("STUB_RECORD").map(PathBuf::from),
            threads: number("STUB_THREADS").unwrap_or(1),
            bind_delay: millis("STUB_BIND_DELAY_MS"),
            load: millis("STUB_LOAD_MS"),
            load_gate: text("STUB_LOAD_GATE").map(PathBuf::from),
            token_gate: text("STUB_TOKEN_GATE").map(PathBuf::from),
            load_steps: number("STUB_LOAD_STEPS").unwrap_or(4),
            load_dots: flag("STUB_LOAD_DOTS"),
            die_before_bind: number("STUB_DIE_BEFORE_BIND"),
            die_loading: number("STUB_DIE_LOADING"),
            die_ready: number("STUB_DIE_READY"),
            die_after: millis("STUB_DIE_AFTER_MS"),
            die_tokens: tokens,
            die_message: text("STUB_DIE_MESSAGE"),
            ignore_term: flag("STUB_IGNORE_TERM"),
            grandchild: flag("STUB_GRANDCHILD"),
            stderr_mib: number("STUB_STDERR_MIB").unwrap_or(0),
            stderr_lines: number("STUB_STDERR_LINES").unwrap_or(0),
            wrong_port: flag("STUB_WRONG_PORT"),
            refuse_key: flag("STUB_REFUSE_KEY"),
            alloc_mib: number("STUB_ALLOC_MIB").unwrap_or(0),
            no_body_read: flag("STUB_NO_BODY_READ"),
            idle: Duration::from_millis(number("STUB_IDLE_MS").unwrap_or(5000)),
            keepalive_max: number("STUB_KEEPALIVE_MAX").unwrap_or(100),
            script: crate::script::Script {
                tokens: number("STUB_TOKENS"),
                rate: number("STUB_RATE"),
                first_ms: number("STUB_FIRST_MS"),
                split: number("STUB_SPLIT"),
                hang_after: number("STUB_HANG_AFTER"),
                cut_after: number("STUB_CUT_AFTER"),
                text: text("STUB_TEXT"),
                status: number("STUB_STATUS"),
                error: text("STUB_ERROR"),
                batch: flag("STUB_BATCH").then_some(true),
                ..crate::script::Script::default()
            },
        })
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    text(name)?.parse().ok()
}

fn flag(name: &str) -> bool {
    text(name).is_some_and(|value| value != "0")
}

fn millis(name: &str) -> Duration {
    Duration::from_millis(number(name).unwrap_or(0))
}
