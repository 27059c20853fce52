use std::net::SocketAddr;

use domain::LogLine;
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
    /// The address is known; not yet ready. Left out when the engine said "ready" before (it writes two pipes, so the
    /// order is not certain): [`ReadyFacts::address`] has the address in any case.
    Listening(SocketAddr),
    /// It answers. Follows at once for engines without child mode, which only tell that they listen.
    Ready(ReadyFacts),
    /// It freed its model after idling.
    Sleeping,
}

/// Follows the output of one starting engine.
#[derive(Debug, Default)]
pub struct StartWatch {}

impl StartWatch {
    /// Before the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next line.
    pub fn on_line(&mut self, _line: &OutputLine) -> Option<StartSignal> {
        None
    }
}

/// The line as the log shows it; `None` for lines that are protocol, not log.
pub fn log_line(_line: &OutputLine) -> Option<LogLine> {
    None
}
