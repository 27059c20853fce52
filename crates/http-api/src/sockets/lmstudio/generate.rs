//! Predictions, embeddings, tokens and templates over a socket (LM Studio contract 10.5, 10.6).

use std::sync::Arc;

use bytes::Bytes;
use dialects::engine::{self, Limits, Wire};
use dialects::lmstudio_rest::entry_id;
use dialects::lmstudio_ws::{
    ApplyPromptTemplate, CompleteRawText, Domain, EmbedString, Embedding, FileSource, Formatted, History, InputString,
    Overflow, Predict, PredictStream, Prediction, Stats, TokenCount, Tokens, WireError, drop_for_overflow, input_log,
    load_config, output_log, raw_prompt, success_message,
};
use dialects::ollama;
use domain::chat::{ChatRequest, CompletionRequest, Message, ToolChoice};
use domain::{Capability, ErrorKind, LaunchOptions, ModelEntry, RunnerError};
use router::{Lease, LeaseRequest, UpstreamBody};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::loads::SIGN_OF_LIFE;
use super::work::{Channel, Context, Loaded, Reply, reply};
use crate::handlers::clock;
use crate::handlers::lease::{EngineCalls, Passed, readable};
use crate::relay::next_piece;

/// What is sent to the engine.
enum Body {
    Chat(Box<ChatRequest>),
    Raw(Box<CompletionRequest>),
}

impl Body {
    fn wire(&self) -> (Wire, &'static str) {
        match self {
            Self::Chat(_) => (Wire::Chat, engine::CHAT),
            Self::Raw(_) => (Wire::Completion, engine::COMPLETION),
        }
    }

    fn bytes(&self, limits: Limits) -> Result<Vec<u8>, RunnerError> {
        match self {
            Self::Chat(request) => engine::chat_body(request, limits),
            Self::Raw(request) => engine::completion_body(request, limits),
        }
    }
}

/// `predict`.
pub(super) async fn predict(cx: &Arc<Context>, channel: &Channel, given: Predict) -> Result<(), WireError> {
    preset(given.fuzzy_preset_identifier.as_deref())?;
    let loaded = cx.find(&given.model_specifier, Domain::Llm)?;
    let mut prediction = Prediction::parse(&given.prediction_config_stack)?;
    let messages = messages(cx, given.history, &loaded.entry, false)?;
    let body = if prediction.raw {
        raw(raw_prompt(&messages), &mut prediction)
    } else {
        let mut request = chat(messages, &mut prediction);
        ollama::apply_profile(&loaded.entry.profile, &mut request)?;
        Body::Chat(Box::new(request))
    };
    answer(cx, channel, loaded, prediction, body).await
}

/// `completeRawText`.
pub(super) async fn complete_raw(
    cx: &Arc<Context>,
    channel: &Channel,
    given: CompleteRawText,
) -> Result<(), WireError> {
    preset(given.fuzzy_preset_identifier.as_deref())?;
    let loaded = cx.find(&given.model_specifier, Domain::Llm)?;
    let mut prediction = Prediction::parse(&given.prediction_config_stack)?;
    let body = raw(given.raw_prompt, &mut prediction);
    answer(cx, channel, loaded, prediction, body).await
}

fn preset(asked: Option<&str>) -> Result<(), WireError> {
    asked.map_or(Ok(()), |asked| Err(WireError::no_preset(asked)))
}

fn chat(messages: Vec<Message>, prediction: &mut Prediction) -> ChatRequest {
    ChatRequest {
        messages,
        tools: std::mem::take(&mut prediction.tools),
        tool_choice: std::mem::replace(&mut prediction.tool_choice, ToolChoice::Auto),
        format: std::mem::take(&mut prediction.format),
        sampling: prediction.sampling.clone(),
        thinking: std::mem::take(&mut prediction.thinking),
        logprobs: prediction.logprobs,
        ..ChatRequest::default()
    }
}

fn raw(prompt: String, prediction: &mut Prediction) -> Body {
    Body::Raw(Box::new(CompletionRequest {
        prompt,
        format: std::mem::take(&mut prediction.format),
        sampling: prediction.sampling.clone(),
        logprobs: prediction.logprobs,
        ..CompletionRequest::default()
    }))
}

fn messages(cx: &Context, history: History, entry: &ModelEntry, lenient: bool) -> Result<Vec<Message>, RunnerError> {
    history.into_messages(FileSource {
        find: &|identifier| cx.client.file(identifier),
        vision: entry.can(Capability::Vision),
        lenient,
    })
}

/// How an answer ended before its own end.
enum Broken {
    /// The client cancelled: that is no error.
    Cancelled,
    Failed(WireError),
}

impl<E: Into<WireError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs a prediction from the queue to its statistics.
async fn answer(
    cx: &Arc<Context>,
    channel: &Channel,
    loaded: Loaded,
    prediction: Prediction,
    mut body: Body,
) -> Result<(), WireError> {
    let _busy = cx.begin();
    let log = &cx.state().sdk_log;
    let keep = log.is_read();
    let mut stream = PredictStream::new(channel.id, body.wire().0, &prediction, clock(), keep);
    let mut frames = Vec::new();
    let run = run(cx, channel, &loaded, &prediction, &mut body, &mut stream, &mut frames);
    let stats = match run.await {
        Ok(()) => {
            let stats = stream.finish(&mut frames);
            channel.frames(&mut frames).await;
            stats?
        }
        Err(Broken::Cancelled) => {
            let stats = stream.cancelled(&mut frames);
            channel.frames(&mut frames).await;
            stats
        }
        Err(Broken::Failed(error)) => return Err(error),
    };
    if keep {
        let now = telemetry::now_ms();
        log.publish(output_log(now, stream.text(), &stats, &entry_id(&loaded.entry)));
    }
    success(cx, channel, &loaded, &prediction, &stats).await;
    Ok(())
}

async fn success(cx: &Context, channel: &Channel, loaded: &Loaded, prediction: &Prediction, stats: &Stats) {
    let view = cx.state().router.status(&loaded.view.model).1;
    let view = view.as_ref().unwrap_or(&loaded.view);
    let info = cx.info(&loaded.entry, view, Domain::Llm);
    let load = load_config(&loaded.entry, Domain::Llm, view);
    channel
        .send(&success_message(stats, &info, &load, &prediction.echo))
        .await;
}

/// From the queue to the end of the engine's stream.
async fn run(
    cx: &Arc<Context>,
    channel: &Channel,
    loaded: &Loaded,
    prediction: &Prediction,
    body: &mut Body,
    stream: &mut PredictStream,
    frames: &mut Vec<String>,
) -> Result<(), Broken> {
    let mut alive = interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if let Body::Chat(request) = body {
        **request = readable(std::mem::take(&mut **request)).await?;
    }
    let mut upstream = {
        let opened = open(cx, loaded, prediction, body);
        let mut opened = std::pin::pin!(opened);
        loop {
            tokio::select! {
                biased;
                () = channel.cancel.cancelled() => return Err(Broken::Cancelled),
                upstream = &mut opened => break upstream?,
                _ = alive.tick() => {
                    stream.still_waiting(frames);
                    channel.frames(frames).await;
                }
            }
        }
    };
    loop {
        let piece = tokio::select! {
            biased;
            () = channel.cancel.cancelled() => return Err(Broken::Cancelled),
            piece = next_piece(&mut upstream) => piece?,
            _ = alive.tick() => {
                stream.still_waiting(frames);
                channel.frames(frames).await;
                continue;
            }
        };
        let Some(piece) = piece else { return Ok(()) };
        alive.reset();
        stream.push(&piece, frames);
        let ended = stream.ended();
        if ended {
            // The slot is free before the client has read everything.
            drop(upstream);
            channel.frames(frames).await;
            return Ok(());
        }
        channel.frames(frames).await;
    }
}

/// Gets a slot and sends the prompt, shortened by the client's policy until it fits.
async fn open(
    cx: &Arc<Context>,
    loaded: &Loaded,
    prediction: &Prediction,
    body: &mut Body,
) -> Result<UpstreamBody, RunnerError> {
    let lease = lease(cx, &loaded.entry, "lmstudio sdk chat").await?;
    let limits = Limits {
        context: Some(lease.launch().context),
    };
    let calls = EngineCalls::with(&lease, Passed::default());
    let path = body.wire().1;
    loop {
        let sent = calls.send(path, body.bytes(limits)?).await;
        let error = match sent {
            Ok(response) => {
                log_input(cx, loaded, &calls, body).await;
                return Ok(response.into_body());
            }
            Err(error) => error,
        };
        let (ErrorKind::ContextExceeded { prompt, context }, Body::Chat(request)) = (&error.kind, &mut *body) else {
            return Err(error);
        };
        let dropped = prediction.overflow != Overflow::StopAtLimit
            && drop_for_overflow(request, prediction.overflow, *prompt, *context);
        if !dropped {
            return Err(error);
        }
    }
}

/// Tells readers of the log the prompt as the engine saw it.
async fn log_input(cx: &Context, loaded: &Loaded, calls: &EngineCalls, body: &Body) {
    let log = &cx.state().sdk_log;
    if !log.is_read() {
        return;
    }
    let prompt = match body {
        Body::Raw(request) => request.prompt.clone(),
        Body::Chat(request) => calls.render(request).await.unwrap_or_default(),
    };
    let entry = &loaded.entry;
    log.publish(input_log(
        telemetry::now_ms(),
        &prompt,
        &entry.indexed_path,
        &entry_id(entry),
    ));
}

async fn lease(cx: &Context, entry: &Arc<ModelEntry>, operation: &'static str) -> Result<Lease, RunnerError> {
    let request = LeaseRequest {
        model: Arc::clone(entry),
        // The model is loaded; it is used as it is.
        launch: LaunchOptions::default(),
        keep_alive: None,
        jit: true,
        operation,
        client: cx.name.clone(),
        id: None,
    };
    cx.state().router.lease(request).await
}

/// A way to the engine for a question about it, which all slots being busy does not hinder.
fn look(cx: &Context, loaded: &Loaded) -> Result<EngineCalls, WireError> {
    let lease = cx.state().router.look(loaded.entry.instance_key());
    let lease = lease.ok_or_else(WireError::unloaded)?;
    Ok(EngineCalls::with(&lease, Passed::default()))
}

/// `applyPromptTemplate`.
pub(super) async fn apply_template(cx: &Context, given: ApplyPromptTemplate) -> Reply {
    let loaded = cx.find(&given.specifier, Domain::Llm)?;
    let mut prediction = Prediction::parse(&given.prediction_config_stack)?;
    let messages = messages(cx, given.history, &loaded.entry, true)?;
    let formatted = if prediction.raw {
        raw_prompt(&messages)
    } else {
        let mut request = chat(messages, &mut prediction);
        if !given.opts.tool_definitions.is_empty() {
            request.tools = given.opts.tool_definitions;
        }
        look(cx, &loaded)?.render(&request).await?
    };
    reply(&Formatted { formatted })
}

/// `tokenize`. For an embedding model with the special tokens it is read with (contract 10.4).
pub(super) async fn tokenize(cx: &Context, domain: Domain, given: InputString) -> Reply {
    let loaded = cx.find(&given.specifier, domain)?;
    let special = domain == Domain::Embedding;
    let tokens = look(cx, &loaded)?.tokenize(&given.input_string, special).await?;
    reply(&Tokens { tokens })
}

/// `countTokens`: without special tokens.
pub(super) async fn count_tokens(cx: &Context, domain: Domain, given: InputString) -> Reply {
    let loaded = cx.find(&given.specifier, domain)?;
    let tokens = look(cx, &loaded)?.tokenize(&given.input_string, false).await?;
    reply(&TokenCount {
        token_count: tokens.len(),
    })
}

/// `embedString`.
pub(super) async fn embed(cx: &Arc<Context>, given: EmbedString) -> Reply {
    let loaded = cx.find(&given.model_specifier, Domain::Embedding)?;
    let _busy = cx.begin();
    let lease = lease(cx, &loaded.entry, "lmstudio sdk embed").await?;
    let calls = EngineCalls::with(&lease, Passed::default());
    let body: Bytes = engine::embeddings_body(&[given.input_string], true).into();
    let embeddings = engine::parse_embeddings(&calls.ask(engine::EMBEDDINGS, body).await?)?;
    let vector = embeddings.vectors.into_iter().next().unwrap_or_default();
    if vector.iter().any(|number| !number.is_finite()) {
        return Err(WireError::new(
            "The model made a vector with numbers that are not finite.",
        ));
    }
    reply(&Embedding { embedding: vector })
}
