//! The running application.

use std::sync::Arc;
use std::time::Duration;

use config::{ConfigStore, Subscription};
use domain::EventKind;
use downloads::Downloads;
use engines::Engines;
use hardware::Hardware;
use http_api::ApiState;
use models::Registry;
use router::Router;
use supervisor::Supervisor;
use telemetry::EventBus;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::instance_lock::InstanceLock;
use crate::listeners::Listeners;
use crate::places::Places;
use crate::ready::ReadyReport;

/// A running application. Clones are the same one; it ends with [`AppHandle::shutdown`].
#[derive(Clone)]
pub struct AppHandle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) ready: ReadyReport,
    pub(crate) places: Places,
    pub(crate) config: ConfigStore,
    pub(crate) bus: EventBus,
    pub(crate) router: Router,
    pub(crate) registry: Registry,
    pub(crate) downloads: Downloads,
    pub(crate) engines: Engines,
    pub(crate) hardware: Hardware,
    pub(crate) supervisor: Supervisor,
    pub(crate) api: Arc<ApiState>,
    pub(crate) listeners: Listeners,
    pub(crate) tasks: TaskTracker,
    /// Ends our own background tasks.
    pub(crate) stop: CancellationToken,
    /// Cuts the draining short.
    pub(crate) hurry: CancellationToken,
    pub(crate) ended: tokio::sync::OnceCell<()>,
    pub(crate) lock: InstanceLock,
    pub(crate) _subscription: Subscription,
}

/// How long connections may take to write out what they have once nothing generates any more.
const FLUSH: Duration = Duration::from_secs(1);
/// How long our own tasks and the last children may take. What is left then dies with the process (promise R1).
const LAST: Duration = Duration::from_secs(5);

impl AppHandle {
    /// What the ready line says.
    pub fn ready(&self) -> &ReadyReport {
        &self.inner.ready
    }

    /// The address of the window's pages: on the management listener or, for a desktop, a private port.
    pub fn ui_url(&self) -> Option<String> {
        self.inner
            .listeners
            .management()
            .map(|address| format!("http://{address}/ui/"))
    }

    /// The core.
    pub fn router(&self) -> &Router {
        &self.inner.router
    }

    /// The model library.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Events.
    pub fn bus(&self) -> &EventBus {
        &self.inner.bus
    }

    /// The configuration.
    pub fn config(&self) -> &ConfigStore {
        &self.inner.config
    }

    /// Engines.
    pub fn engines(&self) -> &Engines {
        &self.inner.engines
    }

    /// Machine facts.
    pub fn hardware(&self) -> &Hardware {
        &self.inner.hardware
    }

    /// Where files are.
    pub fn places(&self) -> &Places {
        &self.inner.places
    }

    /// Reads the configuration file again now (SIGHUP). True when the file on disk is in effect afterwards.
    pub fn reload(&self) -> bool {
        self.inner.config.reload()
    }

    /// Ends everything in order (promise H9): no new connections, running answers finish within the drain time of the
    /// settings, children stop, logs are written. Further calls wait for the first.
    pub async fn shutdown(&self) {
        let drain = self.inner.config.snapshot().supervisor.drain_timeout_seconds;
        self.shutdown_within(Duration::from_secs(drain)).await;
    }

    /// As [`AppHandle::shutdown`] with another drain time.
    pub async fn shutdown_within(&self, drain: Duration) {
        let inner = &self.inner;
        inner.ended.get_or_init(|| Box::pin(inner.end(drain))).await;
    }

    /// Cuts a running shutdown short: running answers end now (the second signal).
    pub fn hurry(&self) {
        self.inner.hurry.cancel();
    }
}

impl Inner {
    async fn end(&self, drain: Duration) {
        tracing::info!("shutting down");
        self.bus.publish(EventKind::ShuttingDown);
        self.listeners.stop();
        // What has come is on disk; the rest comes with the next start.
        self.downloads.shutdown().await;
        tokio::select! {
            () = self.router.shutdown(drain) => {}
            () = self.hurry.cancelled() => tracing::warn!("running answers are cut"),
        }
        let _ = tokio::time::timeout(FLUSH, self.listeners.ended()).await;
        self.stop.cancel();
        self.tasks.close();
        let last = async {
            self.supervisor.shutdown().await;
            self.registry.shutdown().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!(children = ?self.supervisor.children(), "not everything ended in time");
        }
        tracing::info!("stopped");
        telemetry::flush_logs(Duration::from_secs(1));
    }
}

impl std::fmt::Debug for AppHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppHandle")
            .field("ready", &self.inner.ready)
            .finish_non_exhaustive()
    }
}
