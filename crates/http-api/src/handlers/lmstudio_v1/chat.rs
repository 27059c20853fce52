//! `POST /api/v1/chat`: conversations that are kept here (contract 7.5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use dialects::lmstudio_rest::entry_id;
use dialects::lmstudio_rest::v1::{ChatCall, ChatForm, ChatResult, ChatStream};
use dialects::{Rendered, engine, ollama};
use domain::chat::ChatRequest;
use domain::{Capability, EventKind, ModelEntry, ModelState, RunnerError};
use futures_util::future::BoxFuture;
use http::request::Parts;
use hyper::body::Incoming;
use router::{Lease, LeaseRequest, UpstreamBody};
use store::{ResponseKind, ResponseRow};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use crate::dispatch::Cx;
use crate::errors::json;
use crate::handlers::Answer;
use crate::handlers::lease::{
    EngineCalls, Passed, Target, Wish, granted, lease_request, load_failed, readable, require, target,
};
use crate::handlers::ollama::{images as count_images, limits};
use crate::handlers::responses::{earlier, random_hex};
use crate::relay::{next_piece, streamed};
use crate::state::ApiState;
use crate::written::{Writer, written};

/// How long the answer of a loaded model is waited for before the stream opens: a failure until then is a status.
const OPEN_AFTER: Duration = Duration::from_secs(2);

/// Everything a chat needs once it is checked; it outlives its handler when it is streamed.
struct Chat {
    state: Arc<ApiState>,
    entry: Arc<ModelEntry>,
    call: ChatCall,
}

pub(super) async fn chat(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let call = ChatCall::parse(&cx.collect(body).await?)?;
    let target = target(cx, Some(&call.model))?;
    let entry = Arc::clone(&target.entry);
    if call.stream {
        cx.will_stream(ChatForm::new(entry_id(&entry)))?;
    }
    require(&entry, &call.model, &[Capability::Chat, Capability::Completion], "chat")?;
    let before = earlier(&cx.state().store, ResponseKind::LmStudio, call.previous.as_deref()).await?;
    let mut request = call.request(&entry, before)?;
    ollama::apply_profile(&entry.profile, &mut request)?;
    if count_images(&request) > 0 {
        require(&entry, &call.model, &[Capability::Vision], "image input")?;
    }
    let request = readable(request).await?;
    let status = cx.state().router.state(&entry);
    let is_loaded = matches!(status, ModelState::Ready);
    let wish = Wish {
        launch: call.launch(!matches!(status, ModelState::Unloaded | ModelState::Failed(_))),
        ..Wish::default()
    };
    let lease = lease_request(cx, parts, &entry, wish)?;
    let (leased, has_lease) = oneshot::channel();
    let begun = Box::pin(begin(Arc::clone(cx.state()), lease, request, Passed::of(cx), leased));
    let chat = Chat {
        state: Arc::clone(cx.state()),
        entry,
        call,
    };
    if chat.call.stream {
        chat.stream(cx, &target, begun, has_lease, is_loaded).await
    } else {
        let running = begun.await?;
        running.note(cx);
        let mut answer = json(cx.route.dialect, chat.whole(running).await?.render());
        target.mark(&mut answer);
        Ok(answer)
    }
}

/// An engine at work.
struct Running {
    /// Present until the answer is read.
    lease: Option<Lease>,
    calls: EngineCalls,
    answer: UpstreamBody,
    sent: Instant,
    load_time: Duration,
}

impl Running {
    /// For the head of the answer.
    fn note(&self, cx: &Cx) {
        if let Some(lease) = &self.lease {
            let _ = cx.granted.set(granted(lease));
        }
    }
}

type Begun = BoxFuture<'static, Result<Running, RunnerError>>;

/// Lease and request; `leased` hears how long the load took, before the engine has answered.
async fn begin(
    state: Arc<ApiState>,
    lease: LeaseRequest,
    request: ChatRequest,
    passed: Passed,
    leased: oneshot::Sender<Duration>,
) -> Result<Running, RunnerError> {
    let entry = Arc::clone(&lease.model);
    let lease = state
        .router
        .lease(lease)
        .await
        .map_err(|error| load_failed(&state, &entry, error))?;
    let load_time = lease.load_time();
    // Nobody listens where the answer is not streamed.
    let _ = leased.send(load_time);
    let body = engine::chat_body(&request, limits(&lease))?;
    let calls = EngineCalls::with(&lease, passed);
    let sent = Instant::now();
    let answer = calls.send(engine::CHAT, body).await?.into_body();
    Ok(Running {
        lease: Some(lease),
        calls,
        answer,
        sent,
        load_time,
    })
}

impl Chat {
    fn events(&self) -> ChatStream {
        ChatStream::new(entry_id(&self.entry))
    }

    /// The answer in one piece.
    async fn whole(&self, mut running: Running) -> Result<ChatResult, RunnerError> {
        let mut events = self.events();
        let mut unused = Vec::new();
        let mut first = None;
        while let Some(piece) = next_piece(&mut running.answer).await? {
            events.push(&piece, &mut unused);
            unused.clear();
            first = first.or_else(|| events.has_output().then(|| running.sent.elapsed()));
            if events.ended() {
                break;
            }
        }
        events.finish(&mut unused);
        match events.error() {
            Some(error) => Err(error.clone()),
            None => Ok(self.settle(&events, running, first).await),
        }
    }

    /// The answer as events. Failures before the first of them are plain errors.
    async fn stream(
        self,
        cx: &Cx,
        target: &Target,
        mut begun: Begun,
        has_lease: oneshot::Receiver<Duration>,
        is_loaded: bool,
    ) -> Answer {
        let mut ready = None;
        if is_loaded && let Ok(running) = tokio::time::timeout(OPEN_AFTER, &mut begun).await {
            let running = running?;
            running.note(cx);
            ready = Some(running);
        }
        let body = written(|writer| async move {
            let mut events = self.events();
            let mut out = Vec::new();
            events.start(&mut out);
            writer.send(&mut out);
            let result = match ready {
                Some(running) => {
                    events.prompt_start(&mut out);
                    writer.send(&mut out);
                    self.tell(&mut events, running, &writer).await
                }
                None => match self.wait(&mut events, begun, has_lease, is_loaded, &writer).await {
                    Ok(running) => self.tell(&mut events, running, &writer).await,
                    Err(error) => {
                        events.fail(error, &mut out);
                        events.result()
                    }
                },
            };
            events.end(&result, &mut out);
            writer.send(&mut out);
        });
        let mut answer = streamed(Rendered::SSE, body);
        target.mark(&mut answer);
        Ok(answer)
    }

    /// Tells of the load, then that the engine has the request, until it answers.
    async fn wait(
        &self,
        events: &mut ChatStream,
        mut begun: Begun,
        mut has_lease: oneshot::Receiver<Duration>,
        is_loaded: bool,
        writer: &Writer,
    ) -> Result<Running, RunnerError> {
        let mut out = Vec::new();
        let mut news = self.state.bus.subscribe();
        if !is_loaded {
            events.load_start(&mut out);
            writer.send(&mut out);
        }
        let mut told = 0.0;
        let load_time = loop {
            tokio::select! {
                biased;
                load_time = &mut has_lease => break load_time,
                // It ends before the lease only with an error.
                ended = &mut begun => return ended,
                event = news.recv() => match event {
                    Ok(event) => {
                        if let EventKind::Instance { instance } = &event.kind
                            && instance.model == *self.entry.instance_key()
                            && let ModelState::Loading { progress } = instance.state
                            && progress > told
                            && !is_loaded
                        {
                            told = progress;
                            events.load_progress(progress, &mut out);
                            writer.send(&mut out);
                        }
                    }
                    // The bus lives as long as the server.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => {}
                },
            }
        };
        if !is_loaded {
            events.load_end(load_time.unwrap_or_default(), &mut out);
        }
        events.prompt_start(&mut out);
        writer.send(&mut out);
        begun.await
    }

    /// Passes the answer on; what `chat.end` says.
    async fn tell(&self, events: &mut ChatStream, mut running: Running, writer: &Writer) -> ChatResult {
        let mut out = Vec::new();
        let mut first = None;
        loop {
            match next_piece(&mut running.answer).await {
                Ok(Some(piece)) => {
                    events.push(&piece, &mut out);
                    first = first.or_else(|| events.has_output().then(|| running.sent.elapsed()));
                    writer.send(&mut out);
                    if events.ended() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    events.fail(error, &mut out);
                    writer.send(&mut out);
                    return events.result();
                }
            }
        }
        events.finish(&mut out);
        writer.send(&mut out);
        self.settle(events, running, first).await
    }

    /// Frees the engine, keeps the answer and fills in what the stream does not know.
    async fn settle(&self, events: &ChatStream, mut running: Running, first: Option<Duration>) -> ChatResult {
        let mut result = events.result();
        let reasoning = events.reasoning();
        if !reasoning.is_empty() {
            // The engine counts all tokens in one.
            let tokens = running.calls.tokenize(&reasoning, false).await;
            result.reasoning_tokens = tokens.map_or(0, |tokens| tokens.len() as u64);
        }
        result.first_token = first.unwrap_or_else(|| running.sent.elapsed());
        result.load_time = Some(running.load_time).filter(|time| !time.is_zero());
        running.lease = None;
        drop(running);
        if self.call.store && events.error().is_none() {
            result.response_id = self.keep(&result).await;
        }
        result
    }

    /// The id under which the answer is kept.
    async fn keep(&self, result: &ChatResult) -> Option<String> {
        let id = format!("resp_{}", random_hex().ok()?);
        let row = ResponseRow {
            id: id.clone(),
            kind: ResponseKind::LmStudio,
            parent: self.call.previous.clone(),
            model: self.entry.key.to_string(),
            created_ms: telemetry::now_ms(),
            messages: serde_json::to_string(&self.call.stored_turn(&result.output)).ok()?,
            body: String::from_utf8(result.render()).ok()?,
        };
        match self.state.store.put_response(row).await {
            Ok(()) => Some(id),
            Err(error) => {
                tracing::error!(%error, "the answer could not be stored, so it cannot be continued");
                None
            }
        }
    }
}
