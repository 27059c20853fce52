//! The window's page, served to the desktop shell and to browsers, and the root of every port.

use dialects::Rendered;
use domain::{ErrorKind, RunnerError};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::Answer;
use crate::body::Body;
use crate::dispatch::{Cx, set};
use crate::errors::{accepts, json, text};
use crate::listener::Flavour;
use crate::routes;

/// The built frontend. `build.rs` puts a page there that says how to build it when there is none.
#[derive(RustEmbed)]
#[folder = "../../frontend/dist"]
struct Assets;

const INDEX: &str = "index.html";

/// No inline script, nothing from elsewhere, in no frame (promise S12). The desktop shell's own scheme is for its IPC;
/// sound that the page was sent is played from memory (`blob:`).
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
    media-src 'self' blob:; connect-src 'self' ipc: http://ipc.localhost; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// `GET /` (management contract 6.1).
pub(super) fn root(cx: &Cx, parts: &Parts) -> Response<Body> {
    if cx.flavour() == Flavour::Ollama {
        return text("Ollama is running");
    }
    if accepts(&parts.headers, "text/html") {
        return redirect();
    }
    text("LlamaRunner is running")
}

fn redirect() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static("/ui/"));
    response
}

/// `GET /openapi.json`.
pub(super) fn openapi(cx: &Cx) -> Response<Body> {
    json(cx.route.dialect, routes::document())
}

/// `GET /ui/…`: a file, or the page itself for addresses that the page handles.
pub(super) fn file(cx: &Cx, parts: &Parts) -> Answer {
    if parts.uri.path() == "/ui" {
        return Ok(redirect());
    }
    let name = if cx.id.is_empty() { INDEX } else { cx.id.as_str() };
    if let Some(found) = Assets::get(name) {
        return Ok(serve(name, &found, &parts.headers));
    }
    // A missing script must not be answered by a page: the browser would report a syntax error instead of a missing file.
    let looks_like_file = name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    match Assets::get(INDEX).filter(|_| !looks_like_file) {
        Some(index) => Ok(serve(INDEX, &index, &parts.headers)),
        None => Err(RunnerError::new(
            ErrorKind::NotFound,
            "There is no such file in the window's page.",
        )),
    }
}

fn serve(name: &str, file: &EmbeddedFile, asked: &HeaderMap) -> Response<Body> {
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..12]
        .iter()
        .fold(String::from("\""), |tag, byte| tag + &format!("{byte:02x}"))
        + "\"";
    let known = asked
        .get(IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if known {
        Body::empty()
    } else {
        Body::full(file.data.to_vec())
    });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    set(headers, ETAG, &tag);
    // The build names files under assets/ by their content.
    let immutable = name.starts_with("assets/");
    let cache = if immutable {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => Rendered::JSON,
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" => Rendered::TEXT,
        _ => "application/octet-stream",
    }
}
