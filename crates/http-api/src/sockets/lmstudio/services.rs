//! The server itself, files, the hub and logs over a socket (LM Studio contract 10.8 to 10.11).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialects::lmstudio_rest::model_key;
use dialects::lmstudio_ws::{
    self as lmstudio_ws, Domain, DownloadMessage, DownloadModel, DownloadOption, DownloadOptionsOf, DownloadStep,
    LogEvent, ModelKeyOnly, Notify, Query, Room, SearchModels, ServerInfo, ServerVersion, UploadFile, Uploaded,
    UploadedFile, WireError, download_step, download_target, file_type, log_line, model_info, search_results,
};
use domain::{EventKind, LogStream, RunnerError};
use downloads::Source;
use downloads::sources::hub;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::work::{Channel, Context, Reply, reply};

/// Most results of a search (contract 10.10).
const MOST_RESULTS: u32 = 25;

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
    reply(&ServerVersion {
        version: settings.lmstudio_port.reported_version.clone(),
        build: 1,
    })
}

/// `info`.
pub(super) fn info(cx: &Context) -> Reply {
    let settings = cx.state().settings();
    reply(&ServerInfo {
        pid: std::process::id(),
        is_daemon: false,
        version: settings.lmstudio_port.reported_version.clone(),
    })
}

/// `notify`: a line of the log, which the window shows.
pub(super) fn notify(cx: &Context, given: &Notify) {
    let description = given.description.as_deref().unwrap_or_default();
    tracing::info!(
        client = cx.name,
        title = given.title,
        description,
        "a program sends a notice"
    );
}

/// `uploadFileBase64`: a new identifier each time, also for equal bytes.
pub(super) fn upload(cx: &Context, given: UploadFile) -> Reply {
    let bytes = STANDARD
        .decode(given.content_base64.trim())
        .map_err(|_| WireError::bad_parameter("uploadFileBase64", "contentBase64 is not base64"))?;
    let (file_type, size_bytes) = (file_type(&given.name, &bytes), bytes.len());
    let identifier = cx.client.keep(UploadedFile {
        name: given.name,
        bytes,
    });
    reply(&Uploaded {
        identifier,
        file_type,
        size_bytes,
    })
}

/// `searchModels`: repositories of the hub with GGUF files.
pub(super) async fn search(cx: &Context, given: SearchModels) -> Reply {
    let term = given.opts.search_term.as_deref().unwrap_or_default().trim();
    let limit = given.opts.limit.unwrap_or(MOST_RESULTS).clamp(1, MOST_RESULTS) as usize;
    let origin = cx.state().downloads.origin();
    let found = hub::search(&origin, term, limit).await.map_err(RunnerError::from)?;
    let names: Vec<String> = found.into_iter().map(|found| found.id).collect();
    reply(&search_results(&names, Some(term)))
}

/// `getModelDownloadOptions`.
pub(super) async fn download_options(cx: &Context, given: DownloadOptionsOf) -> Reply {
    let repository = given.model_search_result_identifier.identifier;
    let origin = cx.state().downloads.origin();
    let found = hub::options(&origin, &repository).await.map_err(RunnerError::from)?;
    let options: Vec<DownloadOption> = found
        .into_iter()
        .map(|found| DownloadOption {
            quantization: found.quantization,
            file: found.file,
            size: found.size,
            recommended: found.recommended,
        })
        .collect();
    let hardware = &cx.state().hardware;
    let room = Room {
        gpu: hardware.gpus().iter().filter_map(|gpu| gpu.total).sum(),
        ram: hardware.memory().total,
    };
    reply(&lmstudio_ws::download_options(&repository, &options, room))
}

/// `downloadModel`: the download goes on when the client leaves; only its cancel ends it.
pub(super) async fn download(cx: &Context, channel: &Channel, given: DownloadModel) -> Result<(), WireError> {
    let (repo, file) = download_target(&given.download_identifier)
        .ok_or_else(|| WireError::bad_parameter("downloadModel", "downloadIdentifier is not owner/name/file"))?;
    let downloads = &cx.state().downloads;
    let source = Source::Hub {
        repo: repo.to_owned(),
        file_or_quant: Some(file.to_owned()),
    };
    let job = downloads.start_job(source).await.map_err(RunnerError::from)?;
    let mut views = job.watch();
    let mut finalizing = false;
    loop {
        let step = download_step(&views.borrow_and_update());
        match step {
            DownloadStep::Say(DownloadMessage::StartFinalizing) if std::mem::replace(&mut finalizing, true) => {}
            DownloadStep::Say(DownloadMessage::Success { default_identifier }) => {
                // The job knows the path; clients load by key.
                let entry = cx.state().router.resolve(&default_identifier);
                let default_identifier = entry.map_or(default_identifier, |entry| model_key(&entry));
                channel.send(&DownloadMessage::Success { default_identifier }).await;
                return Ok(());
            }
            DownloadStep::Say(message) => channel.send(&message).await,
            DownloadStep::Failed(why) => return Err(WireError::new(why)),
            DownloadStep::Nothing => {}
        }
        tokio::select! {
            biased;
            () = channel.cancel.cancelled() => {
                downloads.cancel(&job.id()).await.map_err(RunnerError::from)?;
                return Err(WireError::new("The download was cancelled."));
            }
            changed = views.changed() => if changed.is_err() {
                return Err(WireError::new("The download was forgotten."));
            },
        }
    }
}

/// Events that a slow reader of the log may fall behind.
const LOG_CAPACITY: usize = 256;

/// Prompts and answers for readers of `streamLogs`. Nothing is collected while nobody reads.
pub(crate) struct SdkLog(broadcast::Sender<LogEvent>);

impl Default for SdkLog {
    fn default() -> Self {
        Self(broadcast::channel(LOG_CAPACITY).0)
    }
}

impl SdkLog {
    pub(super) fn is_read(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(super) fn publish(&self, event: LogEvent) {
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
        if cx.client.announced || event.is_prompt() {
            channel.send(event.message()).await;
        }
    }
}
