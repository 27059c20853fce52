use domain::{ErrorKind, RunnerError};
use serde_json::json;

use crate::{Rendered, json::to_vec};
use domain::RegistryName;

/// Which route, because error words differ per route (contract 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the route of the same name")]
pub enum Route {
    Generate,
    Chat,
    Embed,
    Embeddings,
    Show,
    Copy,
    Delete,
    Create,
    Pull,
    Push,
    Other,
}

/// The error for a name the registry does not know: empty, badly formed, or not installed (contract 1.2 table).
pub fn unknown_model(name: &str, route: Route) -> RunnerError {
    let name = name.trim();
    let invalid = |message: &str| RunnerError::invalid(message).param("model");
    if name.is_empty() {
        return match route {
            Route::Generate | Route::Embed => RunnerError::model_not_found(""),
            Route::Copy => invalid("source \"\" is invalid"),
            Route::Create | Route::Pull => invalid("invalid model name"),
            Route::Chat | Route::Embeddings | Route::Show | Route::Delete | Route::Push | Route::Other => {
                invalid("model is required")
            }
        };
    }
    if RegistryName::parse(name).is_none() {
        return match route {
            Route::Copy => invalid(&format!("source {name:?} is invalid")),
            Route::Delete => invalid(&format!("name {name:?} is invalid")),
            Route::Generate
            | Route::Chat
            | Route::Embed
            | Route::Embeddings
            | Route::Show
            | Route::Create
            | Route::Pull
            | Route::Push
            | Route::Other => invalid("invalid model name"),
        };
    }
    RunnerError::model_not_found(name)
}

/// "not found" in the words of the route. Clients match on them.
fn not_found(name: &str, route: Route) -> String {
    match route {
        Route::Embed | Route::Embeddings if name.is_empty() => format!("model '{name}' not found"),
        Route::Embed | Route::Embeddings => format!("model {name:?} not found, try pulling it first"),
        Route::Show => {
            let shown = RegistryName::parse(name).map_or_else(|| name.to_owned(), |name| name.to_string());
            format!("model '{shown}' not found")
        }
        Route::Copy => format!("model {name:?} not found"),
        Route::Generate | Route::Chat | Route::Delete | Route::Create | Route::Pull | Route::Push | Route::Other => {
            format!("model '{name}' not found")
        }
    }
}

/// Status and text of an error on `/api/*`.
pub(super) fn status_and_text(error: &RunnerError, route: Route) -> (u16, String) {
    let own = || error.message.clone();
    match &error.kind {
        ErrorKind::InvalidRequest
        | ErrorKind::NotCapable
        | ErrorKind::NotLoaded
        | ErrorKind::ContextExceeded { .. } => (400, own()),
        ErrorKind::Unauthenticated => (401, "unauthorized".into()),
        ErrorKind::Forbidden => (403, own()),
        ErrorKind::ModelNotFound => (
            404,
            error.model.as_deref().map_or_else(own, |name| not_found(name, route)),
        ),
        ErrorKind::NotFound => (404, own()),
        ErrorKind::MethodNotAllowed => (405, own()),
        ErrorKind::Conflict => (409, own()),
        ErrorKind::TooLarge => (413, own()),
        ErrorKind::RateLimited { .. } => {
            let seconds = error.retry_after_seconds().unwrap_or(1);
            (429, format!("rate limit exceeded, try again in {seconds} seconds"))
        }
        ErrorKind::Overloaded { .. } => (
            503,
            "server busy, please try again.  maximum pending requests exceeded".into(),
        ),
        ErrorKind::ShuttingDown => (503, own()),
        ErrorKind::EngineFailed | ErrorKind::Internal => (500, own()),
        ErrorKind::UpstreamTimeout => (504, own()),
        ErrorKind::Unsupported => (501, own()),
        ErrorKind::Cancelled => (499, "request canceled".into()),
        ErrorKind::Engine { status } => (if (400..600).contains(status) { *status } else { 502 }, own()),
    }
}

/// The error as `{"error":"text"}`, or the plain texts of 404 and 405 for unknown paths and methods (contract 1).
pub fn error(error: &RunnerError, route: Route) -> Rendered {
    match (&error.kind, route) {
        (ErrorKind::NotFound, Route::Other) => return Rendered::text(404, "404 page not found"),
        (ErrorKind::MethodNotAllowed, _) => return Rendered::text(405, "405 method not allowed"),
        _ => {}
    }
    let (status, text) = status_and_text(error, route);
    Rendered {
        status,
        content_type: Rendered::JSON_UTF8,
        body: to_vec(&json!({"error": text})),
        retry_after: error.retry_after_seconds(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_per_route() {
        let line = |name: &str, route| {
            let rendered = error(&unknown_model(name, route), route);
            (rendered.status, String::from_utf8(rendered.body).unwrap())
        };
        let body = |text: &str| {
            to_vec(&json!({"error": text}))
                .into_iter()
                .map(char::from)
                .collect::<String>()
        };
        for (route, missing, invalid, unknown) in [
            (
                Route::Generate,
                (404, "model '' not found"),
                "invalid model name",
                "model 'x' not found",
            ),
            (
                Route::Chat,
                (400, "model is required"),
                "invalid model name",
                "model 'x' not found",
            ),
            (
                Route::Embed,
                (404, "model '' not found"),
                "invalid model name",
                "model \"x\" not found, try pulling it first",
            ),
            (
                Route::Embeddings,
                (400, "model is required"),
                "invalid model name",
                "model \"x\" not found, try pulling it first",
            ),
            (
                Route::Show,
                (400, "model is required"),
                "invalid model name",
                "model 'x:latest' not found",
            ),
            (
                Route::Copy,
                (400, "source \"\" is invalid"),
                "source \"x y\" is invalid",
                "model \"x\" not found",
            ),
            (
                Route::Delete,
                (400, "model is required"),
                "name \"x y\" is invalid",
                "model 'x' not found",
            ),
        ] {
            assert_eq!(line("", route), (missing.0, body(missing.1)));
            assert_eq!(line("x y", route), (400, body(invalid)));
            assert_eq!(line("x", route), (404, body(unknown)));
        }
    }

    #[test]
    fn special_bodies() {
        let rendered = error(&RunnerError::new(ErrorKind::NotFound, ""), Route::Other);
        assert_eq!(
            (rendered.status, rendered.body.as_slice()),
            (404, &b"404 page not found"[..])
        );
        let rendered = error(&RunnerError::new(ErrorKind::MethodNotAllowed, ""), Route::Chat);
        assert_eq!(
            (rendered.status, rendered.body.as_slice()),
            (405, &b"405 method not allowed"[..])
        );
        let busy = RunnerError::new(
            ErrorKind::Overloaded {
                retry_after: Duration::from_millis(1500),
            },
            "x",
        );
        let rendered = error(&busy, Route::Chat);
        assert_eq!((rendered.status, rendered.retry_after), (503, Some(2)));
        assert!(String::from_utf8(rendered.body).unwrap().contains("again.  maximum"));
        let limited = RunnerError::new(
            ErrorKind::RateLimited {
                retry_after: Duration::from_secs(30),
            },
            "x",
        );
        assert_eq!(
            error(&limited, Route::Chat).body,
            br#"{"error":"rate limit exceeded, try again in 30 seconds"}"#
        );
    }
}
