//! Errors in the form of whoever asks (promise H10, management contract 7.2).

use bytes::Bytes;
use dialects::{Rendered, anthropic, audio, llamacpp, llamarunner, lmstudio_rest, ollama, openai};
use domain::RunnerError;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::dispatch::{fresh_id, set};
use crate::listener::Flavour;
use crate::routes::{Dialect, Operation};
use crate::settings::ApiSettings;

/// Whose words an error is put in.
pub(crate) struct Asker<'a> {
    pub(crate) flavour: Flavour,
    pub(crate) dialect: Dialect,
    pub(crate) operation: Option<Operation>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) legacy_strings: bool,
    /// What `x-request-id` will say, when that is known already.
    pub(crate) request_id: Option<HeaderValue>,
}

/// An error as an answer.
pub(crate) fn render(error: &RunnerError, asker: &Asker<'_>) -> Response<Body> {
    let mut rendered = match asker.dialect {
        Dialect::Ollama => ollama::error(error, ollama_route(asker.operation)),
        Dialect::LmStudio => lmstudio_rest::error(error, asker.legacy_strings),
        Dialect::LmStudioV1 => lmstudio_rest::v1::error(error),
        Dialect::OpenAi if asker.flavour == Flavour::LmStudio => lmstudio_rest::error(error, asker.legacy_strings),
        Dialect::Anthropic => return anthropic_error(error, asker),
        Dialect::OpenAi => openai::error(error),
        Dialect::LlamaCpp => llamacpp::error(error),
        Dialect::LlamaRunner => llamarunner::error(error),
        Dialect::Audio => audio::error(error),
    };
    if let Some(status) = transport_status(error) {
        rendered.status = status.as_u16();
    }
    rendered.retry_after = rendered.retry_after.or_else(|| error.retry_after_seconds());
    if accepts(asker.headers, "application/problem+json") {
        return problem(&rendered, error);
    }
    respond(rendered)
}

/// Errors of the transport, which no dialect has a kind for.
fn transport_status(error: &RunnerError) -> Option<StatusCode> {
    match error.code.as_deref() {
        Some("unsupported_encoding") => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Some("request_timeout") => Some(StatusCode::REQUEST_TIMEOUT),
        Some("disk_full") => Some(StatusCode::INSUFFICIENT_STORAGE),
        _ => None,
    }
}

/// Where Anthropic's clients look for the id of a request.
pub(crate) const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");

/// The id of a request as Anthropic writes it.
pub(crate) fn anthropic_id(id: &HeaderValue) -> String {
    format!("req_{}", id.to_str().unwrap_or_default())
}

/// Anthropic's error body names the request, so its id must be known here.
fn anthropic_error(error: &RunnerError, asker: &Asker<'_>) -> Response<Body> {
    let id = anthropic_id(&asker.request_id.clone().unwrap_or_else(fresh_id));
    let mut rendered = anthropic::error(error, Some(&id));
    if let Some(status) = transport_status(error) {
        rendered.status = status.as_u16();
    }
    named(rendered, &id)
}

fn named(rendered: Rendered, id: &str) -> Response<Body> {
    let mut response = respond(rendered);
    set(response.headers_mut(), ANTHROPIC_ID, id);
    response
}

/// [`anthropic_error`] for a status and words of our own.
fn anthropic_words(status: StatusCode, message: &str, asker: &Asker<'_>) -> Response<Body> {
    let id = anthropic_id(&asker.request_id.clone().unwrap_or_else(fresh_id));
    let body = anthropic::error_body(status.as_u16(), message, Some(&id));
    named(Rendered::json(status.as_u16(), body), &id)
}

/// RFC 9457, for clients that ask for it by `Accept`.
fn problem(rendered: &Rendered, error: &RunnerError) -> Response<Body> {
    let title = StatusCode::from_u16(rendered.status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let body = json!({
        "type": "about:blank",
        "title": title.unwrap_or("Error"),
        "status": rendered.status,
        "detail": error.message,
        "code": error.code,
        "param": error.param,
    });
    respond(Rendered {
        status: rendered.status,
        content_type: "application/problem+json",
        body: body.to_string().into_bytes(),
        retry_after: rendered.retry_after,
    })
}

/// A finished answer of a dialect.
pub(crate) fn respond(rendered: Rendered) -> Response<Body> {
    let mut response = Response::new(Body::full(rendered.body));
    *response.status_mut() = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(rendered.content_type));
    if let Some(seconds) = rendered.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// JSON with status 200. Ollama's routes label it with a charset (Ollama contract 1).
pub(crate) fn json(dialect: Dialect, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let label = if dialect == Dialect::Ollama {
        Rendered::JSON_UTF8
    } else {
        Rendered::JSON
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(label));
    response
}

/// Plain text with status 200.
pub(crate) fn text(body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(Rendered::TEXT));
    response
}

/// A request the guard refused. Ollama sends nothing in the body of a 403 (Ollama contract 1.1); a page could not read it
/// anyway, but a person with curl can on the other routes.
pub(crate) fn refusal(status: StatusCode, message: &str, asker: &Asker<'_>) -> Response<Body> {
    let rendered = match asker.dialect {
        Dialect::Anthropic => return anthropic_words(status, message, asker),
        Dialect::Ollama if status == StatusCode::FORBIDDEN => Rendered::text(status.as_u16(), ""),
        Dialect::Ollama => Rendered::json(status.as_u16(), json!({ "error": message }).to_string().into_bytes()),
        _ => {
            let code = if status == StatusCode::FORBIDDEN {
                "forbidden_origin"
            } else {
                "invalid_request"
            };
            let kind = if status == StatusCode::FORBIDDEN {
                "permission_error"
            } else {
                "invalid_request_error"
            };
            let body = json!({ "error": { "message": message, "type": kind, "param": null, "code": code } });
            Rendered::json(status.as_u16(), body.to_string().into_bytes())
        }
    };
    respond(rendered)
}

/// No such path (404) or not with this method (405), in the words of the listener, then of the path's family.
pub(crate) fn unknown_route(
    status: StatusCode,
    parts: &Parts,
    asker: &Asker<'_>,
    settings: &ApiSettings,
) -> Response<Body> {
    let not_allowed = status == StatusCode::METHOD_NOT_ALLOWED;
    let lm_studio = |status: u16| {
        let target = parts
            .uri
            .path_and_query()
            .map_or_else(|| parts.uri.path(), |target| target.as_str());
        respond(lmstudio_rest::unexpected_endpoint(
            parts.method.as_str(),
            target,
            status,
        ))
    };
    match asker.flavour {
        _ if asker.dialect == Dialect::Anthropic => {
            let path = parts.uri.path();
            let message = if not_allowed {
                format!("{path} does not answer {}.", parts.method)
            } else {
                format!("There is no {path} here.")
            };
            anthropic_words(status, &message, asker)
        }
        Flavour::Ollama => {
            let text = if not_allowed {
                "405 method not allowed"
            } else {
                "404 page not found"
            };
            respond(Rendered {
                content_type: "text/plain",
                ..Rendered::text(status.as_u16(), text)
            })
        }
        // The setting exists for programs that take LM Studio's 200 for granted.
        Flavour::LmStudio if settings.lmstudio_port.unknown_route_status == 200 => lm_studio(200),
        Flavour::LmStudio => lm_studio(status.as_u16()),
        Flavour::Management if matches!(asker.dialect, Dialect::LmStudio | Dialect::LmStudioV1) => {
            lm_studio(status.as_u16())
        }
        Flavour::Management => {
            let path = parts.uri.path();
            let (kind, message) = if not_allowed {
                (
                    domain::ErrorKind::MethodNotAllowed,
                    format!("{path} does not answer {}.", parts.method),
                )
            } else {
                (
                    domain::ErrorKind::NotFound,
                    format!("There is no {path} here. /openapi.json lists what there is."),
                )
            };
            let mut rendered = openai::error(&RunnerError::new(kind, message.clone()));
            if asker.dialect == Dialect::Ollama {
                rendered.body = json!({ "error": message }).to_string().into_bytes();
            }
            rendered.status = status.as_u16();
            respond(rendered)
        }
    }
}

/// The family of a path that no route was chosen for.
pub(crate) fn family(path: &str) -> Dialect {
    if path.starts_with("/api/v0/") {
        Dialect::LmStudio
    } else if path.starts_with("/api/v1/") {
        Dialect::LmStudioV1
    } else if path.starts_with("/api/") {
        Dialect::Ollama
    } else if path.starts_with("/v1/messages") {
        Dialect::Anthropic
    } else if path.starts_with("/v1/") {
        Dialect::OpenAi
    } else {
        Dialect::LlamaRunner
    }
}

/// The words of an error differ per route (Ollama contract 1.2).
fn ollama_route(operation: Option<Operation>) -> ollama::Route {
    match operation {
        Some(Operation::OllamaGenerate) => ollama::Route::Generate,
        Some(Operation::OllamaChat) => ollama::Route::Chat,
        Some(Operation::OllamaEmbed) => ollama::Route::Embed,
        Some(Operation::OllamaEmbeddings) => ollama::Route::Embeddings,
        Some(Operation::OllamaShow) => ollama::Route::Show,
        Some(Operation::OllamaCopy) => ollama::Route::Copy,
        Some(Operation::OllamaDelete) => ollama::Route::Delete,
        Some(Operation::OllamaCreate) => ollama::Route::Create,
        Some(Operation::OllamaPull) => ollama::Route::Pull,
        Some(Operation::OllamaPush) => ollama::Route::Push,
        _ => ollama::Route::Other,
    }
}

/// Does `Accept` name this media type?
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            part.split(';')
                .next()
                .is_some_and(|media| media.trim().eq_ignore_ascii_case(wanted))
        })
}

/// Does `Accept` name this media type first?
pub(crate) fn accepts_first(headers: &HeaderMap, wanted: &str) -> bool {
    let first = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split([',', ';']).next());
    first.is_some_and(|media| media.trim().eq_ignore_ascii_case(wanted))
}
