use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use domain::{EventKind, Level, LogLine, LogStream};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::{EventBus, LineSink, LogRing, LogWriter, RotatingFile, clean_line};

/// How the app logs.
#[derive(Debug, Clone)]
pub struct TracingSettings {
    /// A level (`info`) or tracing directives (`info,router=debug`).
    pub level: String,
    /// One JSON object per line instead of text.
    pub json: bool,
    /// A file beside stderr, rotated.
    pub file: Option<PathBuf>,
    /// Size at which the file is rotated.
    pub max_file_bytes: u64,
    /// Files kept, the current one included.
    pub max_files: usize,
}

/// Why logging could not be set up. Serving goes on without.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a list of directives.
    #[error("log level {level:?} is not understood: {message}")]
    Level {
        /// As given.
        level: String,
        /// What the parser said.
        message: String,
    },
    /// The log file cannot be written.
    #[error("cannot write the log file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No thread for the writer.
    #[error("cannot start the log writer: {0}")]
    Thread(std::io::Error),
    /// Something else in this process set it up before.
    #[error("logging is already set up")]
    AlreadySet,
}

/// Identical lines let through per window, and the window (promise O3: duplicates are rate-limited).
const SAME_LINES: u32 = 20;
const SAME_WINDOW: Duration = Duration::from_secs(10);
const SAME_TRACKED: usize = 256;

static WRITERS: OnceLock<Vec<LogWriter>> = OnceLock::new();

/// The app's own recent lines, as [`init_tracing`] records them.
pub fn app_log() -> LogRing {
    static RING: OnceLock<LogRing> = OnceLock::new();
    RING.get_or_init(|| LogRing::new(2000, 512 * 1024)).clone()
}

/// Waits until the lines logged so far are written, at most `limit` for each target; for the end of the program.
pub fn flush_logs(limit: Duration) {
    for writer in WRITERS.get().into_iter().flatten() {
        writer.flush(limit);
    }
}

/// Sends everything logged with `tracing` to stderr, to the rotated file, to [`app_log`] and, from warnings up, to the
/// bus. Writing happens on own threads: neither a full disk nor a stopped terminal delays serving.
///
/// # Errors
/// A bad level, an unwritable file, or a second call. Nothing is set up then.
pub fn init_tracing(settings: TracingSettings, bus: &EventBus) -> Result<(), TelemetryError> {
    // Libraries of the `log` crate say at "info" what helps only their authors. Directives of the user's come later and win.
    let directives = format!("log=warn,{}", settings.level);
    let filter = EnvFilter::try_new(directives).map_err(|error| TelemetryError::Level {
        level: settings.level.clone(),
        message: error.to_string(),
    })?;
    let mut writers = vec![LogWriter::start("log-stderr").map_err(TelemetryError::Thread)?];
    let mut sinks = vec![writers[0].sink(std::io::stderr())];
    if let Some(path) = settings.file {
        let file = RotatingFile::open(&path, settings.max_file_bytes, settings.max_files)
            .map_err(|source| TelemetryError::File { path, source })?;
        let writer = LogWriter::start("log-file").map_err(TelemetryError::Thread)?;
        sinks.push(writer.sink(file));
        writers.push(writer);
    }
    let layer = LogLayer {
        json: settings.json,
        sinks,
        ring: app_log(),
        bus: bus.clone(),
        repeats: Mutex::default(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::AlreadySet)?;
    let _ = WRITERS.set(writers);
    Ok(())
}

struct LogLayer {
    json: bool,
    sinks: Vec<LineSink>,
    ring: LogRing,
    bus: EventBus,
    repeats: Mutex<HashMap<u64, Repeat>>,
}

struct Repeat {
    since: Instant,
    seen: u32,
}

/// Fields of a span, as text and as JSON.
struct SpanFields(Fields);

#[derive(Default)]
struct Fields {
    message: String,
    text: String,
    json: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, text: &str, json: serde_json::Value) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.text, " {}={text}", field.name());
            self.json.insert(field.name().to_owned(), json);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        self.add(field, &text, serde_json::Value::String(text.clone()));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string(), value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, &value.to_string(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, &value.to_string(), value.into());
    }
}

impl LogLayer {
    /// How many identical lines were swallowed before this one, or `None` to swallow this one too.
    fn repeats_before(&self, level: tracing::Level, text: &str, now: Instant) -> Option<u32> {
        let mut hasher = DefaultHasher::new();
        (level.as_str(), text).hash(&mut hasher);
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        if repeats.len() >= SAME_TRACKED {
            repeats.retain(|_, repeat| now.duration_since(repeat.since) < SAME_WINDOW);
            if repeats.len() >= SAME_TRACKED {
                repeats.clear();
            }
        }
        let repeat = repeats.entry(hasher.finish()).or_insert(Repeat { since: now, seen: 0 });
        if now.duration_since(repeat.since) >= SAME_WINDOW {
            let swallowed = repeat.seen.saturating_sub(SAME_LINES);
            *repeat = Repeat { since: now, seen: 1 };
            return Some(swallowed);
        }
        repeat.seen += 1;
        (repeat.seen <= SAME_LINES).then_some(0)
    }

    fn write(&self, level: tracing::Level, target: &str, fields: Fields, span_text: &str, swallowed: u32) {
        let mut text = clean_line(format!("{}{}{span_text}", fields.message, fields.text).as_bytes());
        if swallowed > 0 {
            let _ = write!(text, " (repeated {swallowed} times more)");
        }
        let now = jiff::Timestamp::now();
        let mut line = if self.json {
            let mut object = serde_json::Map::new();
            object.insert("time".into(), format!("{now:.3}").into());
            object.insert("level".into(), level.as_str().to_lowercase().into());
            object.insert("target".into(), target.into());
            object.insert("message".into(), clean_line(fields.message.as_bytes()).into());
            if swallowed > 0 {
                object.insert("repeated".into(), swallowed.into());
            }
            object.extend(fields.json);
            serde_json::Value::Object(object).to_string()
        } else {
            format!("{now:.3} {:5} {target}: {text}", level.as_str())
        };
        line.push('\n');
        let line: Arc<[u8]> = line.into_bytes().into();
        for sink in &self.sinks {
            sink.write_line(Arc::clone(&line));
        }
        let level = domain_level(level);
        let line = LogLine {
            at_ms: now.as_millisecond(),
            level,
            text,
        };
        if level >= Level::Warn {
            self.bus.publish(EventKind::Log {
                stream: LogStream::App,
                line: line.clone(),
            });
        }
        self.ring.push(line);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            record.record(&mut fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut span_text = String::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(more)) = span.extensions().get::<SpanFields>() {
                span_text.push_str(&more.text);
                for (name, value) in &more.json {
                    fields.json.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let same = format!("{target} {}{}{span_text}", fields.message, fields.text);
        if let Some(swallowed) = self.repeats_before(level, &same, Instant::now()) {
            self.write(level, target, fields, &span_text, swallowed);
        }
    }
}

fn domain_level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        _ => Level::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Setup {
        folder: tempfile::TempDir,
        writer: LogWriter,
        ring: LogRing,
        bus: EventBus,
    }

    impl Setup {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                writer: LogWriter::start("test").unwrap(),
                ring: LogRing::new(1000, 1 << 20),
                bus: EventBus::new(),
            }
        }

        fn log(&self, json: bool, body: impl FnOnce()) -> String {
            let file = RotatingFile::open(self.folder.path().join("app.log"), 1 << 20, 2).unwrap();
            let layer = LogLayer {
                json,
                sinks: vec![self.writer.sink(file)],
                ring: self.ring.clone(),
                bus: self.bus.clone(),
                repeats: Mutex::default(),
            };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
            assert!(self.writer.flush(Duration::from_secs(5)));
            std::fs::read_to_string(self.folder.path().join("app.log")).unwrap()
        }
    }

    #[test]
    fn text_lines_cannot_be_forged() {
        let setup = Setup::new();
        let mut events = setup.bus.subscribe();
        let text = setup.log(false, || {
            tracing::info!(port = 1234, name = "a\nERROR b\x1b[0m", "listening");
            let span = tracing::info_span!("request", id = "r-1");
            let _in = span.enter();
            tracing::warn!("slow");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with("INFO  telemetry::tracing_layer::tests: listening port=1234 name=a\\x0aERROR b\\x1b[0m")
        );
        assert!(lines[1].ends_with("slow id=r-1"), "{text}");
        assert_eq!(lines.len(), 2);
        assert_eq!(setup.ring.tail(9).len(), 2);
        assert!(matches!(&events.try_recv().unwrap().kind, EventKind::Log { line, .. } if line.text == "slow id=r-1"));
        assert!(events.try_recv().is_err(), "info is not for the bus");
    }

    #[test]
    fn json_lines_parse_and_keep_types() {
        let setup = Setup::new();
        let text = setup.log(true, || {
            let span = tracing::info_span!("request", id = 7);
            let _in = span.enter();
            tracing::error!(port = 1234, ok = false, "no\nway");
        });
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["message"], "no\\x0away");
        assert_eq!(
            (&value["port"], &value["ok"], &value["id"]),
            (&1234.into(), &false.into(), &7.into())
        );
    }

    #[test]
    fn repeats_are_counted_not_written() {
        let setup = Setup::new();
        let text = setup.log(false, || (0..1000).for_each(|_| tracing::info!("again")));
        assert_eq!(text.lines().count(), SAME_LINES as usize);
    }

    #[test]
    fn the_swallowed_number_is_told_in_the_next_window() {
        let writer = LogWriter::start("test").unwrap();
        let layer = LogLayer {
            json: false,
            sinks: vec![writer.sink(std::io::sink())],
            ring: LogRing::new(1, 1),
            bus: EventBus::new(),
            repeats: Mutex::default(),
        };
        let start = Instant::now();
        let passed = (0..100)
            .filter(|_| layer.repeats_before(tracing::Level::INFO, "x", start).is_some())
            .count();
        assert_eq!(passed, SAME_LINES as usize);
        assert_eq!(
            layer.repeats_before(tracing::Level::INFO, "x", start + SAME_WINDOW),
            Some(80)
        );
        assert_eq!(
            layer.repeats_before(tracing::Level::INFO, "x", start + SAME_WINDOW),
            Some(0)
        );
    }

    #[test]
    fn a_bad_level_is_named() {
        let settings = TracingSettings {
            level: "loud=very".into(),
            json: false,
            file: None,
            max_file_bytes: 1,
            max_files: 1,
        };
        let error = init_tracing(settings, &EventBus::new()).unwrap_err();
        assert!(error.to_string().contains("loud=very"), "{error}");
    }
}
