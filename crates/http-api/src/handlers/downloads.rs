//! Downloads as the window and the command line see them: `/v1/downloads`.

use std::collections::HashSet;

use domain::{ErrorKind, JobId, JobView, RunnerError};
use downloads::{Job, Source};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json as value;

use super::Answer;
use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::routes::Operation as Op;
use crate::state::ApiState;

/// Finished downloads that `/v1/state` still shows.
const FINISHED: usize = 5;

#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    model: String,
    /// Instead of a model: voices for a voice engine (`kokoro`, `piper`, `piper/<voice>`).
    voices: Option<String>,
}

/// The operations of this family.
pub(super) async fn run(cx: &Cx, _parts: &Parts, body: Incoming) -> Answer {
    let downloads = &cx.state().downloads;
    match cx.route.operation {
        Op::Downloads => document(
            cx,
            StatusCode::OK,
            &value!({ "downloads": shown(cx.state(), usize::MAX) }),
        ),
        Op::StartDownload => {
            let wish: Wish = serde_json::from_slice(&cx.collect(body).await?).map_err(|_| {
                RunnerError::invalid("Send {\"model\": NAME}: an Ollama name, hf.co/OWNER/REPO[:QUANT] or an address.")
                    .param("model")
            })?;
            let job = downloads.start_job(source(&wish)?).await?;
            document(cx, StatusCode::ACCEPTED, &job.view())
        }
        Op::OneDownload => document(cx, StatusCode::OK, &job(cx)?.view()),
        Op::PauseDownload => {
            let job = job(cx)?;
            downloads.pause(&job.id()).await?;
            document(cx, StatusCode::OK, &job.view())
        }
        Op::ResumeDownload => {
            let job = job(cx)?;
            downloads.resume(&job.id()).await?;
            document(cx, StatusCode::OK, &job.view())
        }
        Op::RemoveDownload => {
            let job = job(cx)?;
            downloads.cancel(&job.id()).await?;
            downloads.forget(&job.id()).await?;
            document(cx, StatusCode::OK, &job.view())
        }
        other => Err(RunnerError::internal(format!(
            "{other:?} is no operation on downloads."
        ))),
    }
}

/// All unfinished downloads and the latest finished ones, newest first. A failure that a later try has made up for is no
/// news.
fn shown(state: &ApiState, finished: usize) -> Vec<JobView> {
    let mut left = finished;
    let jobs = state.downloads.jobs();
    let mut seen = HashSet::new();
    let views = jobs.iter().rev().map(Job::view).filter(|view| {
        let newest = seen.insert((view.name.clone(), view.quantization.clone()));
        if !view.state.is_final() {
            return true;
        }
        if !newest {
            return false;
        }
        let shown = left > 0;
        left = left.saturating_sub(1);
        shown
    });
    views.collect()
}

/// What `/v1/state` shows.
pub(super) fn recent(state: &ApiState) -> Vec<JobView> {
    shown(state, FINISHED)
}

fn job(cx: &Cx) -> Result<Job, RunnerError> {
    let found = cx.state().downloads.job(&JobId(cx.id.clone()));
    found.ok_or_else(|| {
        RunnerError::new(ErrorKind::NotFound, format!("There is no download '{}'.", cx.id)).code("job_not_found")
    })
}

/// A known speech model by any of its names; an address is an address, everything else a name of a registry (`hf.co/…` among
/// them).
fn source(wish: &Wish) -> Result<Source, RunnerError> {
    if let Some(voices) = &wish.voices {
        return Ok(Source::Voices {
            name: voices.trim().to_owned(),
        });
    }
    let name = wish.model.trim();
    if name.is_empty() {
        return Err(RunnerError::invalid("'model' is empty: name what to download.").param("model"));
    }
    if let Some(whisper) = Source::whisper(name) {
        return Ok(whisper);
    }
    Ok(if name.starts_with("http://") || name.starts_with("https://") {
        Source::Url {
            url: name.to_owned(),
            file_name: None,
        }
    } else {
        Source::Ollama {
            name: name.to_owned(),
            insecure: false,
        }
    })
}

fn document(cx: &Cx, status: StatusCode, value: &impl serde::Serialize) -> Result<Response<Body>, RunnerError> {
    let body = serde_json::to_vec(value).map_err(|_| RunnerError::internal("The download could not be written."))?;
    let mut response = json(cx.route.dialect, body);
    *response.status_mut() = status;
    Ok(response)
}
