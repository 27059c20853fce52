//! `/v1/audio/speech`, `/v1/audio/voices`, `/v1/audio/models` (audio contract 4).

use std::sync::Arc;

use bytes::Bytes;
use dialects::audio::{self, ModelVoices, SpeechForm, SpeechRequest, SpeechStream};
use dialects::{Rendered, engine, peek};
use domain::whisper::{is_any_listener, is_any_speaker};
use domain::{
    Capability, EngineKind, EngineMode, ErrorKind, KnownWhisper, LaunchOptions, ModelEntry, RunnerError, VoicePack,
};
use engines::speech::SpeechState;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use hyper::body::Incoming;
use models::SpeechName;
use router::{Lease, UpstreamBody};
use serde_json::{Value, json as value};

use super::lease::{EngineCalls, MAX_ERROR, Wish, broke_off, lease, lease_beside, not_found};
use super::{Answer, listed, openai, query};
use crate::dispatch::Cx;
use crate::errors::json;
use crate::relay;
use crate::routes::Operation as Op;

/// Where our speech program speaks.
const SPEAK: &str = "/speak";
/// Where it says which voices it has.
const VOICES: &str = "/voices";
/// Largest list of voices that is read: espeak-ng has some hundreds.
const MAX_VOICES: usize = 4 << 20;

/// The operations of this family.
pub(crate) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::Speech => speech(cx, parts, body).await,
        Op::Voices => voices(cx, parts).await,
        Op::AudioModels => {
            let ids = openai::options(cx, false).ids;
            Ok(json(cx.route.dialect, audio::audio_models(&listed(cx.state()), ids)))
        }
        Op::VoicePacks => packs(cx, parts).await,
        other => Err(RunnerError::internal(format!("{other:?} is no operation on voices."))),
    }
}

/// `POST /v1/audio/speech`.
async fn speech(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    let body = cx.collect(body).await?;
    let peeked = peek::peek(&body)?;
    let name = peeked.model()?;
    let entry = speaker(cx, name.as_deref());
    if let Ok(entry) = &entry
        && entry.engine == EngineKind::Custom
    {
        let body = peek::rewrite_model(&body, &peeked, own_name(entry));
        let work = Work::Passed(body.into());
        return once_more(cx, parts, entry, &work).await;
    }
    let request = SpeechRequest::parse(&body)?;
    let entry = entry?;
    if request.events {
        cx.will_stream(SpeechForm)?;
    }
    let asked = serde_json::to_vec(&request.speaking())
        .map_err(|_| RunnerError::internal("The text could not be passed on."))?;
    let asked = asked.into();
    once_more(cx, parts, &entry, &Work::Spoken { request, asked }).await
}

/// The model that is to speak.
fn speaker(cx: &Cx, name: Option<&str>) -> Result<Arc<ModelEntry>, RunnerError> {
    let name = name.map(str::trim).filter(|name| !name.is_empty());
    match cx.state().registry.catalog().speaker(name) {
        SpeechName::Found(entry) => Ok(entry),
        SpeechName::NotSpeech(entry) => {
            let name = name.unwrap_or_else(|| entry.key.as_str());
            let message = format!(
                "The model '{name}' does not speak: it is not a text-to-speech model. GET /v1/audio/models lists those that do."
            );
            let mut error = RunnerError::new(ErrorKind::NotCapable, message).param("model");
            error.model = Some(name.to_owned());
            Err(error.code("model_not_supported"))
        }
        SpeechName::Known(_) | SpeechName::Unknown => Err(match name {
            Some(name) if !is_any_speaker(name) => unknown(cx, name),
            _ => RunnerError::new(
                ErrorKind::EngineFailed,
                "There is no voice engine on this machine. Install espeak-ng, or run `llama-runner engine voices` to see \
                 which others there are.",
            )
            .code("engine_not_installed"),
        }),
    }
}

/// The 404 for a name; for an engine that is not installed, with how to get it.
fn unknown(cx: &Cx, name: &str) -> RunnerError {
    if is_any_listener(name) || KnownWhisper::named(name).is_some() {
        let message = format!("The model '{name}' listens, it does not speak. Name tts-1, or leave the model out.");
        let error = RunnerError::new(ErrorKind::NotCapable, message).param("model");
        return error.code("model_not_supported");
    }
    let mut error = not_found(cx, name);
    if let Some(engine) = VoicePack::named(name) {
        let engine = engine.key();
        error.message =
            format!("The voices of {engine} are not installed. Run `llama-runner engine voices install {engine}`.");
    }
    error
}

/// A custom engine's own name of a model.
pub(super) fn own_name(entry: &ModelEntry) -> &str {
    entry.facts.name.as_deref().unwrap_or_else(|| entry.key.as_str())
}

/// What the engine is sent.
enum Work {
    /// The client's own JSON, for an engine that speaks OpenAI's API.
    Passed(Bytes),
    /// [`domain::audio::Speaking`] as JSON, for our speech program.
    Spoken { request: SpeechRequest, asked: Bytes },
}

/// Lets the engine speak; once more if it dies before the first sound, which the client has not noticed then (audio
/// contract 6).
async fn once_more(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>, work: &Work) -> Answer {
    let mut first = true;
    loop {
        let lease = lease(cx, parts, entry, wish()).await?;
        let calls = EngineCalls::new(cx, &lease);
        drop(lease);
        match speak(cx, &calls, entry, work).await {
            Err(error) if first && broke_off(&error) => {
                tracing::warn!(model = %entry.key, reason = error.message, "the voice engine broke off before the first sound; trying once more");
                first = false;
            }
            answer => return answer,
        }
    }
}

/// One engine's answer.
async fn speak(cx: &Cx, calls: &EngineCalls, entry: &ModelEntry, work: &Work) -> Answer {
    let (path, body) = match work {
        Work::Passed(body) => (cx.route.path, body),
        Work::Spoken { asked, .. } => (SPEAK, asked),
    };
    let response = calls.relay(Method::POST, path, body.clone()).await?;
    let response = checked(response, entry).await?;
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let upstream = response.into_body();
    let content_type = match work {
        Work::Spoken { request, .. } if request.events => {
            return relay::translated(upstream, SpeechStream::new(request), Rendered::SSE).await;
        }
        Work::Spoken { request, .. } => HeaderValue::from_static(request.format.content_type()),
        Work::Passed(_) => {
            let unknown = || HeaderValue::from_static("application/octet-stream");
            content_type.unwrap_or_else(unknown)
        }
    };
    relay::sound(upstream, content_type).await
}

/// An error status becomes an error in the words of the engine.
async fn checked(response: Response<UpstreamBody>, entry: &ModelEntry) -> Result<Response<UpstreamBody>, RunnerError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.into_body().collect_bytes(MAX_ERROR).await?;
    Err(if entry.engine == EngineKind::Custom {
        engine::error_from_response(status.as_u16(), &text)
    } else {
        audio::refusal(status.as_u16(), &text)
    })
}

fn wish() -> Wish {
    Wish {
        launch: LaunchOptions {
            mode: Some(EngineMode::Speech),
            ..LaunchOptions::default()
        },
        ..Wish::default()
    }
}

/// `GET /v1/audio/voices`: of the named model, else of all that speak. Engines that are not running are started, since only
/// they know; of several, those that cannot be started are left out. Only who names a model has something installed for it:
/// of all of them, one that is not installed is listed with the names that every engine knows.
async fn voices(cx: &Cx, parts: &Parts) -> Answer {
    let name = query(parts, "model").filter(|name| !name.trim().is_empty());
    let lists = if let Some(name) = name {
        let entry = speaker(cx, Some(&name))?;
        vec![voices_of(cx, parts, &entry).await?]
    } else {
        let catalog = cx.state().registry.catalog();
        let speaking: Vec<_> = catalog.listed().filter(|entry| entry.can(Capability::Speech)).collect();
        let mut lists = Vec::with_capacity(speaking.len());
        let mut failure = None;
        let installed = cx.state().engines.speech_info(false).await.state == SpeechState::Ready;
        for entry in speaking {
            if entry.engine == EngineKind::Speech && !installed {
                lists.push(ModelVoices {
                    model: entry.key.to_string(),
                    voices: audio::usual_voices(),
                });
                continue;
            }
            match voices_of(cx, parts, entry).await {
                Ok(list) => lists.push(list),
                Err(error) => {
                    tracing::warn!(model = %entry.key, reason = error.message, "a voice engine does not say which voices it has");
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if lists.is_empty() => return Err(error),
            _ => lists,
        }
    };
    Ok(json(cx.route.dialect, audio::voices(&lists)))
}

async fn voices_of(cx: &Cx, parts: &Parts, entry: &Arc<ModelEntry>) -> Result<ModelVoices, RunnerError> {
    let lease = lease_beside(cx, parts, entry, wish()).await?;
    let custom = entry.engine == EngineKind::Custom;
    let path = if custom { cx.route.path } else { VOICES };
    let body = ask(cx, &lease, path, entry).await;
    Ok(ModelVoices {
        model: entry.key.to_string(),
        voices: match body {
            Ok(body) => audio::read_voices(&body),
            // OpenAI's API has no such route; who cannot be asked at all is another matter.
            Err(error) if custom && !broke_off(&error) => Vec::new(),
            Err(error) => return Err(error),
        },
    })
}

async fn ask(cx: &Cx, lease: &Lease, path: &str, entry: &ModelEntry) -> Result<Bytes, RunnerError> {
    let calls = EngineCalls::new(cx, lease);
    let response = calls.relay(Method::GET, path, Bytes::new()).await?;
    let response = checked(response, entry).await?;
    response.into_body().collect_bytes(MAX_VOICES).await
}

/// `GET /v1/audio/packs`: the voice engines that are installed on request. With `name` (`kokoro`, `piper/<voice>`): what
/// would be downloaded, and what its maker says about it, for somebody to agree to.
async fn packs(cx: &Cx, parts: &Parts) -> Answer {
    let catalog = cx.state().registry.catalog();
    let installed = |pack: VoicePack| {
        catalog
            .listed()
            .any(|entry| entry.engine == EngineKind::Speech && entry.facts.architecture == pack.key())
    };
    let facts = |pack: VoicePack| {
        value!({
            "name": pack.key(),
            "display_name": pack.display_name(),
            "description": pack.description(),
            "licence": pack.licence(),
            "repository": pack.repository(),
            "usual_voice": pack.usual_voice(),
            "installed": installed(pack),
        })
    };
    let Some(name) = query(parts, "name") else {
        let packs: Vec<Value> = VoicePack::ALL.into_iter().map(facts).collect();
        return Ok(json(cx.route.dialect, value!({ "packs": packs }).to_string()));
    };
    let offer = downloads::sources::voices::offer(&cx.state().downloads.origin(), &name).await?;
    let key = name.split('/').next().unwrap_or_default();
    let mut pack = VoicePack::named(key).map(facts).unwrap_or_default();
    pack["bytes"] = offer.bytes.into();
    pack["card"] = offer.card.into();
    pack["downloaded"] = offer.is_present.into();
    Ok(json(cx.route.dialect, pack.to_string()))
}
