//! OpenAI routes: the engine speaks the same dialect, so bytes are passed on as they come.

use std::time::Instant;

use bytes::Bytes;
use dialects::openai::{self, Edits, Ids, ModelListOptions, StreamErrorForm};
use dialects::peek::{self, Peeked};
use dialects::{engine, lmstudio_rest};
use domain::{Capability, EngineMode, LaunchOptions, RunnerError};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use router::{Lease, UpstreamBody};

use super::lease::{EngineCalls, Target, Wish, is_jit, known, lease, not_found, require, target};
use super::{Answer, listed, view};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::listener::Flavour;
use crate::relay;

/// `GET /v1/models` and `/models`.
pub(super) fn list_models(cx: &Cx, parts: &Parts) -> Response<Body> {
    let models = listed(cx.state());
    let body = if cx.flavour() == Flavour::LmStudio {
        lmstudio_rest::openai_models(&models, !cx.settings.lmstudio_port.jit)
    } else {
        openai::models_list(&models, options(cx, parts.uri.path() == "/models"))
    };
    json(cx.route.dialect, body)
}

/// `GET /v1/models/{id}`.
pub(super) fn one_model(cx: &Cx) -> Answer {
    let entry = known(cx, &cx.id).ok_or_else(|| not_found(cx, &cx.id))?;
    Ok(json(
        cx.route.dialect,
        openai::model_one(&view(cx.state(), &entry), &cx.id, options(cx, false)),
    ))
}

/// How lists look on this listener.
pub(super) fn options(cx: &Cx, bare: bool) -> ModelListOptions {
    let ids = match cx.flavour() {
        Flavour::Ollama => Ids::Ollama,
        Flavour::LmStudio => Ids::LmStudio,
        Flavour::Management => Ids::Key,
    };
    ModelListOptions {
        show_path: cx.caller.sees_paths,
        bare,
        ids,
    }
}

/// What is asked of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Chat,
    Completion,
    Embeddings,
    Rerank,
}

impl Work {
    fn mode(self) -> EngineMode {
        match self {
            Self::Chat | Self::Completion => EngineMode::Completion,
            Self::Embeddings => EngineMode::Embedding,
            Self::Rerank => EngineMode::Rerank,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Chat => engine::CHAT,
            Self::Completion => "/v1/completions",
            Self::Embeddings => engine::EMBEDDINGS,
            Self::Rerank => "/v1/rerank",
        }
    }

    fn check(self, body: &Peeked<'_>) -> Result<Edits, RunnerError> {
        match self {
            Self::Chat => openai::check_chat(body),
            Self::Completion => openai::check_completion(body),
            Self::Embeddings => openai::check_embeddings(body),
            Self::Rerank => openai::check_rerank(body),
        }
    }
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    generate(cx, parts, body, Work::Chat).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    generate(cx, parts, body, Work::Completion).await
}

async fn generate(cx: &Cx, parts: &Parts, body: Incoming, work: Work) -> Answer {
    let sent = start(cx, parts, cx.collect(body).await?, work).await?;
    let mut answer = if relay::is_event_stream(sent.response.headers()) {
        relay::event_stream(sent.response.into_body(), error_form(cx)).await?
    } else {
        relay::whole(sent.response).await?
    };
    sent.target.mark(&mut answer);
    Ok(answer)
}

/// `POST /v1/embeddings` and its v0 twin.
pub(super) async fn embeddings(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let sent = start(cx, parts, cx.collect(body).await?, Work::Embeddings).await?;
    let mut answer = relay::whole(sent.response).await?;
    sent.target.mark(&mut answer);
    Ok(answer)
}

/// `POST /v1/rerank` and its other names: both reply forms in one (management contract 6.1).
pub(super) async fn rerank(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    let Prepared {
        target,
        lease,
        body: rewritten,
    } = prepare(cx, parts, body.clone(), Work::Rerank).await?;
    let answer = EngineCalls::new(cx, &lease).ask(Work::Rerank.path(), rewritten).await?;
    let mut answer = json(cx.route.dialect, openai::rerank_response(&body, &answer)?);
    target.mark(&mut answer);
    Ok(answer)
}

/// LM Studio's clients know its own error event.
pub(super) fn error_form(cx: &Cx) -> StreamErrorForm {
    if is_jit(cx) {
        StreamErrorForm::LmStudio
    } else {
        StreamErrorForm::OpenAi
    }
}

/// A request that the engine has answered with a success status.
pub(super) struct Sent {
    pub(super) target: Target,
    pub(super) lease: Lease,
    pub(super) response: Response<UpstreamBody>,
    pub(super) since: Instant,
}

/// Body to engine: peek, find the model, get a lease, send the bytes.
pub(super) async fn start(cx: &Cx, parts: &Parts, body: Bytes, work: Work) -> Result<Sent, RunnerError> {
    let Prepared { target, lease, body } = prepare(cx, parts, body, work).await?;
    let since = Instant::now();
    let response = EngineCalls::new(cx, &lease).send(work.path(), body).await?;
    Ok(Sent {
        target,
        lease,
        response,
        since,
    })
}

struct Prepared {
    target: Target,
    lease: Lease,
    body: Bytes,
}

async fn prepare(cx: &Cx, parts: &Parts, body: Bytes, work: Work) -> Result<Prepared, RunnerError> {
    let peeked = peek::peek(&body)?;
    let name = peeked.model()?;
    let stream = peeked.stream()?;
    let target = target(cx, name.as_deref())?;
    let name = name.as_deref().unwrap_or_else(|| target.entry.key.as_str());
    match work {
        Work::Chat => require(&target.entry, name, &[Capability::Chat, Capability::Completion], "chat")?,
        Work::Completion => require(
            &target.entry,
            name,
            &[Capability::Completion, Capability::Chat],
            "completion",
        )?,
        // Ollama embeds with generating models too, LM Studio refuses (contract 4.4).
        Work::Embeddings if is_jit(cx) => require(&target.entry, name, &[Capability::Embedding], "embeddings")?,
        Work::Embeddings => {
            let able = [Capability::Embedding, Capability::Chat, Capability::Completion];
            require(&target.entry, name, &able, "embeddings")?;
        }
        Work::Rerank => require(&target.entry, name, &[Capability::Rerank], "reranking")?,
    }
    let edits = work.check(&peeked)?;
    let wish = Wish {
        launch: LaunchOptions {
            mode: Some(work.mode()),
            ..LaunchOptions::default()
        },
        keep_alive: peeked.keep_alive()?,
        ttl: peeked.ttl()?,
    };
    if stream && matches!(work, Work::Chat | Work::Completion) {
        cx.will_stream(error_form(cx))?;
    }
    let rewritten = if edits.is_empty() {
        None
    } else {
        Some(peek::rewrite(&body, &peeked, &edits))
    };
    let body = rewritten.map_or(body, Bytes::from);
    let lease = lease(cx, parts, &target.entry, wish).await?;
    Ok(Prepared { target, lease, body })
}
