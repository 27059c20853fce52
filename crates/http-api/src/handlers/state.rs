//! What the window and the command line live on: one state document, its changes as events, and engine logs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialects::{ModelView, Rendered};
use domain::{
    ActiveRequest, Capabilities, Event, EventKind, InstanceView, JobView, LogLine, ModelKey, ModelSource, ModelState,
    RunnerError, TranscriptionView,
};
use engines::speech::{SpeechInfo, SpeechState};
use futures_util::stream::{self, Stream, StreamExt};
use http::request::Parts;
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::downloads;
use super::lease::{known, not_found};
use super::llamarunner::engine_bytes;
use super::{Answer, listed_with_instances, query};
use crate::dispatch::Cx;
use crate::errors::{json, text};
use crate::relay;
use crate::state::{ApiState, ConfigView, ListenersView, VERSION};

/// Silence after which an event stream sends a comment (management contract 1.6).
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Log lines sent when the caller names no number.
const LOG_LINES: usize = 200;

/// `GET /v1/state`.
#[derive(Serialize)]
struct StateView {
    version: &'static str,
    uptime_s: u64,
    listeners: Arc<ListenersView>,
    engine: EngineView,
    models: Vec<ModelSummary>,
    requests: Vec<ActiveRequest>,
    downloads: Vec<JobView>,
    transcriptions: Vec<TranscriptionView>,
    memory: MemoryView,
    problems: Vec<String>,
    config: ConfigView,
}

#[derive(Serialize)]
struct EngineView {
    available: bool,
    version: Option<String>,
    build: Option<u32>,
    error: Option<String>,
    speech: SpeechView,
}

/// The speech engine, without its place on disk.
#[derive(Serialize)]
struct SpeechView {
    state: SpeechState,
    progress: Option<f32>,
    python_version: Option<String>,
    faster_whisper: Option<String>,
    error: Option<String>,
}

impl From<SpeechInfo> for SpeechView {
    fn from(info: SpeechInfo) -> Self {
        Self {
            state: info.state,
            progress: info.progress,
            python_version: info.python_version,
            faster_whisper: info.faster_whisper,
            error: info.error,
        }
    }
}

#[derive(Serialize)]
struct MemoryView {
    total: u64,
    available: u64,
    /// Of our engines, GPU memory included.
    engines: u64,
}

#[derive(Serialize)]
struct ModelSummary {
    key: ModelKey,
    display_name: String,
    description: Option<String>,
    source: ModelSource,
    size: u64,
    quantization: String,
    parameters: u64,
    context_length: Option<u32>,
    capabilities: Capabilities,
    state: &'static str,
    progress: Option<f32>,
    reason: Option<String>,
    instance: Option<InstanceView>,
    pinned: bool,
    aliases: Vec<String>,
    /// The name whose instance serves this one too. The instance is shown there alone, so that sums come out right.
    runs_as: Option<ModelKey>,
}

impl From<ModelView> for ModelSummary {
    fn from(model: ModelView) -> Self {
        let (state, progress, reason) = match model.state {
            ModelState::Unloaded => ("unloaded", None, None),
            ModelState::Queued => ("queued", None, None),
            ModelState::Loading { progress } => ("loading", Some(progress), None),
            ModelState::Ready => ("ready", None, None),
            ModelState::Draining => ("draining", None, None),
            ModelState::Failed(report) => ("failed", None, Some(report.reason)),
        };
        let entry = &model.entry;
        Self {
            key: entry.key.clone(),
            display_name: entry.display_name.clone(),
            description: entry.description.clone(),
            source: entry.source,
            size: entry.size,
            quantization: entry.facts.quantization.clone(),
            parameters: entry.facts.parameters,
            context_length: entry.facts.context_length,
            capabilities: entry.capabilities,
            state,
            progress,
            reason,
            instance: model.instance.filter(|_| entry.runs_as.is_none()),
            runs_as: entry.runs_as.clone(),
            pinned: entry.pinned,
            aliases: entry.aliases.clone(),
        }
    }
}

async fn document(state: &ApiState) -> StateView {
    let speech = state.engines.speech_info(false).await.into();
    let engine = match state.engines.llama_server().await {
        Ok(engine) => EngineView {
            available: true,
            version: Some(engine.version.clone()),
            build: engine.build,
            error: None,
            speech,
        },
        Err(error) => EngineView {
            available: false,
            version: None,
            build: None,
            error: Some(error.to_string()),
            speech,
        },
    };
    // An extra instance takes memory and can be stopped, so the window shows it too; and so does an engine whose model has
    // left the library.
    let mut models = listed_with_instances(state);
    let running = state.router.running().into_iter();
    let left: Vec<_> = running
        .filter(|(entry, _)| {
            let key = entry.instance_key();
            models.iter().all(|model| model.entry.instance_key() != key)
        })
        .map(ModelView::running)
        .collect();
    models.extend(left);
    let memory = state.hardware.memory();
    let listeners = state.listeners.load_full();
    let config = (state.config_status)();
    let ports = [&listeners.ollama, &listeners.lmstudio, &listeners.management];
    let problems = ports
        .iter()
        .filter_map(|port| port.problem.as_ref())
        .map(|problem| problem.error.clone());
    let problems = problems
        .chain(config.error.clone())
        .chain(state.registry.problems().into_iter().map(|problem| match problem.path {
            Some(path) => format!("{}: {}", path.display(), problem.reason),
            None => problem.reason,
        }))
        .collect();
    StateView {
        version: VERSION,
        uptime_s: state.started.elapsed().as_secs(),
        engine,
        requests: state.router.active_requests(),
        downloads: downloads::recent(state),
        transcriptions: state.transcriptions.recent(),
        memory: MemoryView {
            total: memory.total,
            available: memory.available,
            engines: state.router.instances().iter().map(engine_bytes).sum(),
        },
        models: models.into_iter().map(ModelSummary::from).collect(),
        listeners,
        problems,
        config,
    }
}

async fn document_json(state: &ApiState) -> Result<Vec<u8>, RunnerError> {
    serde_json::to_vec(&document(state).await).map_err(|_| RunnerError::internal("The state could not be written."))
}

/// `GET /v1/state`.
pub(super) async fn state(cx: &Cx) -> Answer {
    Ok(json(cx.route.dialect, document_json(cx.state()).await?))
}

fn event_name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Instance { .. } => "instance",
        EventKind::InstanceGone { .. } => "instance_gone",
        EventKind::ModelFailed { .. } => "model_failed",
        EventKind::CatalogChanged { .. } => "catalog_changed",
        EventKind::Config { .. } => "config",
        EventKind::Download { .. } => "download",
        EventKind::Transcription { .. } => "transcription",
        EventKind::Requests { .. } => "requests",
        EventKind::Log { .. } => "log",
        EventKind::ShuttingDown => "shutting_down",
    }
}

fn frame(name: &str, seq: u64, data: &[u8]) -> Bytes {
    let mut out = format!("id: {seq}\nevent: {name}\ndata: ").into_bytes();
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// `GET /v1/events`: first the whole state, then every change. A reader too slow for the changes gets the state again
/// after a `gap` event (promise W4).
pub(super) async fn events(cx: &Cx) -> Answer {
    // Subscribed before the state is read: nothing falls in between.
    let receiver = cx.state().bus.subscribe();
    let seq = cx.state().bus.last_seq();
    let first = frame("state", seq, &document_json(cx.state()).await?);
    let feed = Feed {
        state: Arc::clone(cx.state()),
        receiver,
        cancel: cx.connection.listener.cancel.clone(),
        ended: false,
    };
    let changes = stream::unfold(
        feed,
        |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) },
    );
    Ok(relay::streamed(
        Rendered::SSE,
        body(stream::once(async { first }).chain(changes)),
    ))
}

struct Feed {
    state: Arc<ApiState>,
    receiver: Receiver<Arc<Event>>,
    cancel: CancellationToken,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let received = tokio::select! {
            biased;
            received = self.receiver.recv() => received,
            // The stream must not hold up the end of the server.
            () = self.cancel.cancelled() => {
                self.ended = true;
                let seq = self.state.bus.last_seq();
                return Some(frame("shutting_down", seq, br#"{"type":"shutting_down"}"#));
            }
            () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(b": still here\n\n")),
        };
        match received {
            Ok(event) => {
                let data = serde_json::to_vec(&*event).unwrap_or_default();
                Some(frame(event_name(&event.kind), event.seq, &data))
            }
            Err(RecvError::Lagged(missed)) => {
                let seq = self.state.bus.last_seq();
                let mut out = frame("gap", seq, format!(r#"{{"type":"gap","missed":{missed}}}"#).as_bytes()).to_vec();
                out.extend_from_slice(&frame(
                    "state",
                    seq,
                    &document_json(&self.state).await.unwrap_or_default(),
                ));
                Some(out.into())
            }
            Err(RecvError::Closed) => None,
        }
    }
}

/// `GET /v1/models/{id}/logs?lines=N&follow=true`: lines of the engine, as text.
pub(super) fn logs(cx: &Cx, parts: &Parts) -> Answer {
    let entry = known(cx, &cx.id).ok_or_else(|| not_found(cx, &cx.id))?;
    let lines = match query(parts, "lines") {
        Some(number) => number
            .parse()
            .map_err(|_| RunnerError::invalid("'lines' must be a number.").param("lines"))?,
        None => LOG_LINES,
    };
    let ring = cx.state().router.engine_log(&entry.key);
    let follow = query(parts, "follow").is_some_and(|value| matches!(value.as_str(), "true" | "1" | ""));
    // Subscribed before the tail is read: a line may come twice in a race, none is lost.
    let receiver = follow.then(|| ring.subscribe());
    let tail: Vec<u8> = ring.tail(lines).iter().flat_map(log_bytes).collect();
    let Some(receiver) = receiver else {
        return Ok(text(tail));
    };
    let follower = (receiver, cx.connection.listener.cancel.clone(), ring);
    let new = stream::unfold(follower, |(mut receiver, cancel, ring)| async move {
        let received = tokio::select! {
            received = receiver.recv() => received,
            () = cancel.cancelled() => return None,
        };
        let bytes = match received {
            Ok(line) => Bytes::from(log_bytes(&line)),
            Err(RecvError::Lagged(missed)) => format!("[{missed} lines left out]\n").into(),
            Err(RecvError::Closed) => return None,
        };
        Some((bytes, (receiver, cancel, ring)))
    });
    let first = (!tail.is_empty()).then(|| Bytes::from(tail));
    Ok(relay::streamed(Rendered::TEXT, body(stream::iter(first).chain(new))))
}

fn log_bytes(line: &LogLine) -> Vec<u8> {
    let mut out = line.text.clone().into_bytes();
    out.push(b'\n');
    out
}

/// A stream of pieces as a body.
fn body(
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> impl http_body::Body<Data = Bytes, Error = RunnerError> + Send + 'static {
    StreamBody::new(pieces.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)).map_err(|never| match never {})))
}
