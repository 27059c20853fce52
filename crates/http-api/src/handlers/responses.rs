//! OpenAI's `/v1/responses`: answers with conversations kept here (LM Studio contract 4.5, Ollama contract 7.3).

use std::fmt::Write as _;

use dialects::openai::responses::{
    self, Defaults, Page, ReasoningForm, ResponseForm, ResponseHead, ResponseStream, ResponsesCall, StoredResponse,
};
use dialects::{Rendered, Transcoder, engine, ollama, peek};
use domain::chat::{ChatRequest, Message, Part};
use domain::{Capability, EngineMode, LaunchOptions, ModelEntry, RunnerError};
use futures_util::future::BoxFuture;
use http::request::Parts;
use hyper::body::Incoming;
use router::UpstreamBody;
use store::{ResponseKind, ResponseRow, Store, StoreError};

use super::lease::{EngineCalls, Wish, lease, readable, require, target};
use super::ollama::{fit, limits};
use super::{Answer, clock, query};
use crate::dispatch::Cx;
use crate::errors::json;
use crate::inflate;
use crate::listener::Flavour;
use crate::relay;
use crate::routes::Operation as Op;

const KIND: ResponseKind = ResponseKind::OpenAi;

/// The operations of this family.
pub(super) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::GetResponse => get(cx, parts).await,
        Op::DeleteResponse => delete(cx).await,
        Op::ResponseInput => input_items(cx, parts).await,
        _ => create(cx, parts, body).await,
    }
}

/// `POST /v1/responses`.
async fn create(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = inflate::body(cx.collect(body).await?, &parts.headers).await?;
    let peeked = peek::peek(&body)?;
    let wish = Wish {
        launch: LaunchOptions {
            mode: Some(EngineMode::Completion),
            ..LaunchOptions::default()
        },
        keep_alive: peeked.keep_alive()?,
        ttl: peeked.ttl()?,
    };
    let call = ResponsesCall::parse(&body, defaults(cx))?;
    let target = target(cx, call.model.as_deref())?;
    let asked = call.model.clone().filter(|_| !target.fallback);
    let name = asked.unwrap_or_else(|| target.entry.key.to_string());
    require(
        &target.entry,
        &name,
        &[Capability::Chat, Capability::Completion],
        "chat",
    )?;
    let mut request = call.chat(earlier(&cx.state().store, KIND, call.previous.as_deref()).await?);
    ollama::apply_profile(&target.entry.profile, &mut request)?;
    require_media(&target.entry, &name, &request)?;
    if call.stream {
        cx.will_stream(ResponseForm)?;
    }
    request = readable(request).await?;
    let lease = lease(cx, parts, &target.entry, wish).await?;
    let calls = EngineCalls::new(cx, &lease);
    if call.truncate {
        fit(&calls, lease.launch().context, &mut request).await?;
    }
    let upstream = calls
        .send(engine::CHAT, engine::chat_body(&request, limits(&lease))?)
        .await?
        .into_body();
    let head = ResponseHead::new(&call, &random_hex()?, &name, clock());
    let keep = call.store.then(|| Keep {
        store: cx.state().store.clone(),
        id: head.id().to_owned(),
        parent: call.previous,
        model: target.entry.key.to_string(),
        messages: call.input,
    });
    let coder = ResponseStream::new(head, request.logprobs.is_some());
    let mut answer = if call.stream {
        stream(upstream, coder, keep).await?
    } else {
        let stored = collect(upstream, coder).await?;
        let body = stored.body();
        if let Some(keep) = keep {
            keep.put(stored).await;
        }
        json(cx.route.dialect, body)
    };
    target.mark(&mut answer);
    Ok(answer)
}

/// What the ports do differently (Ollama contract 7.2, 7.3).
fn defaults(cx: &Cx) -> Defaults {
    match cx.flavour() {
        Flavour::Ollama => Defaults {
            temperature: Some(1.0),
            reasoning: ReasoningForm::Summary,
        },
        Flavour::LmStudio | Flavour::Management => Defaults::default(),
    }
}

/// Media need a projector: a refusal here spares the load of a model that cannot take them.
fn require_media(entry: &ModelEntry, name: &str, request: &ChatRequest) -> Result<(), RunnerError> {
    let parts = || request.messages.iter().flat_map(|message| &message.parts);
    if parts().any(|part| matches!(part, Part::Image { .. })) {
        require(entry, name, &[Capability::Vision], "image input")?;
    }
    if parts().any(|part| matches!(part, Part::Audio { .. })) {
        require(entry, name, &[Capability::Audio], "audio input")?;
    }
    Ok(())
}

/// 48 hexadecimal digits: whoever knows the id of an answer may read it, so it must not be guessed.
pub(super) fn random_hex() -> Result<String, RunnerError> {
    let mut random = [0_u8; 24];
    getrandom::fill(&mut random)
        .map_err(|error| RunnerError::internal(format!("The system gives no random numbers: {error}")))?;
    Ok(random.iter().fold(String::with_capacity(48), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// The conversation up to an earlier answer of this kind. One that has lost a part is not continued as if it were whole.
pub(super) async fn earlier(
    store: &Store,
    kind: ResponseKind,
    previous: Option<&str>,
) -> Result<Vec<Message>, RunnerError> {
    let Some(id) = previous else { return Ok(Vec::new()) };
    let chain = store.response_chain(kind, id).await.map_err(|error| failed(&error))?;
    let whole = chain.first().is_some_and(|first| first.parent.is_none());
    if !whole {
        return Err(responses::previous_not_found(id));
    }
    let mut messages = Vec::new();
    for row in &chain {
        let turn: Vec<Message> = serde_json::from_str(&row.messages).map_err(|error| unreadable(&error))?;
        messages.extend(turn);
    }
    Ok(messages)
}

fn failed(error: &StoreError) -> RunnerError {
    tracing::error!(%error, "stored answers");
    RunnerError::internal("The stored answers cannot be reached. LlamaRunner's log says more.")
}

fn unreadable(error: &serde_json::Error) -> RunnerError {
    tracing::error!(%error, "a stored answer cannot be read");
    RunnerError::internal("The stored answer cannot be read.")
}

async fn stored(cx: &Cx) -> Result<StoredResponse, RunnerError> {
    let row = cx.state().store.response(KIND, &cx.id).await;
    let row = row.map_err(|error| failed(&error))?;
    let row = row.ok_or_else(|| responses::not_found(&cx.id))?;
    serde_json::from_str(&row.body).map_err(|error| unreadable(&error))
}

/// `GET /v1/responses/{id}`.
async fn get(cx: &Cx, parts: &Parts) -> Answer {
    if query(parts, "stream").is_some_and(|value| value == "true") {
        return Err(
            RunnerError::invalid("'stream' is not supported here: a kept answer is sent whole.")
                .param("stream")
                .code("unsupported_parameter"),
        );
    }
    Ok(json(cx.route.dialect, stored(cx).await?.body()))
}

/// `DELETE /v1/responses/{id}`.
async fn delete(cx: &Cx) -> Answer {
    let gone = cx.state().store.delete_response(KIND, &cx.id).await;
    if gone.map_err(|error| failed(&error))? {
        Ok(json(cx.route.dialect, responses::deleted(&cx.id)))
    } else {
        Err(responses::not_found(&cx.id))
    }
}

/// `GET /v1/responses/{id}/input_items`.
async fn input_items(cx: &Cx, parts: &Parts) -> Answer {
    let (limit, order) = (query(parts, "limit"), query(parts, "order"));
    let page = Page::parse(limit.as_deref(), order.as_deref(), query(parts, "after"))?;
    Ok(json(cx.route.dialect, stored(cx).await?.input_items(&page)?))
}

/// The whole answer. The engine streams all the same, so that a client that leaves stops it.
async fn collect(mut upstream: UpstreamBody, mut coder: ResponseStream) -> Result<StoredResponse, RunnerError> {
    let mut unsent = Vec::new();
    while !coder.ended() {
        let Some(piece) = relay::next_piece(&mut upstream).await? else {
            break;
        };
        coder.push(&piece, &mut unsent);
        unsent.clear();
    }
    coder.into_stored()
}

async fn stream(upstream: UpstreamBody, coder: ResponseStream, keep: Option<Keep>) -> Answer {
    let last = |coder| -> BoxFuture<'static, Vec<u8>> { Box::pin(last_events(coder, keep)) };
    relay::translated_then(upstream, coder, Rendered::SSE, last).await
}

/// The last events of a response. They wait until the answer is kept: a client may continue from it at once.
async fn last_events(mut coder: ResponseStream, keep: Option<Keep>) -> Vec<u8> {
    let mut out = Vec::new();
    if let (Some(stored), Some(keep)) = (coder.settle(&mut out), keep) {
        keep.put(stored).await;
    }
    coder.finish(&mut out);
    out
}

/// An answer that is to be kept.
struct Keep {
    store: Store,
    id: String,
    parent: Option<String>,
    model: String,
    messages: Vec<Message>,
}

impl Keep {
    /// Keeps it. A database that fails costs the next turn its memory, not this answer its end.
    async fn put(mut self, stored: StoredResponse) {
        match stored.output_messages() {
            Ok(output) => self.messages.extend(output),
            // Half a turn would be taken for a whole one by whoever continues from it.
            Err(error) => return tracing::error!(%error, "an answer's own items"),
        }
        let written =
            serde_json::to_string(&self.messages).and_then(|messages| Ok((messages, serde_json::to_string(&stored)?)));
        let (messages, body) = match written {
            Ok(written) => written,
            Err(error) => return tracing::error!(%error, "writing an answer to keep"),
        };
        let row = ResponseRow {
            id: self.id,
            kind: KIND,
            parent: self.parent,
            model: self.model,
            created_ms: telemetry::now_ms(),
            messages,
            body,
        };
        if let Err(error) = self.store.put_response(row).await {
            tracing::error!(%error, "keeping an answer");
        }
    }
}
