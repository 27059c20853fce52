//! LlamaRunner Pro: state and control of models and server (management contract 2).

use std::sync::Arc;
use std::time::Duration;

use dialects::llamarunner::{self, ProxyView, ServerView, StartCall, SystemView};
use domain::{ModelEntry, RunnerError};
use engines::speech::{SpeechInfo, SpeechState};
use http::request::Parts;
use http::{HeaderMap, Response};
use hyper::body::Incoming;

use super::lease::{known, not_found};
use super::{Answer, listed, view};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::{accepts_first, json, respond, text};
use crate::state::{ListenerView, VERSION};

/// `GET /health`.
pub(super) fn health(cx: &Cx, parts: &Parts) -> Response<Body> {
    let draining = cx.connection.listener.cancel.is_cancelled();
    if !draining && plain_text(&parts.headers) {
        return text("OK");
    }
    let uptime = cx.state().started.elapsed();
    respond(llamarunner::health(VERSION, uptime, telemetry::now_ms(), draining))
}

fn plain_text(headers: &HeaderMap) -> bool {
    accepts_first(headers, "text/plain")
}

fn entry(cx: &Cx) -> Result<Arc<ModelEntry>, RunnerError> {
    known(cx, &cx.id).ok_or_else(|| not_found(cx, &cx.id))
}

/// `GET /v1/models/{id}/status`.
pub(super) fn model_status(cx: &Cx) -> Answer {
    let model = view(cx.state(), &entry(cx)?);
    Ok(json(
        cx.route.dialect,
        llamarunner::model_status(&cx.id, &model, telemetry::now_ms()),
    ))
}

/// `GET /v1/models/{id}/info`.
pub(super) fn model_info(cx: &Cx) -> Answer {
    let model = view(cx.state(), &entry(cx)?);
    Ok(json(
        cx.route.dialect,
        llamarunner::model_info(&cx.id, &model, cx.caller.sees_paths),
    ))
}

/// `POST /v1/models/{id}/start`.
pub(super) async fn start(cx: &Cx, body: Incoming) -> Answer {
    let call = StartCall::parse(&cx.collect(body).await?)?;
    let entry = entry(cx)?;
    let mut launch = call.launch;
    launch.mode = launch.mode.or_else(|| Some(entry.natural_mode()));
    cx.state()
        .router
        .load(Arc::clone(&entry), launch, None, call.wait)
        .await?;
    Ok(json(
        cx.route.dialect,
        llamarunner::start_reply(&view(cx.state(), &entry)),
    ))
}

/// `POST /v1/models/{id}/stop`: running answers may finish within `supervisor.drain_timeout_seconds`, then they are cut.
/// With `"force": true` at once. The answer comes when the engine is gone.
pub(super) async fn stop(cx: &Cx, body: Incoming) -> Answer {
    let force = llamarunner::parse_stop(&cx.collect(body).await?)?;
    let router = &cx.state().router;
    // What runs can be stopped, also when its model has left the library.
    let left = || {
        let running = router.running().into_iter().map(|(entry, _)| entry);
        running.into_iter().find(|entry| entry.key.as_str() == cx.id)
    };
    let entry = entry(cx).or_else(|error| left().ok_or(error))?;
    let drain = if force { Duration::ZERO } else { cx.settings.drain };
    router.unload_within(&entry.key, drain).await;
    Ok(json(cx.route.dialect, llamarunner::stop_reply()))
}

/// `GET /v1/system/status`.
pub(super) async fn system_status(cx: &Cx) -> Response<Body> {
    let state = cx.state();
    let models = listed(state);
    let memory = state.hardware.memory();
    let listeners = state.listeners.load();
    let view = SystemView {
        models_total: models.len(),
        models_loaded: models.iter().filter(|model| model.is_loaded()).count(),
        models_memory: state.router.instances().iter().map(engine_bytes).sum(),
        ollama: proxy(&listeners.ollama),
        lmstudio: proxy(&listeners.lmstudio),
        cpu_percent: state.hardware.cpu_percent(),
        memory_used: memory.total.saturating_sub(memory.available),
        memory_available: memory.available,
        speech: speech_state(&state.engines.speech_info(false).await),
    };
    json(cx.route.dialect, llamarunner::system_status(&view))
}

/// The word for how the speech engine stands.
fn speech_state(speech: &SpeechInfo) -> &'static str {
    match speech.state {
        SpeechState::Missing => "missing",
        SpeechState::Installing => "installing",
        SpeechState::Ready => "ready",
        SpeechState::Broken => "broken",
    }
}

/// Memory of an engine on both sides.
pub(super) fn engine_bytes(instance: &domain::InstanceView) -> u64 {
    instance.memory_bytes.unwrap_or(0) + instance.vram_bytes.unwrap_or(0)
}

fn proxy(listener: &ListenerView) -> ProxyView {
    let status = match (listener.address, &listener.problem) {
        (Some(_), _) => "running",
        (None, Some(_)) => "error",
        (None, None) => "stopped",
    };
    ProxyView {
        status: status.into(),
        port: listener.address.map(|address| address.port()),
    }
}

/// `GET /v1/server/info`.
pub(super) async fn server_info(cx: &Cx) -> Answer {
    let state = cx.state();
    let platform = state.hardware.platform();
    let engine = state.engines.llama_server().await.ok();
    let speech = state.engines.speech_info(false).await;
    let view = ServerView {
        version: VERSION.into(),
        platform: format!("{} {} {}", platform.os_name, platform.kernel, platform.arch),
        rust_version: option_env!("CARGO_PKG_RUST_VERSION").unwrap_or_default().into(),
        llama_server: engine.map(|engine| match engine.build {
            Some(build) => format!("{} (b{build})", engine.version),
            None => engine.version.clone(),
        }),
        python_version: speech.python_version,
        faster_whisper: speech.faster_whisper,
    };
    Ok(json(cx.route.dialect, llamarunner::server_info(&view)))
}
