use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{
    ErrorKind, InstanceView, KeepAlive, LaunchOptions, LoadedLaunch, ModelEntry, ModelKey, RequestId, RunnerError,
};
use http::{HeaderMap, Method, Response};
use scheduler::{Acquire, Effect, Event, LeaseId, TicketId};
use tokio::sync::oneshot;

use crate::core::{Answer, Core};
use crate::instance::{Instance, Link};
use crate::upstream::{Broken, Connection, UpstreamBody, request_head};

/// How long a broken answer waits for the process's end to name the reason.
const EXIT_WAIT: Duration = Duration::from_millis(200);

/// A wish for an engine.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// The model.
    pub model: Arc<ModelEntry>,
    /// Launch wishes of this request only; entry and defaults are added here.
    pub launch: LaunchOptions,
    /// Keep-alive, when the request said one.
    pub keep_alive: Option<KeepAlive>,
    /// Loaded by a request that expects just-in-time loading (LM Studio): `keep_alive` counts only if this request
    /// triggers the load.
    pub jit: bool,
    /// Dialect and operation, for example `ollama chat`.
    pub operation: &'static str,
    /// User agent or address of the caller.
    pub client: String,
    /// The request's id, when it was told to somebody before ([`crate::Router::number`]); `None`: a new one.
    pub id: Option<RequestId>,
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
    /// The whole body, or what comes before a file.
    pub body: Bytes,
    /// A file that follows.
    pub attached: Option<Attached>,
}

/// A file in a body, sent from the disk as it goes.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub size: u64,
    /// What comes after it.
    pub after: Bytes,
}

/// The right to one slot of a running engine. Clones are the same lease; freed when the last clone or body drops.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    instance: Arc<Instance>,
    link: Arc<Link>,
    /// `None`: a look at an engine, which takes no slot.
    slot: Option<Slot>,
    id: RequestId,
    waited: Duration,
    load_time: Duration,
}

struct Slot {
    lease: LeaseId,
    place: usize,
}

impl Core {
    /// A way to the engine of a loaded model that takes no slot.
    pub(crate) fn look(self: &Arc<Self>, key: &ModelKey) -> Option<Lease> {
        let instance = {
            let state = self.lock();
            let facts = state.scheduler.instance(key)?;
            state.instances.get(&facts.id).cloned()?
        };
        let link = instance.link.get().cloned()?;
        Some(Lease(Arc::new(Inner {
            core: self.clone(),
            instance,
            link,
            slot: None,
            id: RequestId(0),
            waited: Duration::ZERO,
            load_time: Duration::ZERO,
        })))
    }

    /// Waits for a slot of a ready engine. For a loaded model with a free slot this is one lock and no task switch.
    pub(crate) async fn lease(self: &Arc<Self>, request: LeaseRequest) -> Result<Lease, RunnerError> {
        let asked = Instant::now();
        let LeaseRequest {
            model,
            launch,
            keep_alive,
            jit,
            operation,
            client,
            id,
        } = request;
        let launch = engines::heeded(&model, launch);
        let mut wait = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let ticket = state.ticket();
            let (place, id) = state
                .requests
                .insert(id, model.instance_key().clone(), operation, client);
            let acquire = Event::Acquire(Acquire {
                ticket,
                model,
                wish: launch,
                keep_alive,
                jit,
            });
            state.scheduler.handle(self.now(), acquire, &mut state.effects);
            self.announce();
            if let [Effect::Grant { lease, instance, .. }] = state.effects[..] {
                state.effects.clear();
                state.requests.set_running(place);
                let instance = state.instances.get(&instance).cloned();
                drop(guard);
                return self.granted(asked, lease, instance, place, id);
            }
            let (waiter, answer) = oneshot::channel();
            state.waiters.insert(ticket, waiter);
            self.settle(guard);
            Waiting {
                core: self,
                ticket,
                place,
                id,
                answer,
                over: false,
            }
        };
        let answer = (&mut wait.answer).await;
        wait.over = true;
        let (place, id) = (wait.place, wait.id);
        match answer {
            Ok(Answer::Granted { lease, instance }) => {
                self.lock().requests.set_running(place);
                self.granted(asked, lease, Some(instance), place, id)
            }
            Ok(Answer::Refused(error)) => {
                self.forget(place);
                Err(error)
            }
            Ok(Answer::Loaded) | Err(_) => {
                self.forget(place);
                Err(RunnerError::internal("The request was lost in the queue."))
            }
        }
    }

    fn granted(
        self: &Arc<Self>,
        asked: Instant,
        lease: LeaseId,
        instance: Option<Arc<Instance>>,
        place: usize,
        id: RequestId,
    ) -> Result<Lease, RunnerError> {
        let link = instance.as_ref().and_then(|instance| instance.link.get().cloned());
        let (Some(instance), Some(link)) = (instance, link) else {
            self.forget(place);
            self.dispatch(Event::Release(lease));
            return Err(RunnerError::internal("The engine was ready without an address."));
        };
        instance.begin();
        let waited = asked.elapsed();
        let load_time = link.ready_at.saturating_duration_since(asked.max(instance.begun));
        Ok(Lease(Arc::new(Inner {
            core: self.clone(),
            instance,
            link,
            slot: Some(Slot { lease, place }),
            id,
            waited,
            load_time,
        })))
    }

    fn forget(&self, place: usize) {
        self.lock().requests.remove(place);
        self.announce();
    }
}

/// A caller in the queue; dropping it leaves the queue (promise H1: also while queued).
struct Waiting<'a> {
    core: &'a Arc<Core>,
    ticket: TicketId,
    place: usize,
    id: RequestId,
    answer: oneshot::Receiver<Answer>,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.core.lock();
        state.requests.remove(self.place);
        self.core.announce();
        if state.waiters.remove(&self.ticket).is_some() {
            self.core.dispatch_locked(state, Event::CancelTicket(self.ticket));
        } else if let Ok(Answer::Granted { lease, .. }) = self.answer.try_recv() {
            self.core.dispatch_locked(state, Event::Release(lease));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(Slot { lease, place }) = self.slot.take() else {
            return;
        };
        self.instance.end();
        let mut state = self.core.lock();
        state.requests.remove(place);
        self.core.announce();
        self.core.dispatch_locked(state, Event::Release(lease));
    }
}

impl Lease {
    /// The request's id (also for `x-request-id`).
    pub fn request_id(&self) -> RequestId {
        self.0.id
    }

    /// The instance as it is now.
    pub fn instance(&self) -> InstanceView {
        let core = &self.0.core;
        core.instance_view(&self.0.instance)
    }

    /// Launch values in effect.
    pub fn launch(&self) -> &LoadedLaunch {
        &self.0.link.launch
    }

    /// Time spent waiting for the lease, load included.
    pub fn waited(&self) -> Duration {
        self.0.waited
    }

    /// The part of [`Self::waited`] that was a load; zero when the model was there.
    pub fn load_time(&self) -> Duration {
        self.0.load_time
    }

    /// Sends a request to the engine and waits for its response head. Dropping the future closes the connection, which
    /// stops the engine's work (promise H1).
    ///
    /// # Errors
    /// [`ErrorKind::EngineFailed`] when the engine cannot be reached or breaks off, with the reason where it is known. A
    /// request that may have reached the engine is not sent again (promise H8), except on an idle connection that the
    /// engine closed before it answered.
    pub async fn send(&self, request: UpstreamRequest) -> Result<Response<UpstreamBody>, RunnerError> {
        let UpstreamRequest {
            method,
            path,
            headers,
            body,
            attached,
        } = request;
        let attached = attached.as_ref();
        let length = body.len() as u64 + attached.map_or(0, |file| file.size + file.after.len() as u64);
        let link = &self.0.link;
        let head = request_head(&method, &path, &headers, length, &link.prefix)
            .ok_or_else(|| RunnerError::invalid("The request path holds characters that are not allowed."))?;
        let mut idle = link.pool.take();
        loop {
            let reused = idle.is_some();
            let mut connection = match idle.take() {
                Some(connection) => connection,
                None => match Connection::open(link.address).await {
                    Ok(connection) => connection,
                    Err(_) => return Err(self.clone().why_broken("before it took the request").await),
                },
            };
            let broken = match connection
                .exchange(&head, &body, attached, method == Method::HEAD)
                .await
            {
                Ok(answer) => {
                    self.mark_progress();
                    let body = UpstreamBody::new(connection, answer.framing, answer.keep, self.clone());
                    let mut response = Response::new(body);
                    *response.status_mut() = answer.status;
                    *response.headers_mut() = answer.headers;
                    return Ok(response);
                }
                Err(broken) => broken,
            };
            drop(connection);
            match broken {
                // It had closed the idle connection, or it died of this request: then the new connection is refused.
                Broken::BeforeAnswer if reused => {}
                Broken::BeforeAnswer => return Err(self.clone().why_broken("before it answered").await),
                Broken::InHead => return Err(self.clone().why_broken("in the middle of its answer").await),
                Broken::Malformed => {
                    return Err(RunnerError::new(
                        ErrorKind::EngineFailed,
                        "The engine's answer is not HTTP.",
                    ));
                }
                Broken::File(error) => {
                    tracing::error!(%error, "a file that was to be sent to an engine cannot be read");
                    return Err(RunnerError::internal(
                        "The file that was sent cannot be read any more. Send it again; the log says more.",
                    ));
                }
            }
        }
    }

    /// A look says nothing about how running answers do (promise R9).
    pub(crate) fn mark_progress(&self) {
        if self.0.slot.is_some() {
            self.0.instance.mark_progress();
        }
    }

    /// A connection whose answer is complete.
    pub(crate) fn give_back(&self, connection: Connection) {
        self.0.link.pool.put(connection);
    }

    /// Why the engine broke off: the report of its end, if that comes within a moment.
    pub(crate) async fn why_broken(self, when: &'static str) -> RunnerError {
        let mut exit = self.0.instance.exit.subscribe();
        let report = match tokio::time::timeout(EXIT_WAIT, exit.wait_for(Option::is_some)).await {
            Ok(Ok(report)) => report.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let message = match report {
            Some(report) => report.reason.clone(),
            None => format!("The engine closed the connection {when}."),
        };
        let mut error = RunnerError::new(ErrorKind::EngineFailed, message);
        error.model = Some(self.0.instance.model.key.to_string());
        error
    }
}
