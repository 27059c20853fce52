//! One request from head to answer: match → guard → access → limits → handler → headers.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialects::StreamForm;
use domain::{RequestId, RunnerError};
use futures_util::FutureExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CONTENT_ENCODING,
    CONTENT_LENGTH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{self, Caller};
use crate::body::{self, Body};
use crate::errors::{self, Asker};
use crate::guard::{self, Asked, Refusal};
use crate::handlers;
use crate::inflate;
use crate::limits::Permit;
use crate::listener::{Flavour, Listener, Slot};
use crate::resumable;
use crate::routes::{self, Class, Dialect, Found, Operation, Route, allow};
use crate::settings::ApiSettings;
use crate::settle::{End, Settle};
use crate::state::ApiState;
use crate::uploads;
use crate::waiting::{self, Exchange, Handler};

/// One client connection.
pub(crate) struct Connection {
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: SocketAddr,
    /// Given back when the last request of the connection, or the socket it became, is over.
    pub(crate) _slot: Slot,
}

/// What a handler knows about its request besides head and body.
pub(crate) struct Cx {
    pub(crate) connection: Arc<Connection>,
    /// The settings the request began with.
    pub(crate) settings: Arc<ApiSettings>,
    pub(crate) route: &'static Route,
    /// The path parameter, decoded.
    pub(crate) id: String,
    pub(crate) arrived: Instant,
    pub(crate) caller: Caller,
    pub(crate) permit: Option<Arc<Permit>>,
    /// Valid `x-request-id` of the caller.
    pub(crate) given_id: Option<HeaderValue>,
    /// W3C trace context, passed on to the engine (promise O2).
    pub(crate) traceparent: Option<HeaderValue>,
    /// The first lease, once there is one.
    pub(crate) granted: OnceLock<Granted>,
    /// The state of the model that was not leased, in the product's words.
    pub(crate) refused_in: OnceLock<&'static str>,
    /// The id that the request has before there is a lease.
    number: OnceLock<RequestId>,
    /// The id that the client was told before there was a lease.
    told_id: OnceLock<HeaderValue>,
    /// The stream that the answer will be.
    form: OnceLock<Arc<dyn StreamForm>>,
}

impl Cx {
    pub(crate) fn state(&self) -> &Arc<ApiState> {
        &self.connection.listener.state
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.connection.listener.flavour
    }

    /// Reads the request body.
    pub(crate) async fn collect(&self, body: Incoming) -> Result<Bytes, RunnerError> {
        body::collect(body, self.settings.max_body, self.state().limits()).await
    }

    pub(crate) fn asker<'a>(&'a self, parts: &'a Parts) -> Asker<'a> {
        Asker {
            flavour: self.flavour(),
            dialect: self.route.dialect,
            operation: Some(self.route.operation),
            headers: &parts.headers,
            legacy_strings: self.settings.lmstudio_port.legacy_error_strings,
            request_id: self.request_id(),
        }
    }

    /// Gives the request its id before it asks for a lease; its leases will have the same.
    pub(crate) fn number(&self) -> RequestId {
        *self.number.get_or_init(|| self.state().router.number())
    }

    /// The id that the request has already.
    pub(crate) fn given_number(&self) -> Option<RequestId> {
        self.number.get().copied()
    }

    /// The id in `x-request-id`: the caller's, else the lease's.
    pub(crate) fn request_id(&self) -> Option<HeaderValue> {
        self.given_id
            .as_ref()
            .or_else(|| self.told_id.get())
            .cloned()
            .or_else(|| {
                let id = self.given_number().or_else(|| Some(self.granted.get()?.id))?;
                HeaderValue::from_str(&id.to_string()).ok()
            })
    }

    /// The answer will be a stream: counts it against the caller's limit of streams, and lets the client see life while it
    /// waits. To be called as soon as the request is read and found good, before anything is waited for.
    pub(crate) fn will_stream(&self, form: impl StreamForm + 'static) -> Result<(), RunnerError> {
        if let Some(permit) = &self.permit {
            permit.stream()?;
        }
        let _ = self.form.set(Arc::new(form));
        Ok(())
    }

    pub(crate) fn stream_form(&self) -> Option<&Arc<dyn StreamForm>> {
        self.form.get()
    }
}

/// What is known of a request's lease.
pub(crate) struct Granted {
    pub(crate) id: RequestId,
    /// Waited for the slot, the load left out.
    pub(crate) queued: Duration,
    pub(crate) load: Duration,
    /// Tokens of the slot.
    pub(crate) context: u32,
    /// From asking the engine to the first byte of its answer.
    pub(crate) first_byte: Arc<OnceLock<Duration>>,
}

/// Answers one request. Dropped when the client goes away: everything a handler holds goes with it (promise H1).
pub(crate) async fn answer(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let given_id = given_id(&parts.headers);
    let mut settle = Box::new(Settle {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        flavour: connection.listener.flavour,
        peer: connection.peer,
        request_id: given_id.clone().unwrap_or_else(|| HeaderValue::from_static("-")),
        arrived,
        status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        reason: None,
        permit: None,
        bytes: 0,
        end: End::Open,
    });
    let settings = connection.listener.state.settings();
    let mut cors = None;
    let mut response = match admit(&connection, &parts, &settings, &mut cors) {
        Err(refused) => *refused,
        Ok(admitted) => {
            let cx = Cx {
                connection,
                settings,
                route: admitted.route,
                id: admitted.id,
                arrived,
                caller: admitted.caller,
                permit: admitted.permit.map(Arc::new),
                given_id,
                traceparent: parts.headers.get("traceparent").cloned(),
                granted: OnceLock::new(),
                refused_in: OnceLock::new(),
                number: OnceLock::new(),
                told_id: OnceLock::new(),
                form: OnceLock::new(),
            };
            let exchange = Arc::new(Exchange { cx, parts });
            let (result, begun) = waiting::answer(handle(&exchange, body), &exchange).await;
            let cx = &exchange.cx;
            let mut response = result.unwrap_or_else(|error| {
                settle.reason = Some(error.message.clone());
                errors::render(&error, &cx.asker(&exchange.parts))
            });
            if begun {
                // The engine's log is to show the id that the client sees.
                let _ = cx.told_id.set(cx.request_id().unwrap_or_else(fresh_id));
            } else {
                waiting::watch(&mut response, cx);
            }
            waiting::write_headers(cx, &mut response);
            if matches!(
                response.status(),
                // LM Studio's port calls a full queue a limit.
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            ) && let Some(state) = cx.refused_in.get()
            {
                // Tells a server that is busy loading from one that is busy (management contract 7.2).
                set(
                    response.headers_mut(),
                    HeaderName::from_static("x-llamarunner-state"),
                    state,
                );
            }
            settle.permit.clone_from(&cx.permit);
            if let Some(permit) = &settle.permit {
                permit.write_headers(response.headers_mut());
            }
            if let Some(id) = cx.request_id() {
                if cx.route.dialect == Dialect::Anthropic {
                    set(response.headers_mut(), errors::ANTHROPIC_ID, &errors::anthropic_id(&id));
                }
                settle.request_id = id;
            }
            response
        }
    };
    if settle.request_id == "-" {
        // An error body may have named the request already.
        let named = response.headers().get(errors::ANTHROPIC_ID);
        let named = named.and_then(|id| HeaderValue::from_str(id.to_str().ok()?.strip_prefix("req_")?).ok());
        settle.request_id = named.unwrap_or_else(fresh_id);
    }
    settle.status = response.status();
    finish(response.headers_mut(), &settle.request_id, cors);
    Ok(response.map(|body| body.settled_by(settle)))
}

/// The handler at work, owning all it needs.
fn handle(exchange: &Arc<Exchange>, body: Incoming) -> Handler {
    let working = Arc::clone(exchange);
    let handling = async move { handlers::run(&working.cx, &working.parts, body).await };
    let handling = AssertUnwindSafe(handling).catch_unwind().map(|handled| {
        handled.unwrap_or_else(|_| {
            tracing::error!("a handler panicked");
            Err(RunnerError::internal(
                "Something went wrong inside LlamaRunner. Its log says more.",
            ))
        })
    });
    resumable::detach(Box::pin(handling), exchange)
}

struct Admitted {
    route: &'static Route,
    id: String,
    caller: Caller,
    permit: Option<Permit>,
}

/// Everything that is decided before a handler runs. The error is the finished answer.
fn admit(
    connection: &Connection,
    parts: &Parts,
    settings: &ApiSettings,
    cors: &mut Option<HeaderValue>,
) -> Result<Admitted, Box<Response<Body>>> {
    let listener = &connection.listener;
    let path = parts.uri.path();
    let found = routes::matcher().find(&parts.method, path);
    let (class, dialect, operation) = match &found {
        Found::Route(hit) => (hit.route.class, hit.route.dialect, Some(hit.route.operation)),
        Found::Options(routes) | Found::OtherMethod(routes) => (class_of(routes, parts), errors::family(path), None),
        _ => (Class::Inference, errors::family(path), None),
    };
    let asker = Asker {
        flavour: listener.flavour,
        dialect,
        operation,
        headers: &parts.headers,
        legacy_strings: settings.lmstudio_port.legacy_error_strings,
        request_id: given_id(&parts.headers),
    };
    let views = listener.state.listeners.load();
    let asked = Asked {
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
        class,
        flavour: listener.flavour,
        settings,
        listeners: &views,
        machine_name: listener.state.machine_name.as_deref(),
    };
    *cors = guard::check(&asked).map_err(|refusal| refused(refusal, &asker))?;
    // To LM Studio, a method that no route has unless a page may read the answer (LM Studio contract 9.2).
    let options = listener.flavour != Flavour::LmStudio || cors.is_some();
    let hit = match found {
        Found::Route(hit) => hit,
        Found::Options(routes) if options => return Err(Box::new(preflight(&routes, parts, cors.as_ref()))),
        Found::Options(routes) | Found::OtherMethod(routes) => {
            let mut response = errors::unknown_route(StatusCode::METHOD_NOT_ALLOWED, parts, &asker, settings);
            set(response.headers_mut(), ALLOW, &allow(&routes, options));
            return Err(Box::new(response));
        }
        Found::TrailingSlash if path.starts_with("/api/") => return Err(Box::new(without_slash(parts))),
        Found::BadPath => {
            let error = RunnerError::invalid("The path is not percent-encoded UTF-8.");
            return Err(Box::new(errors::render(&error, &asker)));
        }
        Found::TrailingSlash | Found::Unknown => {
            return Err(Box::new(errors::unknown_route(
                StatusCode::NOT_FOUND,
                parts,
                &asker,
                settings,
            )));
        }
    };
    let render = |error: &RunnerError| Box::new(errors::render(error, &asker));
    check_body_headers(&parts.headers, settings, listener.flavour, hit.route.operation)
        .map_err(|error| render(&error))?;
    let caller = access::authorise(parts, class).map_err(|error| render(&error))?;
    let mut permit = None;
    if class == Class::Inference && !guard::from_window(&asked) {
        let rules = settings.listener(listener.flavour);
        let peer = connection.peer.ip();
        let limits = if peer.is_loopback() { rules.local } else { rules.remote };
        permit = listener
            .state
            .limiter
            .admit(listener.flavour, peer, limits)
            .map_err(|exceeded| {
                let mut response = render(&exceeded.error);
                exceeded.write_headers(response.headers_mut());
                response
            })?;
    }
    Ok(Admitted {
        route: hit.route,
        id: hit.id.into_owned(),
        caller,
        permit,
    })
}

/// Inflating a body could balloon (promise H6), and passing it on would be read differently by the engine: only the route whose
/// clients compress takes it, and inflates with a bound.
fn check_body_headers(
    headers: &HeaderMap,
    settings: &ApiSettings,
    flavour: Flavour,
    operation: Operation,
) -> Result<(), RunnerError> {
    if inflate::coding(headers)?.is_some() && operation != Operation::Responses {
        let named = headers.get(CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
        return Err(inflate::refused(&String::from_utf8_lossy(named)));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length else { return Ok(()) };
    match operation {
        // Files go to the disk as they come, whatever their length (Ollama contract 3.5).
        Operation::OllamaBlobUpload => Ok(()),
        // Recordings too, up to their own limit (audio contract 6).
        Operation::Transcriptions | Operation::Translations => {
            let max = settings.max_recording(flavour);
            if length > max.saturating_add(uploads::FORM_ROOM) {
                return Err(uploads::too_large(max));
            }
            Ok(())
        }
        _ if length > settings.max_body as u64 => Err(body::too_large(settings.max_body)),
        _ => Ok(()),
    }
}

/// The class that decides about a path when no route was chosen: that of the method a preflight announces, else the
/// strictest of the path.
fn class_of(routes: &[&'static Route], parts: &Parts) -> Class {
    let wanted = parts.headers.get("access-control-request-method");
    let announced = wanted.and_then(|method| {
        routes
            .iter()
            .find(|route| route.method.to_http().as_str().as_bytes() == method.as_bytes())
    });
    let strict = |class| match class {
        Class::Management => 3,
        Class::UiShell => 2,
        Class::Inference => 1,
        Class::Public => 0,
    };
    let classes = announced
        .map(|route| route.class)
        .into_iter()
        .chain(routes.iter().map(|route| route.class));
    if announced.is_some() {
        classes.take(1).next()
    } else {
        classes.max_by_key(|class| strict(*class))
    }
    .unwrap_or(Class::Management)
}

fn refused(refusal: Refusal, asker: &Asker<'_>) -> Box<Response<Body>> {
    let status = if refusal == Refusal::BadHost {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::FORBIDDEN
    };
    Box::new(errors::refusal(status, refusal.message(), asker))
}

/// Request headers a page may send (Ollama contract 1.1, with the Anthropic ones).
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, X-Request-Id, X-API-Key, \
    OpenAI-Beta, OpenAI-Organization, OpenAI-Project, Anthropic-Version, Anthropic-Beta, X-Stainless-Arch, \
    X-Stainless-Async, X-Stainless-Custom-Poll-Interval, X-Stainless-Helper-Method, X-Stainless-Lang, X-Stainless-Os, \
    X-Stainless-Package-Version, X-Stainless-Poll-Helper, X-Stainless-Retry-Count, X-Stainless-Runtime, \
    X-Stainless-Runtime-Version, X-Stainless-Timeout, Last-Event-ID, Cache-Control";

/// What LM Studio's port answers pages of every origin.
const ALL_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// `OPTIONS`: 204, with CORS fields for an allowed page.
fn preflight(routes: &[&'static Route], parts: &Parts, page: Option<&HeaderValue>) -> Response<Body> {
    let mut response = status(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let methods = allow(routes, true);
    set(headers, ALLOW, &methods);
    let Some(origin) = page else { return response };
    if origin == guard::ANY_ORIGIN {
        set(headers, ACCESS_CONTROL_ALLOW_METHODS, ALL_METHODS);
        if let Some(wanted) = parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    } else {
        set(headers, ACCESS_CONTROL_ALLOW_METHODS, &methods);
        set(headers, ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    }
    set(headers, ACCESS_CONTROL_MAX_AGE, "43200");
    if parts.headers.contains_key("access-control-request-private-network") {
        set(
            headers,
            HeaderName::from_static("access-control-allow-private-network"),
            "true",
        );
    }
    response
}

/// `/api/tags/` → `/api/tags` (Ollama contract 1).
fn without_slash(parts: &Parts) -> Response<Body> {
    let permanent = matches!(parts.method, Method::GET | Method::HEAD);
    let mut response = status(if permanent {
        StatusCode::MOVED_PERMANENTLY
    } else {
        StatusCode::TEMPORARY_REDIRECT
    });
    let path = parts.uri.path().trim_end_matches('/');
    let target = parts
        .uri
        .query()
        .map_or(Cow::Borrowed(path), |query| Cow::Owned(format!("{path}?{query}")));
    set(response.headers_mut(), LOCATION, &target);
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Fields of every answer.
fn finish(headers: &mut HeaderMap, id: &HeaderValue, cors: Option<HeaderValue>) {
    headers.insert("x-request-id", id.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(origin) = cors {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, X-LlamaRunner-Model-Fallback, \
                 X-LlamaRunner-Queue-Ms, X-LlamaRunner-Load-Ms, X-LlamaRunner-First-Token-Ms, X-LlamaRunner-Context, X-LlamaRunner-State",
            ),
        );
    }
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// The caller's `x-request-id`, when it is harmless (promise O2).
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id")?;
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    let bytes = value.as_bytes();
    (!bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(legal)).then(|| value.clone())
}

/// An id for requests that never got a lease.
pub(crate) fn fresh_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<u64> = OnceLock::new();
    let start = *START.get_or_init(|| telemetry::now_ms().unsigned_abs() ^ (u64::from(std::process::id()) << 40));
    let id = format!("{start:x}-{:x}", NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
