//! Connections, the token, routes.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use testkit::monotonic_ns;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::Options;
use crate::faults::Faults;
use crate::jobs::{self, Answer, Piece};
use crate::record::Recorder;

/// Pieces of an answer between the worker and the socket.
const AHEAD: usize = 4;

/// What every connection sees.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) record: Arc<Recorder>,
    /// The worker hangs.
    pub(crate) hung: AtomicBool,
    /// The one worker.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The program ends.
    pub(crate) stopping: CancellationToken,
    token: Option<String>,
    ready: AtomicBool,
    failed: Mutex<Option<String>>,
    running: AtomicUsize,
    ended: Notify,
    jobs: TaskTracker,
}

impl Shared {
    pub(crate) fn new(options: Options, faults: Faults, record: Arc<Recorder>) -> Self {
        Self {
            options,
            faults,
            record,
            hung: AtomicBool::new(false),
            turn: tokio::sync::Mutex::new(()),
            stopping: CancellationToken::new(),
            token: std::env::var("LR_SIDECAR_TOKEN").ok(),
            ready: AtomicBool::new(false),
            failed: Mutex::new(None),
            running: AtomicUsize::new(0),
            ended: Notify::new(),
            jobs: TaskTracker::new(),
        }
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    pub(crate) fn set_failed(&self, why: String) {
        if let Ok(mut failed) = self.failed.lock() {
            *failed = Some(why);
        }
    }

    /// Refuses new work and stops what runs.
    pub(crate) fn cancel(&self) {
        self.stopping.cancel();
    }

    /// Resolves when no request runs.
    pub(crate) async fn idle(&self) {
        while self.running.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
    }
}

/// A request being answered; tells the record whether the answer was complete or the peer went away.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    pub(crate) tokens: u64,
    done: bool,
}

impl Ticket {
    fn new(shared: &Arc<Shared>, number: u64) -> Self {
        shared.running.fetch_add(1, Ordering::SeqCst);
        Self {
            shared: Arc::clone(shared),
            number,
            tokens: 0,
            done: false,
        }
    }

    /// The process is about to end in the middle of it.
    pub(crate) fn left(&self) {
        self.record("gone");
    }

    fn record(&self, event: &str) {
        let line = json!({"event": event, "n": self.number, "tokens": self.tokens, "at_ns": monotonic_ns()});
        self.shared.record.write(&line);
    }

    /// The answer is complete.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.record(if self.done { "done" } else { "gone" });
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
        self.shared.ended.notify_one();
    }
}

/// Serves until the returned guard is dropped.
pub(crate) fn start(listener: TcpListener, shared: Arc<Shared>) -> DropGuard {
    let stop = CancellationToken::new();
    let (token, tasks) = (stop.clone(), TaskTracker::new());
    let accepting = tasks.clone();
    tasks.spawn(async move {
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpListener::from_std(listener));
        let Ok(listener) = listener else { return };
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted,
                () = token.cancelled() => return,
            };
            if let Ok((socket, _)) = socket {
                let _ = socket.set_nodelay(true);
                accepting.spawn(connection(socket, Arc::clone(&shared)));
            }
        }
    });
    stop.drop_guard()
}

async fn connection(socket: tokio::net::TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(handle(&shared, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new());
    // A connection that breaks is the client's business; the ticket records it.
    let _ = http.serve_connection(TokioIo::new(socket), service).await;
}

async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Sound> {
    let (head, body) = request.into_parts();
    let number = shared.record.next_request();
    let mut ticket = Ticket::new(shared, number);
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "body was cut");
    };
    record_request(shared, number, &head, &body);
    let path = head.uri.path();
    let response = match (head.method.as_str(), path) {
        ("GET", "/health") => health(shared),
        _ if !authorised(shared, &head.headers) => {
            error(StatusCode::UNAUTHORIZED, "unauthorized", "The token is wrong.")
        }
        ("GET", "/stats") => stats(shared),
        ("GET", "/voices") if shared.options.speaks => {
            json_response(StatusCode::OK, &json!({"voices": jobs::voices()}))
        }
        ("POST", "/transcribe" | "/speak") if shared.stopping.is_cancelled() => {
            error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The engine is stopping.")
        }
        ("POST", "/transcribe" | "/speak") if !shared.ready.load(Ordering::SeqCst) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "engine_starting",
            "The model is being loaded.",
        ),
        ("POST", "/transcribe") if !shared.options.speaks => return job(shared, &body, ticket).await,
        ("POST", "/speak") if shared.options.speaks => return job(shared, &body, ticket).await,
        _ => error(StatusCode::NOT_FOUND, "not_found", "There is no such route."),
    };
    ticket.done();
    response
}

async fn job(shared: &Arc<Shared>, body: &[u8], ticket: Ticket) -> Response<Sound> {
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request", "The body is not JSON.");
    };
    let (out, pieces) = mpsc::channel(AHEAD);
    let (head, told) = oneshot::channel();
    let answer = Answer { head, out, ticket };
    let speaks = shared.options.speaks;
    shared.jobs.spawn(jobs::work(Arc::clone(shared), speaks, asked, answer));
    match told.await {
        Ok(Ok(content_type)) => {
            let mut response = Response::new(Sound::Pieces(pieces));
            if let Ok(value) = HeaderValue::from_str(&content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            response
        }
        Ok(Err(refusal)) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            error(status, &refusal.code, &refusal.message)
        }
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The engine is stopping."),
    }
}

fn health(shared: &Shared) -> Response<Sound> {
    let failed = shared.failed.lock().ok().and_then(|failed| failed.clone());
    if let Some(why) = failed {
        return json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"status": "error", "error": why}),
        );
    }
    if shared.ready.load(Ordering::SeqCst) {
        let body = json!({"status": "ready", "model": shared.options.model, "device": "cpu", "compute_type": "int8"});
        json_response(StatusCode::OK, &body)
    } else {
        json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "loading"}))
    }
}

fn stats(shared: &Shared) -> Response<Sound> {
    let told_to = shared.faults.stuck.as_ref().is_some_and(|file: &PathBuf| file.exists());
    let stuck = told_to || shared.hung.load(Ordering::SeqCst);
    let status = if stuck {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    // This request is one of them.
    let running = shared.running.load(Ordering::SeqCst).saturating_sub(1);
    json_response(status, &json!({"running": running, "stuck": stuck}))
}

fn authorised(shared: &Shared, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = &shared.token else { return true };
    given.and_then(|value| value.strip_prefix("Bearer ")) == Some(token)
}

fn record_request(shared: &Shared, number: u64, head: &http::request::Parts, body: &[u8]) {
    if !shared.record.is_on() {
        return;
    }
    let headers: Vec<(&str, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    shared.record.write(
        &json!({"event": "request", "n": number, "pid": std::process::id(), "method": head.method.as_str(),
        "path": path, "headers": headers, "body": String::from_utf8_lossy(body), "at_ns": monotonic_ns()}),
    );
}

fn json_response(status: StatusCode, value: &Value) -> Response<Sound> {
    let mut response = Response::new(Sound::Whole(value.to_string().into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Sound> {
    json_response(status, &json!({"error": {"code": code, "message": message}}))
}

/// An answer's body.
pub(crate) enum Sound {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Piece>),
}

impl Body for Sound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(pieces) => pieces.poll_recv(cx).map(|piece| match piece? {
                Some(piece) => Some(Ok(Frame::data(piece))),
                None => Some(Err(io::Error::other("cut"))),
            }),
        }
    }
}
