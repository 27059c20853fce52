//! What the program's lines mean. One JSON object per line on stdout is protocol and log, stderr is free text (audio
//! contract 7.2).

use std::net::{Ipv4Addr, SocketAddr};

use domain::{Level, LogLine};
use serde::Deserialize;
use supervisor::{OutputLine, OutputStream};

use crate::{ReadyFacts, StartSignal};

#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    progress: Option<f32>,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    compute_type: Option<String>,
}

fn parse(line: &OutputLine) -> Option<Line> {
    let text = line.text.trim();
    (line.stream == OutputStream::Stdout && text.starts_with('{'))
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Follows the output of one starting program.
#[derive(Debug, Default)]
pub(crate) struct SpeechWatch {
    progress: f32,
    address: Option<SocketAddr>,
    announced: bool,
}

impl SpeechWatch {
    /// The next line, from either pipe.
    pub(crate) fn on_line(&mut self, line: &OutputLine) -> Option<StartSignal> {
        let line = parse(line)?;
        if let Some(port) = line.port.filter(|port| *port != 0) {
            self.address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        match line.event.as_str() {
            "listening" => self.address.map(StartSignal::Listening),
            "loading" if !self.announced => {
                let progress = line.progress.filter(|progress| progress.is_finite())?.clamp(0.0, 1.0);
                let is_news = progress > self.progress;
                self.progress = self.progress.max(progress);
                is_news.then_some(StartSignal::Progress(progress))
            }
            "ready" if !self.announced => {
                let address = self.address?;
                self.announced = true;
                Some(StartSignal::Ready(ReadyFacts { address, context: None }))
            }
            _ => None,
        }
    }
}

/// What a refused model's line begins with in the log; [`super::ended`] finds it there.
pub(super) const CANNOT_LOAD: &str = "cannot load the model: ";

/// The line as the log shows it; `None` for protocol.
pub(crate) fn log_line(line: &OutputLine) -> Option<LogLine> {
    let text = line.text.trim();
    if text.is_empty() {
        return None;
    }
    let (level, text) = match parse(line) {
        Some(line) => match line.event.as_str() {
            "log" => (level(line.level.as_deref()), line.message.unwrap_or_default()),
            "load_failed" => (Level::Error, format!("{CANNOT_LOAD}{}", line.error.unwrap_or_default())),
            "ready" => {
                let on = [line.device, line.compute_type]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>();
                (Level::Info, format!("ready ({})", on.join(", ")))
            }
            "listening" | "loading" => return None,
            other => (Level::Debug, other.to_owned()),
        },
        None => (level_of_text(text), text.to_owned()),
    };
    Some(LogLine {
        at_ms: telemetry::now_ms(),
        level,
        text: telemetry::clean_line(text.replace(['\n', '\r'], " ").as_bytes()),
    })
}

fn level(word: Option<&str>) -> Level {
    match word {
        Some("error" | "critical") => Level::Error,
        Some("warn" | "warning") => Level::Warn,
        Some("debug") => Level::Debug,
        _ => Level::Info,
    }
}

/// The last line of a Python traceback is `SomeError: words`.
fn level_of_text(text: &str) -> Level {
    let first = text.split([' ', ':']).next().unwrap_or_default();
    if first.ends_with("Error") || first.ends_with("Exception") || text.starts_with("error") {
        Level::Error
    } else {
        Level::Info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> OutputLine {
        OutputLine {
            stream: OutputStream::Stdout,
            text: text.into(),
        }
    }

    #[test]
    fn a_start_is_followed_to_ready() {
        let mut watch = SpeechWatch::default();
        let address: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        for (line, expected) in [
            (
                r#"{"event":"loading","progress":0.1}"#,
                Some(StartSignal::Progress(0.1)),
            ),
            (
                r#"{"event":"listening","port":5000}"#,
                Some(StartSignal::Listening(address)),
            ),
            ("some library says hello", None),
            (
                r#"{"event":"loading","progress":0.5}"#,
                Some(StartSignal::Progress(0.5)),
            ),
            (r#"{"event":"loading","progress":0.4}"#, None),
            (r#"{"event":"log","level":"info","message":"x"}"#, None),
            (
                r#"{"event":"ready","port":5000,"device":"cpu","compute_type":"int8","languages":["en"]}"#,
                Some(StartSignal::Ready(ReadyFacts { address, context: None })),
            ),
            (r#"{"event":"ready","port":5000}"#, None),
            (r#"{"event":"loading","progress":1.0}"#, None),
        ] {
            assert_eq!(watch.on_line(&out(line)), expected, "{line}");
        }
    }

    #[test]
    fn what_is_no_protocol_says_nothing() {
        let mut watch = SpeechWatch::default();
        let on_stderr = OutputLine {
            stream: OutputStream::Stderr,
            text: r#"{"event":"ready","port":5000}"#.into(),
        };
        assert_eq!(watch.on_line(&on_stderr), None);
        for line in [
            r#"{"event":"ready"}"#,
            r#"{"event":"listening","port":0}"#,
            r#"{"event":"listening","port":70000}"#,
            r#"{"event":"loading","progress":"x"}"#,
            "{",
            "",
        ] {
            assert_eq!(watch.on_line(&out(line)), None, "{line}");
        }
    }

    #[test]
    fn lines_of_the_log() {
        let shown = |text: &str| log_line(&out(text)).map(|line| (line.level, line.text));
        for (line, expected) in [
            (
                r#"{"event":"log","level":"warn","message":"a\nb"}"#,
                Some((Level::Warn, "a b")),
            ),
            (
                r#"{"event":"load_failed","error":"No model.bin."}"#,
                Some((Level::Error, "cannot load the model: No model.bin.")),
            ),
            (
                r#"{"event":"ready","port":1,"device":"cpu","compute_type":"int8"}"#,
                Some((Level::Info, "ready (cpu, int8)")),
            ),
            (r#"{"event":"listening","port":1}"#, None),
            ("  ", None),
            ("ValueError: x", Some((Level::Error, "ValueError: x"))),
            ("plain", Some((Level::Info, "plain"))),
        ] {
            assert_eq!(
                shown(line),
                expected.map(|(level, text)| (level, text.to_owned())),
                "{line}"
            );
        }
    }
}
