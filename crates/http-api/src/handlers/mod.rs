//! One function per operation of the route table.

mod anthropic;
mod downloads;
mod form_relay;
pub(crate) mod lease;
mod listening;
mod llamacpp;
mod llamarunner;
mod lmstudio;
mod lmstudio_v1;
mod model_events;
mod ollama;
mod ollama_create;
mod ollama_generate;
mod ollama_store;
mod openai;
mod responses;
mod speaking;
mod state;
mod ui;

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use dialects::{Clock, ModelView};
use domain::{ModelEntry, RunnerError};
use http::Response;
use http::request::Parts;
use hyper::body::Incoming;

use crate::body::Body;
use crate::dispatch::Cx;
use crate::routes::Operation as Op;
use crate::sockets;
use crate::state::ApiState;

pub(crate) type Answer = Result<Response<Body>, RunnerError>;

/// Runs the handler of the request's operation. Handlers are boxed: one allocation instead of the largest future of all
/// in every connection.
pub(crate) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::Root => Ok(ui::root(cx, parts)),
        Op::Ui => ui::file(cx, parts),
        Op::OpenApi => Ok(ui::openapi(cx)),
        Op::Health => Ok(llamarunner::health(cx, parts)),
        Op::OllamaVersion => Ok(ollama::version(cx)),
        Op::OllamaStatus => Ok(ollama::status()),
        Op::OllamaTags => Ok(ollama::tags(cx)),
        Op::OllamaPs => Ok(ollama::ps(cx)),
        Op::OllamaMe => Ok(ollama::me()),
        Op::OllamaWebSearch => Box::pin(ollama::no_cloud(cx, body, "web search")).await,
        Op::OllamaWebFetch => Box::pin(ollama::no_cloud(cx, body, "web fetch")).await,
        Op::OllamaRecommendations => Ok(ollama::recommendations()),
        Op::OllamaShow => Box::pin(ollama::show(cx, parts, body)).await,
        Op::OllamaChat => Box::pin(ollama::chat(cx, parts, body)).await,
        Op::OllamaGenerate => Box::pin(ollama_generate::generate(cx, parts, body)).await,
        Op::OllamaEmbed => Box::pin(ollama::embed(cx, parts, body, false)).await,
        Op::OllamaEmbeddings => Box::pin(ollama::embed(cx, parts, body, true)).await,
        Op::ListModels => Box::pin(llamacpp::list_models(cx, parts)).await,
        Op::OneModel => llamacpp::one_model(cx, parts),
        Op::ChatCompletions => Box::pin(openai::chat(cx, parts, body)).await,
        Op::Completions => Box::pin(openai::completions(cx, parts, body)).await,
        Op::Embeddings | Op::V0Embeddings => Box::pin(openai::embeddings(cx, parts, body)).await,
        Op::Rerank => Box::pin(openai::rerank(cx, parts, body)).await,
        Op::OllamaPull
        | Op::OllamaPush
        | Op::OllamaCreate
        | Op::OllamaCopy
        | Op::OllamaDelete
        | Op::OllamaBlobCheck
        | Op::OllamaBlobUpload
        | Op::OllamaSignout
        | Op::OllamaDeleteKey => Box::pin(ollama_store::run(cx, parts, body)).await,
        Op::Responses | Op::GetResponse | Op::DeleteResponse | Op::ResponseInput => {
            Box::pin(responses::run(cx, parts, body)).await
        }
        Op::Transcriptions | Op::Translations => Box::pin(listening::run(cx, parts, body)).await,
        Op::Speech | Op::Voices | Op::AudioModels | Op::VoicePacks => Box::pin(speaking::run(cx, parts, body)).await,
        Op::Messages | Op::CountTokens => Box::pin(anthropic::run(cx, parts, body)).await,
        Op::LlamaCompletion
        | Op::LlamaInfill
        | Op::LlamaTokenize
        | Op::LlamaDetokenize
        | Op::LlamaApplyTemplate
        | Op::LlamaCountTokens
        | Op::LlamaResponses
        | Op::LlamaCountResponse
        | Op::LlamaProps
        | Op::LlamaSetProps
        | Op::LlamaSlots
        | Op::LlamaMetrics
        | Op::LlamaLoraAdapters
        | Op::LlamaSetLoraAdapters
        | Op::LlamaEmbedding
        | Op::LlamaHealth
        | Op::LlamaDownload
        | Op::LlamaDelete
        | Op::LlamaLoad
        | Op::LlamaUnload
        | Op::LlamaModelEvents
        | Op::LlamaResume
        | Op::LlamaStop
        | Op::LlamaLookup => Box::pin(llamacpp::run(cx, parts, body)).await,
        Op::LmStudioGreeting => Ok(lmstudio::greeting()),
        Op::LmStudioStatus => Ok(lmstudio::lms_status(cx)),
        Op::V1Models
        | Op::V1Load
        | Op::V1Unload
        | Op::V1Download
        | Op::V1Downloads
        | Op::V1DownloadStatus
        | Op::V1DownloadCancel
        | Op::V1Chat => Box::pin(lmstudio_v1::run(cx, parts, body)).await,
        Op::SdkSocket => sockets::lmstudio::upgrade(cx, parts),
        Op::V0Models => Ok(lmstudio::models(cx)),
        Op::V0Model => lmstudio::model(cx),
        Op::V0ChatCompletions => Box::pin(lmstudio::chat(cx, parts, body)).await,
        Op::V0Completions => Box::pin(lmstudio::completions(cx, parts, body)).await,
        Op::Downloads
        | Op::StartDownload
        | Op::OneDownload
        | Op::RemoveDownload
        | Op::PauseDownload
        | Op::ResumeDownload => Box::pin(downloads::run(cx, parts, body)).await,
        Op::ModelStatus => llamarunner::model_status(cx),
        Op::ModelInfo => llamarunner::model_info(cx),
        Op::ModelStart => Box::pin(llamarunner::start(cx, body)).await,
        Op::ModelStop => Box::pin(llamarunner::stop(cx, body)).await,
        Op::ModelLogs => state::logs(cx, parts),
        Op::SystemStatus => Ok(llamarunner::system_status(cx).await),
        Op::ServerInfo => Box::pin(llamarunner::server_info(cx)).await,
        Op::State => Box::pin(state::state(cx)).await,
        Op::Events => Box::pin(state::events(cx)).await,
    }
}

/// Wall clock for the dialects.
pub(crate) fn clock() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    Arc::clone(CLOCK.get_or_init(|| Arc::new(now_ns)))
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn view(state: &ApiState, entry: &Arc<ModelEntry>) -> ModelView {
    let (model_state, instance) = state.router.status(&entry.key);
    ModelView {
        entry: Arc::clone(entry),
        state: model_state,
        instance,
    }
}

/// The models that lists show.
fn listed(state: &ApiState) -> Vec<ModelView> {
    state
        .registry
        .catalog()
        .listed()
        .map(|entry| view(state, entry))
        .collect()
}

/// The models that lists show, and after them the further instances that exist.
fn listed_with_instances(state: &ApiState) -> Vec<ModelView> {
    let catalog = state.registry.catalog();
    let further = catalog.instances().map(|entry| view(state, entry));
    let mut models = listed(state);
    models.extend(further);
    models
}

/// A value of the query string, percent-decoded.
fn query(parts: &Parts, name: &str) -> Option<String> {
    let pair = parts.uri.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    Some(
        percent_encoding::percent_decode_str(pair)
            .decode_utf8_lossy()
            .into_owned(),
    )
}
