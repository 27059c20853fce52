//! The server itself, files, the hub and logs over a socket (LM Studio contract 10.8 to 10.11).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialects::lmstudio_rest::model_key;
use dialects::lmstudio_ws::{
    Domain, DownloadModel, DownloadOptionsOf, ModelKeyOnly, Notify, Query, SearchModels, UploadFile, UploadedFile,
    WireError, file_type, log_line, model_info,
};
use domain::{EventKind, LogStream};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::work::{Channel, Context, Reply, reply};

/// `listDownloadedModels`: kinds the libraries do not know would spoil the whole list (contract 11.1).
pub(super) fn downloaded_models(cx: &Context) -> Reply {
    let catalog = cx.state().registry.catalog();
    let known = catalog.listed().filter_map(|entry| Some((entry, Domain::of(entry)?)));
    let infos: Vec<Value> = known.map(|(entry, domain)| model_info(entry, domain)).collect();
    reply(&infos)
}

/// `listDownloadedModelVariants`: the quantizations of one model.
pub(super) fn model_variants(cx: &Context, given: &ModelKeyOnly) -> Reply {
    let catalog = cx.state().registry.catalog();
    let base = |key: &str| key.split('@').next().unwrap_or(key).to_lowercase();
    let wanted = base(&given.model_key);
    let infos: Vec<Value> = catalog
        .listed()
        .filter(|entry| base(entry.key.as_str()) == wanted || base(&model_key(entry)) == wanted)
        .filter_map(|entry| Some(model_info(entry, Domain::of(entry)?)))
        .collect();
    if infos.is_empty() {
        let query = Query {
            identifier: Some(given.model_key.clone()),
            ..Query::default()
        };
        return Err(WireError::no_model(&query, &[]));
    }
    reply(&infos)
}

/// `version`: the LM Studio version whose behaviour we claim (contract 1.2).
pub(super) fn version(cx: &Context) -> Reply {
    let settings = cx.state().settings();
    reply(&json!({"version": settings.lmstudio_port.reported_version, "build": 1}))
}

/// `info`.
pub(super) fn info(cx: &Context) -> Reply {
    let settings = cx.state().settings();
    reply(&json!({
        "pid": std::process::id(),
        "isDaemon": false,
        "version": settings.lmstudio_port.reported_version,
    }))
}

/// `notify`: a line of the log, which the window shows.
pub(super) fn notify(cx: &Context, given: &Notify) -> Reply {
    let description = given.description.as_deref().unwrap_or_default();
    tracing::info!(
        client = cx.name,
        title = given.title,
        description,
        "a program sends a notice"
    );
    Ok(None)
}

/// `uploadFileBase64`: a new identifier each time, also for equal bytes.
pub(super) fn upload(cx: &Context, given: UploadFile) -> Reply {
    let bytes = STANDARD
        .decode(given.content_base64.trim())
        .map_err(|_| WireError::bad_parameter("uploadFileBase64", "contentBase64 is not base64"))?;
    let (kind, size) = (file_type(&given.name, &bytes), bytes.len());
    let identifier = cx.client.keep(UploadedFile {
        name: given.name,
        bytes,
    });
    reply(&json!({"identifier": identifier, "fileType": kind, "sizeBytes": size}))
}

/// `searchModels`.
pub(super) async fn search(_cx: &Context, _given: SearchModels) -> Reply {
    Err(WireError::not_supported("searchModels"))
}

/// `getModelDownloadOptions`.
pub(super) async fn download_options(_cx: &Context, _given: DownloadOptionsOf) -> Reply {
    Err(WireError::not_supported("getModelDownloadOptions"))
}

/// `downloadModel`.
pub(super) async fn download(_cx: &Context, _channel: &Channel, _given: DownloadModel) -> Result<(), WireError> {
    Err(WireError::not_supported("downloadModel"))
}

/// Events that a slow reader of the log may fall behind.
const LOG_CAPACITY: usize = 256;

/// Prompts and answers for readers of `streamLogs`. Nothing is collected while nobody reads.
pub(crate) struct SdkLog(broadcast::Sender<Value>);

impl Default for SdkLog {
    fn default() -> Self {
        Self(broadcast::channel(LOG_CAPACITY).0)
    }
}

impl SdkLog {
    pub(super) fn is_read(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(super) fn publish(&self, event: Value) {
        let _ = self.0.send(event);
    }
}

/// `streamLogs`: until the client says stop. Older libraries know prompts alone and find every other event invalid.
pub(super) async fn stream_logs(cx: &Context, channel: &Channel) -> Result<(), WireError> {
    let state = cx.state();
    let mut events = state.bus.subscribe();
    let mut answers = state.sdk_log.0.subscribe();
    let version = state
        .engines
        .llama_server()
        .await
        .map_or_else(|_| String::new(), |engine| engine.version.clone());
    loop {
        let event = tokio::select! {
            biased;
            () = channel.cancel.cancelled() => return Ok(()),
            answer = answers.recv() => match answer {
                Ok(answer) => answer,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(()),
            },
            event = events.recv() => match event {
                Ok(event) => match &event.kind {
                    EventKind::Log { stream: LogStream::App, line } => log_line(line.at_ms, line.level, &line.text, None),
                    EventKind::Log { stream: LogStream::Engine(model), line } => {
                        log_line(line.at_ms, line.level, &line.text, Some((model.as_str(), &version)))
                    }
                    _ => continue,
                },
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        if cx.client.announced || event["log"]["data"]["type"] == "llm.prediction.input" {
            channel.send(&event).await;
        }
    }
}
