//! What every listener and handler works with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use domain::ModelEntry;
use engines::Engines;
use hardware::Hardware;
use models::Registry;
use router::Router;
use serde::Serialize;
use telemetry::EventBus;

use crate::limits::Limiter;
use crate::listener::{ConnectionLimits, Flavour, ListenerProblem};
use crate::resumable::Resumables;
use crate::settings::ApiSettings;
use crate::sockets;
use crate::transcriptions::Transcriptions;
use crate::uploads::Uploads;

/// What [`ApiState::new`] needs.
pub struct ApiParts {
    /// The core.
    pub router: Router,
    /// The model library.
    pub registry: Registry,
    /// Events for `/v1/events`.
    pub bus: EventBus,
    /// Engines, for what is shown about them.
    pub engines: Engines,
    /// Machine facts.
    pub hardware: Hardware,
    /// Answers that clients refer to by id.
    pub store: store::Store,
    /// Our own store in Ollama's layout.
    pub ollama_store: ollama_store::Store,
    /// Downloads of models.
    pub downloads: downloads::Downloads,
    /// Files that clients send in forms.
    pub uploads: Uploads,
    /// First settings.
    pub settings: ApiSettings,
    /// Where the listeners stand; the owner stores a new view when one is bound or lost.
    pub listeners: Arc<ArcSwap<ListenersView>>,
    /// Where the configuration stands now.
    pub config_status: Arc<dyn Fn() -> ConfigView + Send + Sync>,
}

/// Shared by all listeners.
pub struct ApiState {
    pub(crate) router: Router,
    pub(crate) registry: Registry,
    pub(crate) bus: EventBus,
    pub(crate) engines: Engines,
    pub(crate) hardware: Hardware,
    pub(crate) store: store::Store,
    pub(crate) ollama_store: ollama_store::Store,
    pub(crate) downloads: downloads::Downloads,
    pub(crate) uploads: Uploads,
    pub(crate) transcriptions: Transcriptions,
    pub(crate) listeners: Arc<ArcSwap<ListenersView>>,
    pub(crate) config_status: Arc<dyn Fn() -> ConfigView + Send + Sync>,
    pub(crate) limiter: Limiter,
    pub(crate) resumables: Resumables,
    pub(crate) sdk_clients: sockets::lmstudio::Clients,
    pub(crate) sdk_log: sockets::lmstudio::SdkLog,
    pub(crate) started: Instant,
    pub(crate) machine_name: Option<String>,
    settings: ArcSwap<ApiSettings>,
    connections: ConnectionLimits,
}

impl ApiState {
    /// The state; `started` (for uptimes) is now.
    pub fn new(parts: ApiParts) -> Arc<Self> {
        Arc::new(Self {
            router: parts.router,
            registry: parts.registry,
            transcriptions: Transcriptions::new(parts.bus.clone()),
            bus: parts.bus,
            engines: parts.engines,
            hardware: parts.hardware,
            store: parts.store,
            ollama_store: parts.ollama_store,
            downloads: parts.downloads,
            uploads: parts.uploads,
            listeners: parts.listeners,
            config_status: parts.config_status,
            limiter: Limiter::default(),
            resumables: Resumables::default(),
            sdk_clients: sockets::lmstudio::Clients::default(),
            sdk_log: sockets::lmstudio::SdkLog::default(),
            started: Instant::now(),
            machine_name: crate::guard::machine_name(),
            connections: parts.settings.connections.clone(),
            settings: ArcSwap::from_pointee(parts.settings),
        })
    }

    /// New settings for the requests that come from now on.
    pub fn apply(&self, settings: ApiSettings) {
        self.settings.store(Arc::new(settings));
    }

    /// The settings in effect.
    pub fn settings(&self) -> Arc<ApiSettings> {
        self.settings.load_full()
    }

    pub(crate) fn limits(&self) -> &ConnectionLimits {
        &self.connections
    }

    /// A registry entry by any of its names.
    pub(crate) fn resolve(&self, name: &str) -> Option<Arc<ModelEntry>> {
        self.registry.catalog().resolve(name)
    }
}

/// Product version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One listener as `/v1/state` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ListenerView {
    /// `proxies.<name>.enabled`.
    pub enabled: bool,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// Why it does not.
    pub problem: Option<ListenerProblem>,
}

/// All listeners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ListenersView {
    /// Port 11434.
    pub ollama: ListenerView,
    /// Port 1234.
    pub lmstudio: ListenerView,
    /// Port 5800, or the private port of the window when that listener is off.
    pub management: ListenerView,
    /// Where LM Studio's libraries find the LM Studio port without being told (`lmstudio.sdk_discovery`).
    pub sdk_discovery: ListenerView,
}

impl ListenersView {
    /// The listener of this flavour.
    pub fn get(&self, flavour: Flavour) -> &ListenerView {
        match flavour {
            Flavour::Ollama => &self.ollama,
            Flavour::LmStudio => &self.lmstudio,
            Flavour::Management => &self.management,
        }
    }
}

/// Where the configuration stands, as `/v1/state` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ConfigView {
    /// The file.
    pub path: String,
    /// The file on disk is the one in effect.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
    /// What of it has no effect: unknown keys with the nearest known name, sections this version does not use.
    pub warnings: Vec<String>,
}
