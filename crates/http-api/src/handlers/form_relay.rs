//! Recordings for engines that speak OpenAI's API themselves: the form is passed on as it came, with the engine's own name of
//! the model (audio contract 5).

use std::fmt::{Arguments, Write as _};

use bytes::Bytes;
use dialects::engine;
use domain::{EngineKind, ModelEntry, RunnerError};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use router::Attached;

use super::Answer;
use super::lease::{EngineCalls, MAX_ERROR};
use super::listening::Job;
use super::responses::random_hex;
use super::speaking::own_name;
use crate::dispatch::Cx;
use crate::relay;

/// Sends the form to the engine and its answer to the client.
pub(super) async fn pass_on(cx: &Cx, calls: &EngineCalls, entry: &ModelEntry, job: &Job) -> Answer {
    let boundary = format!("llama-runner-{}", random_hex()?);
    let content_type = HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}"))
        .map_err(|_| RunnerError::internal("The form could not be passed on."))?;
    let file = Attached {
        path: job.upload.path().to_owned(),
        size: job.upload.size(),
        after: format!("\r\n--{boundary}--\r\n").into(),
    };
    let before = before(entry, job, &boundary);
    let response = calls.relay_form(cx.route.path, content_type, before, file).await?;
    let status = response.status();
    if !status.is_success() {
        let text = response.into_body().collect_bytes(MAX_ERROR).await?;
        return Err(engine::error_from_response(status.as_u16(), &text));
    }
    let answer = if relay::is_event_stream(response.headers()) {
        let content_type = response.headers()[CONTENT_TYPE].clone();
        relay::sound(response.into_body(), content_type).await?
    } else {
        relay::whole(response).await?
    };
    job.transcription.passed_on();
    Ok(answer)
}

/// The form up to the content of its file.
fn before(entry: &ModelEntry, job: &Job, boundary: &str) -> Bytes {
    let own = match entry.engine {
        EngineKind::Custom => own_name(entry),
        _ => entry.key.as_str(),
    };
    let others = job.fields.iter().filter(|(name, _)| name != "model");
    let mut out = String::new();
    let mut part = |head: Arguments<'_>, value: &str, end: &str| {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}{end}"
        );
    };
    part(format_args!("name=\"model\""), own, "\r\n");
    for (name, value) in others {
        part(format_args!("name=\"{}\"", quoted(name)), value, "\r\n");
    }
    // Engines that look at the name find the kind of file in it.
    let name = quoted(job.upload.name().unwrap_or("recording"));
    let kind = "application/octet-stream";
    part(
        format_args!("name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}"),
        "",
        "",
    );
    out.into()
}

/// As browsers write names in the heads of parts.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}
