//! `/v1/audio/transcriptions` and `/v1/audio/translations` (audio contract 1 to 3): the recording to the disk, its path to the
//! engine, the engine's lines to a document or to events.

use std::sync::Arc;

use bytes::Bytes;
use dialects::audio::{self, Asked, Events, Form, Hearing};
use dialects::{Rendered, Transcoder};
use domain::audio::{Listening, Task};
use domain::chat::Usage;
use domain::{Capability, EngineMode, ErrorKind, LaunchOptions, ModelEntry, RunnerError};
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;
use router::UpstreamBody;
use serde::Serialize;

use super::Answer;
use super::lease::{EngineCalls, MAX_ERROR, Wish, lease, not_found};
use crate::body::Pieces;
use crate::dispatch::Cx;
use crate::errors::respond;
use crate::relay;
use crate::routes::Operation as Op;
use crate::transcriptions::Transcription;
use crate::uploads::{self, FormRules, Upload};

/// The engine's route.
const TRANSCRIBE: &str = "/transcribe";
/// The part with the recording.
const FILE: &str = "file";
/// Voices to tell speakers apart by, which nothing here does: whole recordings as text.
const IGNORED: [&str; 2] = ["known_speaker_references", "known_speaker_references[]"];

/// A recording that is being worked on, until the last of those who hold it drops it.
struct Job {
    upload: Upload,
    transcription: Transcription,
}

/// What the engine is sent.
#[derive(Serialize)]
struct Order<'a> {
    path: &'a str,
    #[serde(flatten)]
    listening: &'a Listening,
}

/// Both operations.
pub(crate) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let (asked, upload) = receive(cx, parts, body).await?;
    let entry = model(cx, &asked)?;
    if asked.wanted.stream {
        cx.will_stream(audio::Waiting)?;
    }
    let name = asked.model.clone().unwrap_or_else(|| entry.key.to_string());
    let model = entry.instance_key().clone();
    let (task, max_queue) = (asked.listening.task, cx.settings.audio.max_queue);
    let transcription = cx
        .state()
        .transcriptions
        .begin(cx.number(), model, name, task, max_queue)?;
    let job = Arc::new(Job { upload, transcription });
    let answer = hear(cx, parts, &entry, asked, &job).await;
    if let Err(error) = &answer {
        job.transcription.fail(error);
    }
    answer
}

/// Reads and checks the form.
async fn receive(cx: &Cx, parts: &Parts, body: Incoming) -> Result<(Asked, Upload), RunnerError> {
    let task = match cx.route.operation {
        Op::Translations => Task::Translate,
        _ => Task::Transcribe,
    };
    let boundary = uploads::boundary(&parts.headers)?;
    let state = cx.state();
    let rules = FormRules {
        file: FILE,
        ignored: &IGNORED,
        max_file: cx.settings.max_recording(cx.flavour()),
    };
    let mut form = Form::default();
    let pieces = Pieces::of(body, state.limits());
    let upload = uploads::receive(&state.uploads, pieces, boundary, &rules, |name, value| {
        form.field(name, value);
    });
    let Some(upload) = upload.await? else {
        return Err(RunnerError::invalid("'file' is required: send the recording in it.")
            .code("missing_required_parameter")
            .param(FILE));
    };
    if upload.is_empty() {
        return Err(RunnerError::invalid("The file is empty.")
            .code("empty_file")
            .param(FILE));
    }
    let mut asked = form.finish(task)?;
    asked.listening.max_duration_s = cx.settings.audio.max_duration_s;
    Ok((asked, upload))
}

/// The model that is to listen.
fn model(cx: &Cx, asked: &Asked) -> Result<Arc<ModelEntry>, RunnerError> {
    let name = asked.model.as_deref().or(cx.settings.audio.default_model.as_deref());
    let name = name.unwrap_or("whisper-1");
    let entry = cx.state().resolve(name).ok_or_else(|| not_found(cx, name))?;
    let refused = |message: String| Err(RunnerError::new(ErrorKind::NotCapable, message).param("model"));
    if !entry.can(Capability::Transcription) {
        return refused(format!("'{name}' is not a speech-to-text model."));
    }
    if asked.listening.task == Task::Translate && !entry.can(Capability::Translation) && !asked.force {
        let catalog = cx.state().registry.catalog();
        let able = catalog.listed().find(|other| other.can(Capability::Translation));
        let able = able.map_or_else(|| "whisper-base".to_owned(), |able| able.key.to_string());
        return refused(format!(
            "'{name}' cannot translate: use a model that can, such as '{able}'."
        ));
    }
    Ok(entry)
}

/// Gets an engine and has it listen; an engine that breaks off before anything was sent is followed by a second one (audio
/// contract 6).
async fn hear(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>, asked: Asked, job: &Arc<Job>) -> Answer {
    let path = job.upload.path().to_str();
    let order = Order {
        path: path.ok_or_else(|| RunnerError::internal("The folder of the uploads has a name that is no text."))?,
        listening: &asked.listening,
    };
    let order = serde_json::to_vec(&order).map_err(|_| RunnerError::internal("The request could not be written."))?;
    let order = Bytes::from(order);
    let mut first = true;
    loop {
        let wish = Wish {
            launch: LaunchOptions {
                mode: Some(EngineMode::Transcription),
                ..LaunchOptions::default()
            },
            ..Wish::default()
        };
        let lease = lease(cx, parts, entry, wish).await?;
        job.transcription.running();
        let calls = EngineCalls::new(cx, &lease);
        drop(lease);
        match listen(&calls, order.clone(), &asked, job).await {
            Err(error) if first && broke_off(&error) => {
                tracing::warn!(model = %entry.key, reason = error.message, "the engine broke off: the recording is given to another");
                job.transcription.queued();
                first = false;
            }
            answer => return answer,
        }
    }
}

/// Did the engine end, rather than say what is wrong?
fn broke_off(error: &RunnerError) -> bool {
    error.kind == ErrorKind::EngineFailed && error.code.is_none()
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
