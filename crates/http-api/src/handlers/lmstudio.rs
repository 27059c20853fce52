//! LM Studio's REST API v0 (LM Studio contract 6).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use dialects::Rendered;
use dialects::lmstudio_rest::{self, Signature, V0Facts, V0Stream, entry_id};
use domain::ModelEntry;
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use super::lease::{described, not_found};
use super::openai::{Sent, Work, start};
use super::{Answer, clock, listed_with_instances, view};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::listener::Flavour;
use crate::relay;
use crate::routes::Dialect;

/// Largest answer that statistics are added to.
const MAX_ANSWER: usize = 64 << 20;

/// `GET /api/v0/models`.
pub(super) fn models(cx: &Cx) -> Response<Body> {
    let only_loaded = !cx.settings.lmstudio_port.jit;
    json(
        cx.route.dialect,
        lmstudio_rest::models_list(&listed_with_instances(cx.state()), only_loaded),
    )
}

/// `GET /api/v0/models/{id}`.
pub(super) fn model(cx: &Cx) -> Answer {
    let entry = described(cx, &cx.id).filter(|entry| lmstudio_rest::has_type(entry));
    let entry = entry.ok_or_else(|| not_found(cx, &cx.id))?;
    Ok(json(
        cx.route.dialect,
        lmstudio_rest::model_one(&view(cx.state(), &entry)),
    ))
}

/// `POST /api/v0/chat/completions`.
pub(super) async fn chat(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    with_stats(cx, parts, body, Work::Chat, Signature::chat).await
}

/// `POST /api/v0/completions`.
pub(super) async fn completions(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    with_stats(cx, parts, body, Work::Completion, Signature::completion).await
}

/// Makes the signature of a kind of answer from fresh bits and the instance's name.
type Sign = fn(u128, String) -> Signature;

/// What an answer of LM Studio's port carries besides the engine's; `None` on the other ports.
pub(super) fn signature(cx: &Cx, entry: &ModelEntry, sign: Sign) -> Option<Signature> {
    (cx.flavour() == Flavour::LmStudio).then(|| sign(random_bits(), entry_id(entry)))
}

fn random_bits() -> u128 {
    let random = RandomState::new();
    u128::from(random.hash_one(0_u8)) << 64 | u128::from(random.hash_one(1_u8))
}

async fn with_stats(cx: &Cx, parts: &Parts, body: Incoming, work: Work, sign: Sign) -> Answer {
    let Sent {
        target,
        lease,
        response,
        since,
    } = start(cx, parts, cx.collect(body).await?, work).await?;
    let mut model = view(cx.state(), &target.entry);
    model.instance = Some(lease.instance());
    let facts = facts(cx, &model).await;
    let signature = sign(random_bits(), entry_id(&target.entry));
    let mut answer = if relay::is_event_stream(response.headers()) {
        let coder = V0Stream::new(signature, facts, clock());
        relay::translated(response.into_body(), coder, Rendered::SSE).await?
    } else {
        let whole = response.into_body().collect_bytes(MAX_ANSWER).await?;
        let whole = lmstudio_rest::add_stats(&whole, &signature, &facts, since.elapsed())?;
        json(cx.route.dialect, whole)
    };
    target.mark(&mut answer);
    Ok(answer)
}

async fn facts(cx: &Cx, model: &dialects::ModelView) -> V0Facts {
    let runtime = format!("llama.cpp-{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let version = cx
        .state()
        .engines
        .llama_server()
        .await
        .map_or_else(|_| String::new(), |engine| engine.version.clone());
    V0Facts::new(model, &runtime, &version)
}

/// `GET /lmstudio-greeting`: what LM Studio's libraries look for (LM Studio contract 1.2).
pub(super) fn greeting() -> Response<Body> {
    json(Dialect::LmStudio, r#"{"lmstudio":true}"#)
}

/// `GET /lms-status`: what LM Studio's command line looks for.
pub(super) fn lms_status(cx: &Cx) -> Response<Body> {
    let version = &cx.settings.lmstudio_port.reported_version;
    let status = serde_json::json!({"package": "llamarunner", "version": version});
    json(Dialect::LmStudio, status.to_string())
}
