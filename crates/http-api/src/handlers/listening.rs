//! `/v1/audio/transcriptions` and `/v1/audio/translations` (audio contract 1 to 3): the recording to the disk, its path to the
//! engine, the engine's lines to a document or to events.

use std::sync::Arc;

use bytes::Bytes;
use dialects::audio::{self, Asked, Events, Form, Hearing};
use dialects::{Rendered, Transcoder};
use domain::audio::{Listening, Task};
use domain::chat::Usage;
use domain::whisper::{is_any_listener, is_any_speaker};
use domain::{
    Capability, EngineKind, EngineMode, ErrorKind, KnownWhisper, LaunchOptions, ModelEntry, ModelState, RunnerError,
};
use downloads::{DownloadError, Source};
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;
use models::{KnownSpeech, SpeechName};
use router::UpstreamBody;
use serde::Serialize;

use super::lease::{EngineCalls, MAX_ERROR, Wish, broke_off, lease, not_found};
use super::{Answer, form_relay};
use crate::body::Pieces;
use crate::dispatch::Cx;
use crate::errors::respond;
use crate::relay;
use crate::routes::Operation as Op;
use crate::state::ApiState;
use crate::transcriptions::Transcription;
use crate::uploads::{self, FormRules, Upload};

/// The engine's route.
const TRANSCRIBE: &str = "/transcribe";
/// The part with the recording.
const FILE: &str = "file";
/// Voices to tell speakers apart by, which nothing here does: whole recordings as text.
const IGNORED: [&str; 2] = ["known_speaker_references", "known_speaker_references[]"];

/// Only the end of it counts, and a longer one is no mistake.
const ENDS: [&str; 1] = ["prompt"];

/// A recording that is being worked on, until the last of those who hold it drops it.
pub(super) struct Job {
    pub(super) upload: Upload,
    pub(super) transcription: Transcription,
    /// The fields of the form as they came.
    pub(super) fields: Vec<(String, String)>,
}

/// What the engine is sent.
#[derive(Serialize)]
struct Order<'a> {
    path: &'a str,
    #[serde(flatten)]
    listening: &'a Listening,
    /// Translate even if the model answers in the language it hears.
    force: bool,
}

/// Both operations.
pub(crate) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let (asked, fields, upload) = receive(cx, parts, body).await?;
    if asked.wanted.stream {
        cx.will_stream(audio::Waiting)?;
    }
    let entry = model(cx, &asked).await?;
    let name = asked.model.clone().unwrap_or_else(|| entry.key.to_string());
    let model = entry.instance_key().clone();
    let (task, max_queue) = (asked.listening.task, cx.settings.audio.max_queue);
    let transcription = cx
        .state()
        .transcriptions
        .begin(cx.number(), model, name, task, max_queue)?;
    let job = Arc::new(Job {
        upload,
        transcription,
        fields,
    });
    let answer = hear(cx, parts, &entry, asked, &job).await;
    if let Err(error) = &answer {
        job.transcription.fail(error);
    }
    answer
}

/// Reads and checks the form.
async fn receive(
    cx: &Cx,
    parts: &Parts,
    body: Incoming,
) -> Result<(Asked, Vec<(String, String)>, Upload), RunnerError> {
    let task = match cx.route.operation {
        Op::Translations => Task::Translate,
        _ => Task::Transcribe,
    };
    let boundary = uploads::boundary(&parts.headers)?;
    let state = cx.state();
    let rules = FormRules {
        file: FILE,
        ignored: &IGNORED,
        ends: &ENDS,
        max_file: cx.settings.max_recording(cx.flavour()),
    };
    let mut fields = Vec::new();
    let pieces = Pieces::of(body, state.limits());
    let upload = uploads::receive(&state.uploads, pieces, boundary, &rules, |name, value| {
        fields.push((name.to_owned(), value));
    });
    let Some(upload) = upload.await? else {
        return Err(RunnerError::invalid("'file' is required: send the recording in it.")
            .code("missing_required_parameter")
            .param(FILE));
    };
    if upload.size() == 0 {
        return Err(RunnerError::invalid("The file is empty.")
            .code("empty_file")
            .param(FILE));
    }
    let mut form = Form::default();
    for (name, value) in &fields {
        form.field(name, value.clone());
    }
    let mut asked = form.finish(task)?;
    asked.listening.max_duration_s = cx.settings.audio.max_duration_s;
    Ok((asked, fields, upload))
}

/// The model that is to listen; fetched first if it is a known one that is not there and the settings want that.
async fn model(cx: &Cx, asked: &Asked) -> Result<Arc<ModelEntry>, RunnerError> {
    let (name, task) = (asked.model.as_deref(), asked.listening.task);
    let state = cx.state();
    let shown = name.unwrap_or_else(|| cx.settings.audio.default_model.as_deref().unwrap_or("whisper-1"));
    let refused = |message: String| {
        let mut error = RunnerError::new(ErrorKind::NotCapable, message).param("model");
        error.model = Some(shown.to_owned());
        Err(error.code("model_not_supported"))
    };
    let untranslated = || {
        let catalog = state.registry.catalog();
        let able = catalog.best_listener(Task::Translate);
        let able = able.map_or_else(|| KnownWhisper::first().key(), |able| able.key.to_string());
        refused(format!("The model '{shown}' cannot translate. One that can: '{able}'."))
    };
    let translate = task == Task::Translate && !asked.force;
    let mut meant = state.registry.catalog().listener(name, task);
    if let SpeechName::Known(known) = &meant {
        // Before gigabytes are fetched for nothing.
        if translate && KnownWhisper::named(&known.repository).is_some_and(|known| !known.translates()) {
            return untranslated();
        }
        if cx.settings.audio.auto_download {
            fetch(state, known).await?;
            meant = state.registry.catalog().listener(name, task);
        }
    }
    let entry = match meant {
        SpeechName::Found(entry) => entry,
        SpeechName::NotSpeech(_) => {
            return refused(format!(
                "The model '{shown}' does not listen: it is not a speech-to-text model. GET /v1/audio/models lists those \
                 that do."
            ));
        }
        SpeechName::Known(known) => {
            let mut error = RunnerError::model_not_found(shown).code("model_not_found");
            error.message = format!(
                "The speech-to-text model '{shown}' is not on this machine. Download it: `llama-runner pull {}`.",
                name_to_pull(&known)
            );
            return Err(error);
        }
        SpeechName::Unknown if is_any_speaker(shown) => {
            return refused(format!(
                "The model '{shown}' speaks, it does not listen. Name whisper-1, or leave the model out."
            ));
        }
        SpeechName::Unknown => {
            let mut error = not_found(cx, shown);
            if let Some(set) = &cx.settings.audio.default_model
                && is_any_listener(shown)
            {
                error.message = format!(
                    "The model '{set}', which audio.default_model of the configuration names for '{shown}', was not found."
                );
            }
            return Err(error);
        }
    };
    if translate && !entry.can(Capability::Translation) {
        return untranslated();
    }
    Ok(entry)
}

/// What `llama-runner pull` calls it.
fn name_to_pull(known: &KnownSpeech) -> String {
    match KnownWhisper::named(&known.repository) {
        Some(_) => known.key.clone(),
        None => format!("hf.co/{}", known.repository),
    }
}

/// Downloads a model, or waits for the download under way.
async fn fetch(state: &ApiState, known: &KnownSpeech) -> Result<(), RunnerError> {
    let repository = known.repository.as_str();
    tracing::info!(repository, "fetching the speech-to-text model that a request names");
    let source = Source::Whisper {
        repo: repository.to_owned(),
    };
    let fetched = match state.downloads.pull(source).await {
        Ok(job) => job.wait().await,
        Err(error) => Err(error),
    };
    match fetched {
        Ok(_) => Ok(()),
        Err(DownloadError::NotFound(_)) => Err(RunnerError::model_not_found(repository).code("model_not_found")),
        // For the client the model is just not there: asking again at once would not help.
        Err(error @ (DownloadError::Network(_) | DownloadError::Origin(_) | DownloadError::Unauthorized(_))) => {
            let mut absent = RunnerError::model_not_found(repository).code("model_not_found");
            absent.message = format!(
                "The speech-to-text model '{repository}' is not on this machine and could not be downloaded: {error} Try \
                 again later, or `llama-runner pull {}`.",
                name_to_pull(known)
            );
            Err(absent)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gets an engine and has it listen; an engine that breaks off before anything was sent is followed by a second one (audio
/// contract 6).
async fn hear(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>, asked: Asked, job: &Arc<Job>) -> Answer {
    let path = job.upload.path().to_str();
    let order = Order {
        path: path.ok_or_else(|| RunnerError::internal("The folder of the uploads has a name that is no text."))?,
        listening: &asked.listening,
        force: asked.force,
    };
    let order = serde_json::to_vec(&order).map_err(|_| RunnerError::internal("The request could not be written."))?;
    let order = Bytes::from(order);
    let mode = match entry.engine {
        // A model that chats about sounds.
        EngineKind::LlamaServer => EngineMode::Completion,
        EngineKind::FasterWhisper | EngineKind::Speech | EngineKind::Custom => EngineMode::Transcription,
    };
    let mut first = true;
    loop {
        let wish = Wish {
            launch: LaunchOptions {
                mode: Some(mode),
                ..LaunchOptions::default()
            },
            ..Wish::default()
        };
        let lease = lease(cx, parts, entry, wish).await;
        let lease = lease.map_err(|error| not_started(cx, entry, error))?;
        job.transcription.running();
        let calls = EngineCalls::new(cx, &lease);
        drop(lease);
        let answer = if entry.engine == EngineKind::FasterWhisper {
            listen(&calls, order.clone(), &asked, job).await
        } else {
            form_relay::pass_on(cx, &calls, entry, job).await
        };
        match answer {
            Err(error) if first && broke_off(&error) => {
                tracing::warn!(model = %entry.key, reason = error.message, "the engine broke off: the recording is given to another");
                job.transcription.queued();
                first = false;
            }
            answer => return answer,
        }
    }
}

/// A wait in vain for a model that does not run is no full queue (audio contract 6).
fn not_started(cx: &Cx, entry: &ModelEntry, error: RunnerError) -> RunnerError {
    let busy = matches!(error.kind, ErrorKind::Overloaded { .. });
    if busy && cx.state().router.state(entry) != ModelState::Ready {
        return error.code("engine_starting");
    }
    error
}

/// One engine's answer.
async fn listen(calls: &EngineCalls, order: Bytes, asked: &Asked, job: &Arc<Job>) -> Answer {
    let response = calls.relay(Method::POST, TRANSCRIBE, order).await?;
    let status = response.status();
    let upstream = response.into_body();
    if !status.is_success() {
        return Err(audio::refusal(
            status.as_u16(),
            &upstream.collect_bytes(MAX_ERROR).await?,
        ));
    }
    if asked.wanted.stream {
        let coder = Followed {
            events: Events::new(asked.clone()),
            job: Arc::clone(job),
        };
        return relay::translated(upstream, coder, Rendered::SSE).await;
    }
    let hearing = whole(upstream, job).await?;
    Ok(respond(audio::document(asked, &hearing)))
}

/// Everything the engine says.
async fn whole(mut upstream: UpstreamBody, job: &Job) -> Result<Hearing, RunnerError> {
    let mut hearing = Hearing::default();
    while let Some(piece) = relay::next_piece(&mut upstream).await? {
        hearing.push(&piece, |_, _| {});
        job.transcription.heard(&hearing);
        if hearing.is_over() {
            break;
        }
    }
    hearing.finish()?;
    job.transcription.end(&hearing);
    Ok(hearing)
}

/// Events whose progress the window sees. Holds the recording: it goes when the stream is over.
struct Followed {
    events: Events,
    job: Arc<Job>,
}

impl Transcoder for Followed {
    fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.events.push(chunk, out);
        self.job.transcription.heard(self.events.hearing());
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.events.finish(out);
        self.job.transcription.end(self.events.hearing());
    }

    fn fail(&mut self, error: &RunnerError, out: &mut Vec<u8>) {
        self.events.fail(error, out);
        self.job.transcription.fail(error);
    }

    fn ended(&self) -> bool {
        self.events.ended()
    }

    fn error(&self) -> Option<&RunnerError> {
        self.events.error()
    }

    fn usage(&self) -> Option<&Usage> {
        self.events.usage()
    }
}
