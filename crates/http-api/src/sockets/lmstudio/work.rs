//! What the frames of a client begin: one future per call and channel.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dialects::lmstudio_ws::{self as wire, Domain, WireError};
use domain::{InstanceView, ModelEntry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::clients::Client;
use super::{Namespace, generate, loads, lookup, services};
use crate::dispatch::Connection;
use crate::state::ApiState;

/// What everything on a socket shares.
pub(super) struct Context {
    pub(super) connection: Arc<Connection>,
    pub(super) namespace: Namespace,
    pub(super) client: Arc<Client>,
    /// The client, for the window.
    pub(super) name: String,
    pub(super) outbox: Outbox,
    /// Work that a stop of the server waits for.
    busy: AtomicUsize,
}

impl Context {
    pub(super) fn new(
        connection: Arc<Connection>,
        namespace: Namespace,
        client: Arc<Client>,
        name: String,
        outbox: Outbox,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            namespace,
            client,
            name,
            outbox,
            busy: AtomicUsize::new(0),
        })
    }

    pub(super) fn state(&self) -> &Arc<ApiState> {
        &self.connection.listener.state
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a piece of work until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// Work that a stop of the server waits for.
pub(super) struct Busy(Arc<Context>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Messages on their way to the client: a bounded queue. Whoever fills it waits, and with it the engine (promise H2).
#[derive(Clone)]
pub(super) struct Outbox(pub(super) mpsc::Sender<Message>);

impl Outbox {
    /// Queues a frame. A socket that is gone takes its work with it, so nobody needs to know here.
    pub(super) async fn text(&self, frame: String) {
        let _ = self.0.send(Message::text(frame)).await;
    }

    /// Queues a frame unless the queue is full.
    pub(super) fn try_text(&self, frame: String) -> Result<(), String> {
        match self.0.try_reserve() {
            Ok(place) => {
                place.send(Message::text(frame));
                Ok(())
            }
            Err(_) => Err(frame),
        }
    }

    /// Queues a ping or a close, which a full queue can do without.
    pub(super) fn try_send(&self, message: Message) {
        let _ = self.0.try_send(message);
    }
}

/// A channel that a client opened.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) id: i64,
    pub(super) cancel: CancellationToken,
    pub(super) outbox: Outbox,
}

impl Channel {
    pub(super) async fn send<T: Serialize + ?Sized>(&self, message: &T) {
        self.outbox.text(wire::channel_send(self.id, message)).await;
    }

    /// Whole frames of this channel.
    pub(super) async fn frames(&self, frames: &mut Vec<String>) {
        for frame in frames.drain(..) {
            self.outbox.text(frame).await;
        }
    }
}

/// The result of a call: nothing, or JSON.
pub(super) type Reply = Result<Option<Box<RawValue>>, WireError>;
pub(super) type Call = Pin<Box<dyn Future<Output = Reply> + Send>>;
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), WireError>> + Send>>;

/// A result.
pub(super) fn reply<T: Serialize>(result: &T) -> Reply {
    to_raw_value(result)
        .map(Some)
        .map_err(|_| WireError::new("The result cannot be written as JSON."))
}

/// Why nothing was begun.
pub(super) enum Refused {
    /// No such endpoint in this namespace.
    Unknown,
    /// The endpoint exists in LM Studio, not here.
    NotSupported,
    /// The parameter does not fit.
    Parameter(String),
}

impl Refused {
    /// What the warning says; `None`: the frame was in order.
    pub(super) fn warning(&self, frame: &str, endpoint: &str) -> Option<String> {
        match self {
            Self::Unknown => Some(format!("Received {frame} for unknown endpoint, endpoint = {endpoint}")),
            Self::NotSupported => None,
            Self::Parameter(why) => Some(format!(
                "Received {frame} with an invalid parameter, endpoint = {endpoint}: {why}"
            )),
        }
    }

    /// The kind of the warning (contract 10.3).
    pub(super) fn kind(&self, call: bool) -> &'static str {
        match (self, call) {
            (Self::Parameter(_), true) => "rpcParameterTypeError",
            (Self::Parameter(_), false) => "channelCreationParameterTypeError",
            (_, true) => "rpcEndpointUnknown",
            (_, false) => "channelEndpointUnknown",
        }
    }

    pub(super) fn error(&self, endpoint: &str) -> WireError {
        match self {
            Self::Unknown => WireError::unknown_endpoint(endpoint),
            Self::NotSupported => WireError::not_supported(endpoint),
            Self::Parameter(why) => WireError::bad_parameter(endpoint, why),
        }
    }
}

fn parameter<T: DeserializeOwned>(raw: Option<&RawValue>) -> Result<T, Refused> {
    let text = raw.map_or("null", RawValue::get);
    serde_json::from_str(text).map_err(|error| Refused::Parameter(error.to_string()))
}

/// Endpoints of LM Studio's hub, plugins and runtimes: known, and refused.
const ELSEWHERE: [&str; 28] = [
    // system
    "startHttpServer",
    "stopHttpServer",
    "requestShutdown",
    "setExperimentFlag",
    // files
    "getLocalFileAbsolutePath",
    "getDocumentParsingLibrary",
    "retrieve",
    "parseDocument",
    // repository
    "downloadArtifact",
    "pushArtifact",
    "installPluginDependencies",
    "installLocalPlugin",
    "getLocalArtifactFiles",
    "loginWithPreAuthenticatedKeys",
    "ensureAuthenticated",
    "lmLinkStatus",
    "createArtifactDownloadPlan",
    // runtime
    "listEngines",
    "surveyHardware",
    "getEngineSelections",
    "searchRuntimeExtensions",
    "downloadRuntimeExtension",
    "selectEngine",
    "removeEngine",
    // plugins
    "startToolUseSession",
    "generateWithGenerator",
    "registerDevelopmentPlugin",
    "reindexPlugins",
];

fn unserved(context: &Context, endpoint: &str) -> Refused {
    // No plugin endpoint is served, so none needs a name here.
    if context.namespace == Namespace::Plugins || ELSEWHERE.contains(&endpoint) {
        Refused::NotSupported
    } else {
        Refused::Unknown
    }
}

/// Begins a call.
pub(super) fn call(context: &Arc<Context>, endpoint: &str, raw: Option<&RawValue>) -> Result<Call, Refused> {
    let cx = Arc::clone(context);
    Ok(match context.namespace {
        Namespace::Llm => match endpoint {
            "applyPromptTemplate" => {
                let given = parameter(raw)?;
                Box::pin(async move { generate::apply_template(&cx, given).await })
            }
            _ => return model_call(cx, Domain::Llm, endpoint, raw),
        },
        Namespace::Embedding => match endpoint {
            "embedString" => {
                let given = parameter(raw)?;
                Box::pin(async move { generate::embed(&cx, given).await })
            }
            _ => return model_call(cx, Domain::Embedding, endpoint, raw),
        },
        Namespace::System => match endpoint {
            "listDownloadedModels" => Box::pin(async move { services::downloaded_models(&cx) }),
            "listDownloadedModelVariants" => {
                let given = parameter(raw)?;
                Box::pin(async move { services::model_variants(&cx, &given) })
            }
            "version" => Box::pin(async move { services::version(&cx) }),
            "info" => Box::pin(async move { services::info(&cx) }),
            "notify" => {
                let given = parameter(raw)?;
                Box::pin(async move {
                    services::notify(&cx, &given);
                    Ok(None)
                })
            }
            "getExperimentFlags" => Box::pin(async move { reply(&[(); 0]) }),
            _ => return Err(unserved(context, endpoint)),
        },
        Namespace::Files => match endpoint {
            "uploadFileBase64" => {
                let given = parameter(raw)?;
                Box::pin(async move { services::upload(&cx, given) })
            }
            _ => return Err(unserved(context, endpoint)),
        },
        Namespace::Repository => match endpoint {
            "searchModels" => {
                let given = parameter(raw)?;
                Box::pin(async move { services::search(&cx, given).await })
            }
            "getModelDownloadOptions" => {
                let given = parameter(raw)?;
                Box::pin(async move { services::download_options(&cx, given).await })
            }
            "isAuthenticated" | "getAuthenticationStatus" => {
                Box::pin(async move { reply(&wire::Authentication { authenticated: false }) })
            }
            "getModelCatalog" => Box::pin(async move { reply(&wire::no_catalog()) }),
            "fuzzyFindStaffPicks" => Box::pin(async move { reply(&wire::no_staff_picks()) }),
            _ => return Err(unserved(context, endpoint)),
        },
        Namespace::Diagnostics | Namespace::Runtime | Namespace::Plugins => return Err(unserved(context, endpoint)),
    })
}

/// Calls that `llm` and `embedding` share (contract 10.4).
fn model_call(cx: Arc<Context>, domain: Domain, endpoint: &str, raw: Option<&RawValue>) -> Result<Call, Refused> {
    Ok(match endpoint {
        "listLoaded" => Box::pin(async move { lookup::list_loaded(&cx, domain) }),
        "getModelInfo" => {
            let given = parameter(raw)?;
            Box::pin(async move { lookup::model_info(&cx, domain, &given) })
        }
        "getLoadConfig" => {
            let given = parameter(raw)?;
            Box::pin(async move { lookup::load_config(&cx, domain, &given) })
        }
        "getBasePredictionConfig" => {
            let given = parameter(raw)?;
            Box::pin(async move { lookup::base_prediction_config(&cx, domain, &given) })
        }
        "getInstanceProcessingState" => {
            let given = parameter(raw)?;
            Box::pin(async move { lookup::processing_state(&cx, domain, &given) })
        }
        "unloadModel" => {
            let given = parameter(raw)?;
            Box::pin(async move { loads::unload(&cx, domain, given).await })
        }
        "estimateModelUsage" => {
            let given = parameter(raw)?;
            Box::pin(async move { loads::estimate(&cx, domain, &given) })
        }
        "tokenize" => {
            let given = parameter(raw)?;
            Box::pin(async move { generate::tokenize(&cx, domain, given).await })
        }
        "countTokens" => {
            let given = parameter(raw)?;
            Box::pin(async move { generate::count_tokens(&cx, domain, given).await })
        }
        "preloadDraftModel" => return Err(Refused::NotSupported),
        _ => return Err(unserved(&cx, endpoint)),
    })
}

/// Opens a channel.
pub(super) fn channel(
    context: &Arc<Context>,
    endpoint: &str,
    id: i64,
    raw: Option<&RawValue>,
    cancel: CancellationToken,
) -> Result<Work, Refused> {
    let cx = Arc::clone(context);
    let channel = Channel {
        id,
        cancel,
        outbox: context.outbox.clone(),
    };
    let domain = match context.namespace {
        Namespace::Llm => Some(Domain::Llm),
        Namespace::Embedding => Some(Domain::Embedding),
        _ => None,
    };
    Ok(match (context.namespace, endpoint, domain) {
        (_, "loadModel", Some(domain)) => {
            let given = parameter(raw)?;
            Box::pin(async move { loads::load(&cx, domain, &channel, given).await })
        }
        (_, "getOrLoad", Some(domain)) => {
            let given = parameter(raw)?;
            Box::pin(async move { loads::get_or_load(&cx, domain, &channel, given).await })
        }
        (Namespace::Llm, "predict", _) => {
            let given = parameter(raw)?;
            Box::pin(async move { generate::predict(&cx, &channel, given).await })
        }
        (Namespace::Llm, "completeRawText", _) => {
            let given = parameter(raw)?;
            Box::pin(async move { generate::complete_raw(&cx, &channel, given).await })
        }
        (Namespace::Diagnostics, "streamLogs", _) => {
            Box::pin(async move { services::stream_logs(&cx, &channel).await })
        }
        (Namespace::Repository, "downloadModel", _) => {
            let given = parameter(raw)?;
            Box::pin(async move { services::download(&cx, &channel, given).await })
        }
        (Namespace::System, "alive", _) => Box::pin(async move {
            channel.cancel.cancelled().await;
            Ok(())
        }),
        _ => return Err(unserved(context, endpoint)),
    })
}

/// A loaded instance with its entry.
pub(super) struct Loaded {
    pub(super) entry: Arc<ModelEntry>,
    pub(super) view: InstanceView,
}
