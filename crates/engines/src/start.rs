//! What the engine's output lines mean: progress, address, readiness, log.
//!
//! In child mode (engine guide 2.2) states come on stdout as `cmd_child_to_router:state:{…}` and the log on stderr; with
//! `--log-jsonl` alone the log is on stdout. Both pipes are read the same way here. Older programs log plain text.

use std::net::SocketAddr;

use domain::{Level, LogLine};
use serde::Deserialize;
use serde_json::Value;
use supervisor::OutputLine;

/// What the engine told about itself when it was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadyFacts {
    /// Where it listens.
    pub address: SocketAddr,
    /// Context of one slot, in tokens, when it said so.
    pub context: Option<u32>,
}

/// What an output line means for the start of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StartSignal {
    /// Loading, 0 to 1; never falls.
    Progress(f32),
    /// The address is known; not yet ready. Left out when "ready" was read before the address (state and log come by
    /// two pipes, so their order is not certain) and for engines without child mode: take the address from
    /// [`ReadyFacts::address`], which is always there.
    Listening(SocketAddr),
    /// It answers. Always comes, once per start, and once more after each [`StartSignal::Sleeping`]. An engine without
    /// child mode is ready when it tells its address, which it does after loading.
    Ready(ReadyFacts),
    /// It freed its model after idling; the next request wakes it.
    Sleeping,
}

const COMMAND: &str = "cmd_child_to_router:";
const STATE: &str = "cmd_child_to_router:state:";

/// Follows the output of one starting engine.
#[derive(Debug, Default)]
pub struct StartWatch {
    child_mode: bool,
    progress: f32,
    address: Option<SocketAddr>,
    /// "ready" was said.
    ready: bool,
    /// The context it named.
    context: Option<u32>,
    announced: bool,
}

impl StartWatch {
    /// Before the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next line, from either pipe.
    pub fn on_line(&mut self, line: &OutputLine) -> Option<StartSignal> {
        let text = line.text.trim();
        if text.starts_with(COMMAND) {
            self.child_mode = true;
            return self.on_state(text.strip_prefix(STATE)?);
        }
        if self.address.is_some() {
            return None;
        }
        let address = listening_address(&decode(text)?.text)?;
        self.address = Some(address);
        if self.ready || !self.child_mode {
            self.announce()
        } else {
            Some(StartSignal::Listening(address))
        }
    }

    fn on_state(&mut self, json: &str) -> Option<StartSignal> {
        let state: State = serde_json::from_str(json).ok()?;
        match state.state.as_str() {
            "loading" => {
                let progress = state.payload.progress()?;
                // The engine repeats values; one signal per visible step is enough.
                let is_news = progress > self.progress || (progress == 0.0 && self.progress == 0.0);
                if !is_news || self.announced {
                    return None;
                }
                self.progress = progress;
                Some(StartSignal::Progress(progress))
            }
            "ready" => {
                let context = state
                    .payload
                    .meta
                    .and_then(|meta| meta.n_ctx)
                    .and_then(|n| u32::try_from(n).ok());
                self.ready = true;
                self.context = context.filter(|n| *n > 0);
                self.announce()
            }
            "sleeping" => {
                self.announced = false;
                self.ready = false;
                Some(StartSignal::Sleeping)
            }
            _ => None,
        }
    }

    /// Ready is told once, as soon as the address is known.
    fn announce(&mut self) -> Option<StartSignal> {
        let address = self.address?;
        if self.announced {
            return None;
        }
        self.announced = true;
        Some(StartSignal::Ready(ReadyFacts {
            address,
            context: self.context,
        }))
    }
}

#[derive(Deserialize)]
struct State {
    state: String,
    #[serde(default)]
    payload: Payload,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload {
    stages: Vec<String>,
    current: Option<String>,
    value: Option<f32>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    n_ctx: Option<u64>,
}

impl Payload {
    /// Stages count alike: nothing tells how long each takes.
    fn progress(&self) -> Option<f32> {
        let value = self.value.filter(|value| value.is_finite())?.clamp(0.0, 1.0);
        let stages = self.stages.len().max(1) as f32;
        let index = self
            .current
            .as_ref()
            .and_then(|c| self.stages.iter().position(|s| s == c))
            .unwrap_or(0) as f32;
        Some(((index + value) / stages).clamp(0.0, 1.0))
    }
}

/// `… llama_server: listening on http://127.0.0.1:39521`, before that `… server is listening on http://…`.
fn listening_address(text: &str) -> Option<SocketAddr> {
    let (before, after) = text.split_once("listening on http://")?;
    let before = before.trim_end().trim_end_matches("server is").trim_end();
    // The words must be the message itself: a model path in a log line may hold anything.
    if !before.is_empty() && !before.ends_with(':') {
        return None;
    }
    let end = after
        .find(|c: char| c.is_whitespace() || c == ',' || c == '/')
        .unwrap_or(after.len());
    let address: SocketAddr = after[..end].parse().ok()?;
    (address.ip().is_loopback() && address.port() != 0).then_some(address)
}

/// A log message out of any of the engine's forms.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) level: Level,
    pub(crate) text: String,
}

#[derive(Deserialize)]
struct Json {
    #[serde(rename = "type")]
    kind: String,
    level: Option<String>,
    msg: Option<String>,
    data: Option<Value>,
}

/// `None` for empty lines and for protocol.
pub(crate) fn decode(text: &str) -> Option<Decoded> {
    let text = text.trim();
    if text.is_empty() || text.starts_with(COMMAND) {
        return None;
    }
    if text.starts_with('{')
        && let Ok(json) = serde_json::from_str::<Json>(text)
    {
        return decode_json(json);
    }
    Some(decode_text(text))
}

fn decode_json(json: Json) -> Option<Decoded> {
    if let Some(message) = json.msg {
        let level = match json.level.as_deref() {
            Some("error") => Level::Error,
            Some("warn" | "warning") => Level::Warn,
            Some("debug" | "trace") => Level::Debug,
            _ => Level::Info,
        };
        let text = message.trim().replace(['\n', '\r'], " ");
        return (!text.is_empty()).then_some(Decoded { level, text });
    }
    Some(Decoded {
        level: Level::Debug,
        text: format!("{}: {}", json.kind, json.data.unwrap_or_default()),
    })
}

/// `0.00.123.456 E srv  func: text`, or words without any mark.
fn decode_text(text: &str) -> Decoded {
    let mut words = text.splitn(3, ' ');
    if let (Some(time), Some(mark), Some(rest)) = (words.next(), words.next(), words.next())
        && time.contains('.')
        && time.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        let level = match mark {
            "E" => Some(Level::Error),
            "W" => Some(Level::Warn),
            "I" => Some(Level::Info),
            "D" | "T" => Some(Level::Debug),
            _ => None,
        };
        if let Some(level) = level {
            return Decoded {
                level,
                text: rest.trim().to_owned(),
            };
        }
    }
    let lower = text.get(..24).unwrap_or(text).to_lowercase();
    let level = if lower.starts_with("error") || lower.contains(" error") || text.contains("GGML_ASSERT") {
        Level::Error
    } else {
        Level::Info
    };
    Decoded {
        level,
        text: text.to_owned(),
    }
}

/// The line as the log shows it; `None` for lines that are protocol, not log. Fits `supervisor::LineDecoder`.
pub fn log_line(line: &OutputLine) -> Option<LogLine> {
    let decoded = decode(&line.text)?;
    Some(LogLine {
        at_ms: telemetry::now_ms(),
        level: decoded.level,
        text: telemetry::clean_line(decoded.text.as_bytes()),
    })
}

/// A line of a program whose log has no form that we know.
pub(crate) fn plain_line(line: &OutputLine) -> Option<LogLine> {
    let text = line.text.trim();
    let decoded = (!text.is_empty()).then(|| decode_text(text))?;
    Some(LogLine {
        at_ms: telemetry::now_ms(),
        level: decoded.level,
        text: telemetry::clean_line(decoded.text.as_bytes()),
    })
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
