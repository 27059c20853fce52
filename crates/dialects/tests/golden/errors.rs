//! Every kind of error in every dialect (promise H10).

use std::fmt::Write;
use std::time::Duration;

use dialects::ollama::Route;
use dialects::{Rendered, anthropic, llamacpp, lmstudio_rest, ollama, openai};
use domain::{ErrorKind, RunnerError};

use crate::support::{compare, folder};

fn all() -> Vec<RunnerError> {
    let after = Duration::from_secs(30);
    let kinds = [
        ErrorKind::InvalidRequest,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::MethodNotAllowed,
        ErrorKind::Conflict,
        ErrorKind::TooLarge,
        ErrorKind::ContextExceeded {
            prompt: 5000,
            context: 4096,
        },
        ErrorKind::NotCapable,
        ErrorKind::RateLimited { retry_after: after },
        ErrorKind::Overloaded { retry_after: after },
        ErrorKind::NotLoaded,
        ErrorKind::EngineFailed,
        ErrorKind::UpstreamTimeout,
        ErrorKind::Unsupported,
        ErrorKind::Cancelled,
        ErrorKind::ShuttingDown,
        ErrorKind::Internal,
        ErrorKind::Engine { status: 400 },
        ErrorKind::Engine { status: 500 },
    ];
    let mut errors: Vec<RunnerError> = kinds.into_iter().map(|kind| RunnerError::new(kind, "Words.")).collect();
    errors.push(RunnerError::model_not_found("x"));
    errors
}

#[test]
fn every_kind_in_every_dialect() {
    type Dialect = (&'static str, fn(&RunnerError) -> Rendered);
    let dialects: [Dialect; 5] = [
        ("anthropic", |error| anthropic::error(error, Some("req_1"))),
        ("llamacpp", llamacpp::error),
        ("openai", openai::error),
        ("lmstudio", |error| lmstudio_rest::error(error, false)),
        ("ollama", |error| ollama::error(error, Route::Chat)),
    ];
    for (dialect, render) in dialects {
        let mut text = String::new();
        for error in all() {
            let Rendered {
                status,
                body,
                retry_after,
                ..
            } = render(&error);
            writeln!(
                text,
                "{:?}\n  {status} {retry_after:?} {}",
                error.kind,
                String::from_utf8(body).unwrap()
            )
            .unwrap();
        }
        compare(&folder(dialect).join("errors.txt"), text.as_bytes());
    }
}
