//! Public signatures, published first so that dependants compile; replaced by the real modules.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use domain::{
    ActiveRequest, InstanceView, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry, ModelKey, ModelState, RequestId,
    RunnerError,
};
use http::{HeaderMap, Method, Response};
use http_body::Frame;

use crate::RouterSettings;

/// What the router works with.
#[derive(Clone)]
pub struct RouterDeps {
    /// First settings.
    pub settings: RouterSettings,
    /// The model library, for preloading.
    pub registry: models::Registry,
    /// Where engines come from.
    pub engines: engines::Engines,
    /// Who runs them.
    pub supervisor: supervisor::Supervisor,
    /// Where events go.
    pub bus: telemetry::EventBus,
    /// Memory facts for launch plans.
    pub hardware: hardware::Hardware,
}

/// The router. Clones share one state.
#[derive(Clone)]
pub struct Router {
    _deps: RouterDeps,
}

/// A wish for an engine.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// The model.
    pub model: Arc<ModelEntry>,
    /// Launch wishes of this request only.
    pub launch: LaunchOptions,
    /// Keep-alive, when the request said one.
    pub keep_alive: Option<KeepAlive>,
    /// Loaded by a request that expects just-in-time loading (LM Studio).
    pub jit: bool,
    /// Dialect and operation, for example `ollama chat`.
    pub operation: &'static str,
    /// User agent or address of the caller.
    pub client: String,
}

/// The right to one slot of a running engine. Clones are the same lease; freed when the last clone or body drops.
#[derive(Clone)]
pub struct Lease {
    launch: LoadedLaunch,
    view: InstanceView,
}

impl Router {
    /// A router.
    pub fn new(deps: RouterDeps) -> Self {
        Self { _deps: deps }
    }

    /// New settings; running models are left alone (promise C4).
    pub fn apply(&self, _settings: RouterSettings) {}

    /// Waits for a slot of a ready engine; starts or swaps engines for it. Dropping the future cancels.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn lease(&self, _request: LeaseRequest) -> Result<Lease, RunnerError> {
        Err(RunnerError::internal("not ready"))
    }

    /// Loads a model explicitly.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn load(
        &self,
        _model: Arc<ModelEntry>,
        _launch: LaunchOptions,
        _keep_alive: Option<KeepAlive>,
        _wait: bool,
    ) -> Result<InstanceView, RunnerError> {
        Err(RunnerError::internal("not ready"))
    }

    /// Unloads a model after running requests end (`force`: at once). False: it was not loaded.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn unload(&self, _model: &ModelKey, _force: bool) -> bool {
        false
    }

    /// Every instance.
    pub fn instances(&self) -> Vec<InstanceView> {
        Vec::new()
    }

    /// Where a model stands.
    pub fn status(&self, _model: &ModelKey) -> (ModelState, Option<InstanceView>) {
        (ModelState::Unloaded, None)
    }

    /// Requests in flight, oldest first.
    pub fn active_requests(&self) -> Vec<ActiveRequest> {
        Vec::new()
    }

    /// The engine log of a model, kept after the engine ends.
    pub fn engine_log(&self, _model: &ModelKey) -> telemetry::LogRing {
        telemetry::LogRing::new(1, 1)
    }

    /// Unix milliseconds of the model's last use since the app started.
    pub fn last_used(&self, _model: &ModelKey) -> Option<i64> {
        None
    }

    /// Refuses new work, lets running answers finish up to `drain`, then stops every engine (promise H9).
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn shutdown(&self, _drain: Duration) {}
}

impl Lease {
    /// The request's id (also for `x-request-id`).
    pub fn request_id(&self) -> RequestId {
        RequestId(0)
    }

    /// The instance as it is now.
    pub fn instance(&self) -> InstanceView {
        self.view.clone()
    }

    /// Launch values in effect.
    pub fn launch(&self) -> &LoadedLaunch {
        &self.launch
    }

    /// Time spent waiting for the lease, load included.
    pub fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// The part of [`Self::waited`] that was a load; zero when the model was there.
    pub fn load_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Sends a request to the engine and waits for its response head. Dropping the future closes the connection, which
    /// stops the engine's work (promise H1).
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn send(&self, _request: UpstreamRequest) -> Result<Response<UpstreamBody>, RunnerError> {
        Err(RunnerError::internal("not ready"))
    }
}

/// A request to the engine.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// Method.
    pub method: Method,
    /// Path with query.
    pub path: String,
    /// Headers to pass on; hop-by-hop headers, credentials and forwarding headers are removed here again.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// The engine's answer: merges frames that are ready, never waits for more. Holds the lease and the connection.
pub struct UpstreamBody {
    _never: (),
}

impl UpstreamBody {
    /// The whole body, up to `limit` bytes.
    #[expect(clippy::unused_async, reason = "skeleton")]
    pub async fn collect_bytes(self, _limit: usize) -> Result<Bytes, RunnerError> {
        Ok(Bytes::new())
    }

    /// The whole body as JSON, up to `limit` bytes.
    pub async fn collect_json(self, limit: usize) -> Result<serde_json::Value, RunnerError> {
        let bytes = self.collect_bytes(limit).await?;
        serde_json::from_slice(&bytes).map_err(|e| RunnerError::internal(e.to_string()))
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        Poll::Ready(None)
    }
}
