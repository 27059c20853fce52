//! Connections, keys, routes.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use testkit::monotonic_ns;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::answer;
use crate::args::Options;
use crate::faults::Faults;
use crate::lifecycle::Log;
use crate::record::Recorder;
use crate::script::Script;
use crate::stream::{AnyBody, Kind};

/// What every connection sees.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Arc<Options>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) record: Arc<Recorder>,
    pub(crate) log: Arc<Log>,
    ready: AtomicBool,
    /// A request hangs in the decoder: everything that goes through the task queue hangs with it.
    hung: AtomicBool,
    running: AtomicUsize,
    ended: Notify,
    closing: CancellationToken,
}

impl Shared {
    pub(crate) fn new(options: Arc<Options>, faults: Arc<Faults>, record: Arc<Recorder>, log: Arc<Log>) -> Self {
        Self {
            options,
            faults,
            record,
            log,
            ready: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            ended: Notify::new(),
            closing: CancellationToken::new(),
        }
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    pub(crate) fn set_hung(&self) {
        self.hung.store(true, Ordering::SeqCst);
    }

    /// Accepts no more connections.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Resolves when no request runs.
    pub(crate) async fn idle(&self) {
        while self.running.load(Ordering::SeqCst) > 0 {
            self.ended.notified().await;
        }
    }

    async fn queue(&self) {
        if self.hung.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

/// A request being answered; tells the record whether the answer was complete or the peer went away.
#[derive(Debug)]
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

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The answer is complete.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.shared.record.is_on() {
            let event = if self.done { "done" } else { "gone" };
            let line = json!({"event": event, "n": self.number, "tokens": self.tokens, "at_ns": monotonic_ns()});
            self.shared.record.write(&line);
        }
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
                () = shared.closing.cancelled() => return,
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
    let idle = shared.faults.idle;
    let requests = AtomicU32::new(0);
    let service = service_fn(|request| {
        let n = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let last = n >= shared.faults.keepalive_max;
        let shared = Arc::clone(&shared);
        async move {
            let mut response = handle(&shared, request).await;
            let headers = response.headers_mut();
            headers.insert(header::SERVER, HeaderValue::from_static("llama.cpp"));
            let (name, value) = if last {
                (header::CONNECTION, HeaderValue::from_static("close"))
            } else {
                (
                    header::HeaderName::from_static("keep-alive"),
                    HeaderValue::from_static("timeout=5, max=100"),
                )
            };
            headers.insert(name, value);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(idle);
    // A connection that breaks is the client's business; the ticket records it.
    let _ = http.serve_connection(TokioIo::new(socket), service).await;
}

async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<AnyBody> {
    let (head, body) = request.into_parts();
    let number = shared.record.next_request();
    let path = head.uri.path().to_owned();
    let mut ticket = Ticket::new(shared, number);
    if shared.faults.no_body_read && head.method == Method::POST {
        record_request(shared, number, &head, b"");
        // Kept, so that the connection stays open and the body stays in the socket.
        let _unread = body;
        return std::future::pending().await;
    }
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request_error", "body was cut");
    };
    record_request(shared, number, &head, &body);
    let response = if !shared.ready.load(Ordering::SeqCst) {
        error(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "Loading model")
    } else if matches!(path.as_str(), "/health" | "/v1/health") {
        json_response(StatusCode::OK, &json!({"status": "ok"}))
    } else if !authorised(shared, &head.headers) {
        shared
            .log
            .line("warn", "srv    operator(): unauthorized: Invalid API Key");
        error(StatusCode::UNAUTHORIZED, "authentication_error", "Invalid API Key")
    } else {
        return route(shared, &head.method, &path, &head.headers, &body, ticket).await;
    };
    ticket.done();
    response
}

async fn route(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
    mut ticket: Ticket,
) -> Response<AnyBody> {
    let options = &shared.options;
    let response = match (method.as_str(), path) {
        ("GET", "/v1/models" | "/models") => json_response(StatusCode::OK, &answer::models(options)),
        ("GET", "/props") => json_response(StatusCode::OK, &answer::props(options)),
        ("GET", "/slots") if options.slots => {
            shared.queue().await;
            let busy = shared.running.load(Ordering::SeqCst).saturating_sub(1);
            json_response(StatusCode::OK, &answer::slots(options, busy))
        }
        ("GET", "/metrics") if options.metrics => {
            shared.queue().await;
            text_response(answer::metrics(shared.running.load(Ordering::SeqCst).saturating_sub(1)))
        }
        ("GET", "/slots" | "/metrics") => error(
            StatusCode::NOT_IMPLEMENTED,
            "not_supported_error",
            "This server does not support this endpoint.",
        ),
        ("POST", _) => {
            let request = match serde_json::from_slice::<Value>(body) {
                Ok(request) => request,
                Err(why) => {
                    ticket.done();
                    return error(StatusCode::BAD_REQUEST, "invalid_request_error", &why.to_string());
                }
            };
            let script = script(&request, headers)
                .or(&shared.faults.answers.find(&request))
                .or(&shared.faults.script);
            if let Some(status) = script.status.and_then(|status| StatusCode::from_u16(status).ok()) {
                ticket.done();
                return error(status, "server_error", script.error.as_deref().unwrap_or("stub"));
            }
            return post(shared, path, &request, script, ticket).await;
        }
        _ => error(StatusCode::NOT_FOUND, "not_found_error", "File Not Found"),
    };
    ticket.done();
    response
}

async fn post(
    shared: &Arc<Shared>,
    path: &str,
    request: &Value,
    script: Script,
    mut ticket: Ticket,
) -> Response<AnyBody> {
    let options = &shared.options;
    let kind = match path {
        "/v1/chat/completions" | "/chat/completions" => Kind::Chat,
        "/v1/completions" | "/completions" => Kind::Text,
        "/completion" | "/infill" => Kind::Native,
        _ => {
            shared.queue().await;
            tokio::time::sleep(std::time::Duration::from_millis(script.first_ms.unwrap_or(0))).await;
            ticket.done();
            return match path {
                "/v1/embeddings" | "/embeddings" | "/embedding" if !options.embeddings => {
                    let what = "This server does not support embeddings. Start it with `--embeddings`";
                    error(StatusCode::NOT_IMPLEMENTED, "not_supported_error", what)
                }
                "/v1/rerank" | "/rerank" | "/v1/reranking" | "/reranking" if !options.reranking => {
                    let what = "This server does not support reranking. Start it with `--reranking`";
                    error(StatusCode::NOT_IMPLEMENTED, "not_supported_error", what)
                }
                "/v1/embeddings" | "/embeddings" => {
                    json_response(StatusCode::OK, &answer::embeddings(options, request))
                }
                "/embedding" => json_response(StatusCode::OK, &answer::native_embedding(request)),
                "/v1/rerank" | "/rerank" | "/v1/reranking" | "/reranking" => {
                    json_response(StatusCode::OK, &answer::rerank(options, request))
                }
                "/tokenize" => json_response(StatusCode::OK, &answer::tokenize(request)),
                "/detokenize" => json_response(StatusCode::OK, &answer::detokenize(request)),
                "/apply-template" => json_response(StatusCode::OK, &answer::apply_template(request)),
                _ => error(StatusCode::NOT_FOUND, "not_found_error", "File Not Found"),
            };
        }
    };
    shared.queue().await;
    crate::stream::generate(kind, request, script, &options.alias, ticket).await
}

fn script(request: &Value, headers: &HeaderMap) -> Script {
    let header = headers
        .get("x-stub")
        .and_then(|value| serde_json::from_slice(value.as_bytes()).ok());
    let body = request
        .get("stub")
        .and_then(|value| serde_json::from_value::<Script>(value.clone()).ok());
    body.unwrap_or_default().or(&header.unwrap_or_default())
}

fn authorised(shared: &Shared, headers: &HeaderMap) -> bool {
    if shared.faults.refuse_key {
        return false;
    }
    let keys = &shared.options.api_keys;
    if keys.is_empty() {
        return true;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    [bearer, text("x-api-key")]
        .into_iter()
        .flatten()
        .any(|given| keys.iter().any(|key| key == given))
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

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<AnyBody> {
    response(
        status,
        "application/json; charset=utf-8",
        AnyBody::full(value.to_string()),
    )
}

fn text_response(text: String) -> Response<AnyBody> {
    response(StatusCode::OK, "text/plain; version=0.0.4", AnyBody::full(text))
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<AnyBody> {
    json_response(
        status,
        &json!({"error": {"code": status.as_u16(), "message": message, "type": kind}}),
    )
}

pub(crate) fn response(status: StatusCode, content_type: &'static str, body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
