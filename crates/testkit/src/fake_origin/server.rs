use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::record::{OriginHost, OriginRequest};
use super::serve::{self, Answer};
use super::setup::{self, OriginSetup};
use super::{Shared, hub, lock, registry};

/// A request with its body read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Percent-encoding undone.
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Its number among all requests.
    pub(super) serial: usize,
}

impl Asked {
    /// A parameter of the query, percent-encoding undone.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.query.as_deref()?;
        let found = query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        })?;
        Some(decode(&found.replace('+', " ")))
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.headers
            .get("authorization")?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")
    }
}

/// Accepts on one host until told to stop.
pub(super) fn listen(listener: TcpListener, host: OriginHost, shared: &Arc<Shared>, stop: &CancellationToken) {
    let (shared, stop, tasks) = (Arc::clone(shared), stop.clone(), TaskTracker::new());
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            connections.spawn(async move {
                let service = service_fn(|request| respond(request, host, Arc::clone(&shared)));
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                // Connections that break are what this origin is for.
                let _ = stop.run_until_cancelled(serving).await;
            });
        }
    });
}

async fn respond(request: Request<Incoming>, host: OriginHost, shared: Arc<Shared>) -> Result<Answer, io::Error> {
    let (parts, body) = request.into_parts();
    let path = decode(parts.uri.path());
    let recorded = OriginRequest {
        host,
        method: parts.method.to_string(),
        path: path.clone(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers.clone(),
        status: 0,
    };
    let is_control = path.starts_with("/__fake/");
    let serial = {
        let mut record = lock(&shared.record);
        if !is_control {
            record.push(recorded);
        }
        record.len().saturating_sub(1)
    };
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        method: parts.method,
        path,
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
        serial,
    };
    if is_control {
        return Ok(control(&asked, &shared));
    }
    let fault = lock(&shared.faults).instead(&asked.path);
    let answer = match &fault {
        Some(fault) => serve::instead(fault).ok_or(io::ErrorKind::ConnectionReset)?,
        None => match host {
            OriginHost::Origin => origin(&asked, &shared),
            OriginHost::Cdn => cdn(&asked, &shared),
        },
    };
    if let Some(recorded) = lock(&shared.record).get_mut(serial) {
        recorded.status = answer.status().as_u16();
    }
    Ok(answer)
}

fn origin(asked: &Asked, shared: &Shared) -> Answer {
    if let Some(answer) = registry::answer(asked, shared).or_else(|| hub::answer(asked, shared)) {
        return answer;
    }
    let content = lock(&shared.content);
    if let Some(digest) = content.redirects.get(&asked.path) {
        return serve::redirect(StatusCode::FOUND, &signed(shared, digest));
    }
    match content.files.get(&asked.path) {
        Some(bytes) => file(asked, shared, bytes),
        None => serve::text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// The content network: blobs by digest, for who has the signed address and nothing else.
fn cdn(asked: &Asked, shared: &Shared) -> Answer {
    // As object stores do: two ways of authentication at once are an error.
    if asked.headers.contains_key("authorization") {
        let body = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>";
        let xml = [(CONTENT_TYPE.as_str(), "application/xml")];
        return serve::answer(StatusCode::BAD_REQUEST, &xml, super::body::OriginBody::complete(body));
    }
    let digest = asked.path.strip_prefix("/cdn/").unwrap_or_default();
    if asked.parameter("X-Amz-Signature").as_deref() != Some(&signature(digest)) {
        return serve::text(StatusCode::FORBIDDEN, "SignatureDoesNotMatch\n");
    }
    match lock(&shared.content).blobs.get(digest) {
        Some(bytes) => file(asked, shared, bytes),
        None => serve::text(StatusCode::NOT_FOUND, "NoSuchKey\n"),
    }
}

/// Serves bytes of the path asked for, with its faults.
pub(super) fn file(asked: &Asked, shared: &Shared, bytes: &Bytes) -> Answer {
    let faults = lock(&shared.faults).of_body(&asked.path);
    serve::file(asked, bytes, &shared.sha256(bytes), &faults)
}

/// An address at the second host that looks signed.
pub(super) fn signed(shared: &Shared, digest: &str) -> String {
    format!(
        "http://{}/cdn/{digest}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature={}",
        shared.cdn,
        signature(digest)
    )
}

fn signature(digest: &str) -> String {
    super::content::sha256(format!("signed {digest}").as_bytes())
}

/// For tests in other languages: `GET /__fake/requests`, `POST /__fake/setup`, `POST /__fake/clear`.
fn control(asked: &Asked, shared: &Shared) -> Answer {
    match asked.path.as_str() {
        "/__fake/requests" => {
            let requests: Vec<Value> = lock(&shared.record).iter().map(rendered).collect();
            serve::json(StatusCode::OK, &json!(requests))
        }
        "/__fake/clear" => {
            lock(&shared.record).clear();
            lock(&shared.faults).clear();
            serve::json(StatusCode::OK, &json!({}))
        }
        "/__fake/setup" => {
            let done = serde_json::from_slice::<OriginSetup>(&asked.body)
                .map_err(io::Error::from)
                .and_then(|setup| setup.apply(shared));
            match done {
                Ok(()) => serve::json(StatusCode::OK, &setup::summary(shared)),
                Err(error) => serve::json(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
            }
        }
        _ => serve::text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn rendered(request: &OriginRequest) -> Value {
    let headers: serde_json::Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    json!({
        "host": if request.host == OriginHost::Origin { "origin" } else { "cdn" },
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "status": request.status,
        "leak": request.is_leak(),
    })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
