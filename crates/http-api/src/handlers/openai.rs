//! OpenAI routes: the engine speaks the same dialect, so bytes are passed on as they come.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use config::ReasoningField;
use dialects::engine::Wire;
use dialects::lmstudio_rest::{self, Signature};
use dialects::openai::{
    self, Additions, ChatRules, CompletionPlan, Cut, Edits, Ids, InfillHead, InfillStream, ModelListOptions,
    NamedReasoning, Prompt, ReasoningName, RelayTail, Several, SeveralAnswers, SeveralStream, ShapedStream,
    StreamErrorForm,
};
use dialects::peek::{self, Key, Peeked};
use dialects::{Rendered, engine};
use domain::audio::Task;
use domain::chat::CompletionRequest;
use domain::whisper::{is_any_listener, is_any_speaker};
use domain::{Capability, EngineMode, LaunchOptions, ModelEntry, RunnerError};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;
use models::SpeechName;
use router::{Lease, UpstreamBody};

use super::lease::{EngineCalls, Target, Wish, described, is_jit, lease, not_found, readable_body, require, target};
use super::lmstudio::signature;
use super::ollama::{collect, limits};
use super::responses::random_hex;
use super::{Answer, listed, listed_with_instances, now_ns, view};
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::listener::Flavour;
use crate::relay;
use crate::routes::Dialect;

/// Largest answer that is changed on its way.
const MAX_ANSWER: usize = 256 << 20;

/// `GET /v1/models` and `/models`.
pub(super) fn list_models(cx: &Cx, parts: &Parts) -> Response<Body> {
    let bare = parts.uri.path() == "/models";
    // Bare, it is a list of llama.cpp's on every listener.
    let body = if cx.flavour() == Flavour::LmStudio && !bare {
        lmstudio_rest::openai_models(&listed_with_instances(cx.state()), !cx.settings.lmstudio_port.jit)
    } else {
        let mut models = listed(cx.state());
        // llama.cpp's window offers what is listed there for chats.
        models.retain(|model| !(bare && model.entry.is_speech()));
        openai::models_list(&models, options(cx, bare))
    };
    json(cx.route.dialect, body)
}

/// `GET /v1/models/{id}`.
pub(super) fn one_model(cx: &Cx) -> Answer {
    let entry = described(cx, &cx.id)
        .or_else(|| usual_speech_model(cx))
        .ok_or_else(|| not_found(cx, &cx.id))?;
    Ok(json(
        cx.route.dialect,
        openai::model_one(&view(cx.state(), &entry), &cx.id, options(cx, false)),
    ))
}

/// The model behind one of OpenAI's names for speech (`whisper-1`, `tts-1`): some clients look before they ask.
fn usual_speech_model(cx: &Cx) -> Option<Arc<ModelEntry>> {
    let (name, catalog) = (cx.id.as_str(), cx.state().registry.catalog());
    let found = if is_any_listener(name) {
        catalog.listener(Some(name), Task::Transcribe)
    } else if is_any_speaker(name) {
        catalog.speaker(Some(name))
    } else {
        return None;
    };
    match found {
        SpeechName::Found(entry) => Some(entry),
        SpeechName::Known(_) | SpeechName::NotSpeech(_) | SpeechName::Unknown => None,
    }
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
    /// A completion of text on both sides of a gap.
    Infill,
    Embeddings,
    Rerank,
}

impl Work {
    fn mode(self) -> EngineMode {
        match self {
            Self::Chat | Self::Completion | Self::Infill => EngineMode::Completion,
            Self::Embeddings => EngineMode::Embedding,
            Self::Rerank => EngineMode::Rerank,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Chat => engine::CHAT,
            Self::Completion => "/v1/completions",
            Self::Infill => engine::INFILL,
            Self::Embeddings => engine::EMBEDDINGS,
            Self::Rerank => "/v1/rerank",
        }
    }

    fn check(self, body: &[u8], peeked: &Peeked<'_>, rules: ChatRules) -> Result<Edits, RunnerError> {
        match self {
            Self::Chat => openai::check_chat(peeked, rules),
            Self::Completion => openai::completion_plan(body, peeked)?.relayed(),
            Self::Infill => Ok(Edits::new()),
            Self::Embeddings => {
                let mut edits = openai::check_embeddings(peeked)?;
                edits.extend(Cut::of(peeked)?.and_then(Cut::edit));
                Ok(edits)
            }
            Self::Rerank => openai::check_rerank(peeked),
        }
    }
}

/// `POST /v1/chat/completions`.
pub(super) async fn chat(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    let prepared = prepare(cx, parts, body, Work::Chat, None, true).await?;
    let response = prepared.send(cx).await?;
    let name = reasoning_name(cx, &prepared.target.entry);
    let signature = signature(cx, &prepared.target.entry, Signature::chat);
    let mut answer = match (prepared.several, name) {
        (None, None) if prepared.stream || signature.is_none() => relayed(cx, response).await?,
        (Some(several), name) if prepared.stream => {
            let coder = SeveralStream::new(several, name, error_form(cx));
            relay::translated(response.into_body(), coder, Rendered::SSE).await?
        }
        (None, Some(name)) if prepared.stream => {
            let coder = NamedReasoning::new(name, error_form(cx));
            relay::translated(response.into_body(), coder, Rendered::SSE).await?
        }
        (several, name) => {
            let whole = whole(response, several).await?;
            let mut named = Vec::with_capacity(whole.len() + 64);
            match name {
                Some(name) => openai::name_reasoning(&whole, name, &mut named),
                None => named = whole,
            }
            signed(cx, named, signature.as_ref())?
        }
    };
    prepared.target.mark(&mut answer);
    Ok(answer)
}

/// A whole answer as clients of the port expect it.
fn signed(cx: &Cx, whole: Vec<u8>, signature: Option<&Signature>) -> Answer {
    let body = match signature {
        Some(signature) => lmstudio_rest::sign(&whole, signature)?,
        None => whole,
    };
    Ok(json(cx.route.dialect, body))
}

/// A whole answer; several of them come as a stream, whose counts are added up.
async fn whole(response: Response<UpstreamBody>, several: Option<Several>) -> Result<Vec<u8>, RunnerError> {
    let mut upstream = response.into_body();
    let Some(several) = several else {
        return Ok(upstream.collect_bytes(MAX_ANSWER).await?.to_vec());
    };
    let mut answers = SeveralAnswers::new();
    while !answers.ended() {
        let Some(piece) = relay::next_piece(&mut upstream).await? else {
            break;
        };
        answers.push(&piece);
    }
    answers.finish(several)
}

/// Another name for `reasoning_content`, where clients of the port expect one. Models that do not reason are relayed
/// untouched.
fn reasoning_name(cx: &Cx, entry: &ModelEntry) -> Option<ReasoningName> {
    if !entry.can(Capability::Thinking) {
        return None;
    }
    let is_gpt_oss = || entry.facts.architecture.replace('-', "") == "gptoss";
    match (cx.flavour(), cx.settings.lmstudio_port.reasoning_field) {
        (Flavour::Ollama, _) => Some(ReasoningName::Both),
        (Flavour::LmStudio, ReasoningField::Reasoning) => Some(ReasoningName::Short),
        (Flavour::LmStudio, ReasoningField::Auto) if is_gpt_oss() => Some(ReasoningName::Short),
        _ => None,
    }
}

/// The engine's answer, untouched.
async fn relayed(cx: &Cx, response: Response<UpstreamBody>) -> Answer {
    if relay::is_event_stream(response.headers()) {
        relay::event_stream(response.into_body(), RelayTail::new(), error_form(cx)).await
    } else {
        relay::whole(response).await
    }
}

/// `POST /v1/completions`: relayed, shaped on its way, or through the engine's fill-in route.
pub(super) async fn completions(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    let plan = {
        let peeked = peek::peek(&body)?;
        openai::completion_plan(&body, &peeked)?
    };
    let (edits, shape) = match plan {
        CompletionPlan::Relay(edits) => (edits, None),
        CompletionPlan::Shaped(edits, shape) => (edits, Some(shape)),
        CompletionPlan::Infill(request, shape) => return Box::pin(infill(cx, parts, body, *request, shape)).await,
    };
    let prepared = prepare(cx, parts, body, Work::Completion, Some(edits), true).await?;
    let signature = signature(cx, &prepared.target.entry, Signature::completion);
    let mut answer = match (shape, prepared.several) {
        (None, several) if !prepared.stream && (several.is_some() || signature.is_some()) => {
            let whole = whole(prepared.send(cx).await?, several).await?;
            signed(cx, whole, signature.as_ref())?
        }
        (None, Some(several)) => {
            let coder = SeveralStream::new(several, None, error_form(cx));
            relay::translated(prepared.send(cx).await?.into_body(), coder, Rendered::SSE).await?
        }
        (None, None) => relayed(cx, prepared.send(cx).await?).await?,
        (Some(shape), several) => {
            let calls = EngineCalls::new(cx, &prepared.lease);
            let echo = echoed(&calls, shape.echo.clone().unwrap_or_default()).await?;
            let response = prepared.send(cx).await?;
            if prepared.stream {
                let coder = ShapedStream::new(&shape, echo, error_form(cx));
                relay::translated(response.into_body(), coder, Rendered::SSE).await?
            } else {
                let whole = whole(response, several).await?;
                let shaped = openai::shape_completion(&whole, &shape, echo)?;
                signed(cx, shaped, signature.as_ref())?
            }
        }
    };
    prepared.target.mark(&mut answer);
    Ok(answer)
}

/// The prompts as text.
async fn echoed(calls: &EngineCalls, prompts: Vec<Prompt>) -> Result<Vec<String>, RunnerError> {
    let mut texts = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        texts.push(match prompt {
            Prompt::Text(text) => text,
            Prompt::Tokens(tokens) => calls.detokenize(&tokens).await?,
        });
    }
    Ok(texts)
}

/// A completion with a `suffix`.
async fn infill(
    cx: &Cx,
    parts: &Parts,
    body: Bytes,
    request: CompletionRequest,
    shape: openai::CompletionShape,
) -> Answer {
    let include_usage = peek::peek(&body)?
        .get(peek::Key::StreamOptions)
        .and_then(|options| serde_json::from_slice::<StreamOptions>(options.raw).ok())
        .is_some_and(|options| options.include_usage);
    let prepared = prepare(cx, parts, body, Work::Infill, None, false).await?;
    let calls = EngineCalls::new(cx, &prepared.lease);
    let head = InfillHead {
        id: format!("cmpl-{}", &random_hex()?[..24]),
        model: prepared.target.entry.key.to_string(),
        created: now_ns() / 1_000_000_000,
        echo: echoed(&calls, shape.echo.clone().unwrap_or_default()).await?,
        shape,
        include_usage,
    };
    let body = engine::infill_body(&request, limits(&prepared.lease))?;
    let upstream = calls.send(engine::INFILL, body).await?.into_body();
    let mut answer = if prepared.stream {
        relay::translated(upstream, InfillStream::new(head, error_form(cx)), Rendered::SSE).await?
    } else {
        let whole = head.reply(&collect(upstream, Wire::Completion).await?);
        let signature = signature(cx, &prepared.target.entry, Signature::completion);
        signed(cx, whole, signature.as_ref())?
    };
    prepared.target.mark(&mut answer);
    Ok(answer)
}

#[derive(serde::Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// `POST /v1/embeddings` and its v0 twin.
pub(super) async fn embeddings(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    let cut = Cut::of(&peek::peek(&body)?)?;
    let sent = start(cx, parts, body, Work::Embeddings).await?;
    let mut answer = match cut {
        None => relay::whole(sent.response).await?,
        Some(cut) => {
            let whole = sent.response.into_body().collect_bytes(MAX_ANSWER).await?;
            json(cx.route.dialect, cut.reply(&whole, sent.target.entry.key.as_str())?)
        }
    };
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
        ..
    } = prepare(cx, parts, body.clone(), Work::Rerank, None, false).await?;
    let peeked = peek::peek(&body)?;
    let tei = peeked.get(Key::Documents).is_none() && peeked.get(Key::Texts).is_some();
    let answer = EngineCalls::new(cx, &lease).ask(Work::Rerank.path(), rewritten).await?;
    let answer = if tei {
        answer
    } else {
        openai::rerank_response(&body, &answer)?.into()
    };
    let mut answer = json(cx.route.dialect, answer);
    target.mark(&mut answer);
    Ok(answer)
}

/// LM Studio's clients know its own error event.
pub(super) fn error_form(cx: &Cx) -> StreamErrorForm {
    match cx.route.dialect {
        Dialect::LlamaCpp => StreamErrorForm::LlamaCpp,
        _ if is_jit(cx) => StreamErrorForm::LmStudio,
        _ => StreamErrorForm::OpenAi,
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
    let prepared = prepare(cx, parts, body, work, None, false).await?;
    let since = Instant::now();
    let response = prepared.send(cx).await?;
    let Prepared { target, lease, .. } = prepared;
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
    work: Work,
    body: Bytes,
    /// The client asked for a stream.
    stream: bool,
    /// More than one answer is asked for.
    several: Option<Several>,
}

impl Prepared {
    async fn send(&self, cx: &Cx) -> Result<Response<UpstreamBody>, RunnerError> {
        let calls = EngineCalls::new(cx, &self.lease);
        calls.send(self.work.path(), self.body.clone()).await
    }
}

/// `checked`: the changes to make, when the body was looked at already. `gather`: several answers may come as a stream although
/// the client wants them whole; the handler puts them together.
async fn prepare(
    cx: &Cx,
    parts: &Parts,
    body: Bytes,
    work: Work,
    checked: Option<Edits>,
    gather: bool,
) -> Result<Prepared, RunnerError> {
    let body = if work == Work::Chat {
        readable_body(body).await?
    } else {
        body
    };
    let peeked = peek::peek(&body)?;
    let name = peeked.model()?;
    let stream = peeked.stream()?;
    let target = target(cx, name.as_deref())?;
    let name = name.as_deref().unwrap_or_else(|| target.entry.key.as_str());
    match work {
        Work::Chat => require(&target.entry, name, &[Capability::Chat, Capability::Completion], "chat")?,
        Work::Infill => require(&target.entry, name, &[Capability::Insert], "insert")?,
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
    let rules = if is_jit(cx) {
        ChatRules::LmStudio
    } else {
        ChatRules::OpenAi
    };
    let mut edits = match checked {
        Some(edits) => edits,
        None => work.check(&body, &peeked, rules)?,
    };
    let additions = if matches!(work, Work::Chat | Work::Completion) {
        let profile = &target.entry.profile;
        openai::additions(&peeked, profile, cx.flavour() == Flavour::Ollama, &mut edits)?
    } else {
        Additions::default()
    };
    let wish = Wish {
        launch: LaunchOptions {
            mode: Some(work.mode()),
            ..additions.launch
        },
        keep_alive: peeked.keep_alive()?,
        ttl: peeked.ttl()?,
    };
    let answers = openai::answers(&peeked)?;
    let several = Several::of(&peeked, answers).filter(|_| gather);
    if several.is_some() && !stream {
        edits.extend(Several::edits());
    }
    if stream && work.mode() == EngineMode::Completion {
        cx.will_stream(error_form(cx))?;
    }
    let mut members = additions.members;
    if work == Work::Chat && inline_reasoning(cx) {
        members.extend_from_slice(if members.is_empty() { b"" } else { b"," });
        members.extend_from_slice(b"\"reasoning_format\":\"none\"");
    }
    let mut rewritten = (!edits.is_empty()).then(|| peek::rewrite(&body, &peeked, &edits));
    if !members.is_empty() {
        let so_far = rewritten.as_deref().unwrap_or(&body);
        rewritten = Some(peek::with_defaults(so_far, &peeked, &members));
    }
    let body = rewritten.map_or(body, Bytes::from);
    let lease = lease(cx, parts, &target.entry, wish).await?;
    // Each answer of one request takes a slot of the engine's.
    let parallel = lease.launch().parallel.max(1);
    if answers > parallel && work.mode() == EngineMode::Completion {
        return Err(openai::too_many_answers(parallel));
    }
    Ok(Prepared {
        target,
        lease,
        work,
        body,
        stream,
        several,
    })
}

/// LM Studio's setting that leaves the thoughts in the text (LM Studio contract 4.2).
fn inline_reasoning(cx: &Cx) -> bool {
    cx.flavour() == Flavour::LmStudio && cx.settings.lmstudio_port.reasoning_field == ReasoningField::Inline
}
