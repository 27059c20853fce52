//! Downloads, in LM Studio's words: one rendering of the job store (contract 7.4, management contract 6.4).

use dialects::lmstudio_rest::v1::{self, DownloadCall};
use domain::{ErrorKind, JobId, JobView, RunnerError};
use downloads::{DownloadError, Job, Source};
use http::Response;
use hyper::body::Incoming;

use crate::body::Body;
use crate::dispatch::Cx;
use crate::errors::json;
use crate::handlers::Answer;

/// `POST /api/v1/models/download`: answered as soon as it is known what there is to fetch.
pub(super) async fn start(cx: &Cx, body: Incoming) -> Answer {
    let call = DownloadCall::parse(&cx.collect(body).await?)?;
    let source = Source::Hub {
        repo: call.repo,
        file_or_quant: call.file_or_quant,
    };
    let job = cx.state().downloads.start_job(source).await.map_err(refused)?;
    let view = job.planned().await.map_err(refused)?;
    Ok(json(cx.route.dialect, v1::download_started(&view, job.was_present())))
}

/// An unknown repository is an unknown model here.
fn refused(error: DownloadError) -> RunnerError {
    let unknown = matches!(error, DownloadError::NotFound(_));
    let mut error = RunnerError::from(error);
    if unknown {
        error.kind = ErrorKind::ModelNotFound;
        error.param = Some("model".into());
    }
    error
}

/// `GET /api/v1/models/download/status`: all of them (*ext*).
pub(super) fn list(cx: &Cx) -> Response<Body> {
    let jobs: Vec<JobView> = cx.state().downloads.jobs().iter().map(Job::view).collect();
    json(cx.route.dialect, v1::downloads(&jobs, telemetry::now_ms()))
}

/// `GET /api/v1/models/download/status/{id}`.
pub(super) fn status(cx: &Cx) -> Answer {
    Ok(json(
        cx.route.dialect,
        v1::download_status(&job(cx)?.view(), telemetry::now_ms()),
    ))
}

/// `DELETE /api/v1/models/download/status/{id}` (*ext*): how it stands after that.
pub(super) async fn cancel(cx: &Cx) -> Answer {
    let job = job(cx)?;
    cx.state().downloads.cancel(&job.id()).await?;
    Ok(json(
        cx.route.dialect,
        v1::download_status(&job.view(), telemetry::now_ms()),
    ))
}

fn job(cx: &Cx) -> Result<Job, RunnerError> {
    cx.state().downloads.job(&JobId(cx.id.clone())).ok_or_else(|| {
        let text = format!("There is no download job '{}'.", cx.id);
        RunnerError::new(ErrorKind::NotFound, text)
            .code("job_not_found")
            .param("job_id")
    })
}
