//! The protocol of LM Studio's libraries (LM Studio contract 10): one socket per namespace, calls and channels on it.
//!
//! A socket is one task: it reads frames, drives the work they began and writes what that says. Dropping it drops the work,
//! and so a client that leaves stops its predictions (promise H1).

mod clients;
mod generate;
mod loads;
mod lookup;
mod services;
mod session;
mod work;

pub(crate) use services::SdkLog;

use std::sync::Arc;

use http::header::USER_AGENT;
use http::request::Parts;

use super::upgrade;
use crate::dispatch::Cx;
use crate::handlers::Answer;

pub(crate) use clients::Clients;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Llm,
    Embedding,
    System,
    Files,
    Repository,
    Diagnostics,
    Runtime,
    Plugins,
}

impl Namespace {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/llm" => Self::Llm,
            "/embedding" => Self::Embedding,
            "/system" => Self::System,
            "/files" => Self::Files,
            "/repository" => Self::Repository,
            "/diagnostics" => Self::Diagnostics,
            "/runtime" => Self::Runtime,
            "/plugins" => Self::Plugins,
            _ => return None,
        })
    }
}

/// Longest name of a client in the window.
const CLIENT_NAME: usize = 80;

/// Turns the connection into a socket of the route's namespace.
pub(crate) fn upgrade(cx: &Cx, parts: &Parts) -> Answer {
    let accepted = match upgrade::accept(parts) {
        Ok(accepted) => accepted,
        Err(answer) => return Ok(*answer),
    };
    let Some(namespace) = Namespace::of(cx.route.path) else {
        return Err(domain::RunnerError::internal("The route has no namespace."));
    };
    let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let client = match agent.map(str::trim).filter(|agent| !agent.is_empty()) {
        Some(agent) => agent.chars().take(CLIENT_NAME).collect(),
        None => cx.connection.peer.ip().to_string(),
    };
    let connection = Arc::clone(&cx.connection);
    let tracker = connection.listener.tracker.clone();
    tracker.spawn(async move {
        match upgrade::open(accepted.opening).await {
            Ok(socket) => session::run(socket, connection, namespace, client).await,
            Err(error) => tracing::debug!(%error, "no socket"),
        }
    });
    Ok(accepted.answer)
}
