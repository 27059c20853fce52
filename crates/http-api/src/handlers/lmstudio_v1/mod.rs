//! LM Studio's native REST API (LM Studio contract 7).

mod chat;
mod download;
mod models;

use domain::RunnerError;
use http::request::Parts;
use hyper::body::Incoming;

use super::Answer;
use crate::dispatch::Cx;
use crate::routes::Operation as Op;

/// The operations of this family.
pub(super) async fn run(cx: &Cx, parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::V1Load => models::load(cx, body).await,
        Op::V1Unload => models::unload(cx, body).await,
        Op::V1Download => download::start(cx, body).await,
        Op::V1Downloads => Ok(download::list(cx)),
        Op::V1DownloadStatus => download::status(cx),
        Op::V1DownloadCancel => download::cancel(cx).await,
        Op::V1Chat => chat::chat(cx, parts, body).await,
        Op::V1Models => Ok(models::list(cx)),
        other => Err(RunnerError::internal(format!(
            "{other:?} is no operation of LM Studio's REST API v1."
        ))),
    }
}
