//! Waiting is visible: a stream whose answer has not begun after some seconds (the model loads, the request queues, a long
//! prompt is read) is begun without it and kept alive in the dialect's own harmless way until the answer comes. So a client
//! that gives up after ten silent seconds survives a load of a minute. The same keeps long silences inside a stream alive.
//!
//! A handler takes part by [`Cx::will_stream`]; everything else happens here and in [`crate::dispatch`]. Answers that are
//! no streams just wait: their status is not known yet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dialects::{Rendered, StreamForm};
use domain::RunnerError;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep};

use crate::body::{Body, Streamed};
use crate::dispatch::Cx;
use crate::relay;

/// When waiting becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingRules {
    /// Silence before an answer after which its stream is begun without it.
    pub begin_after: Duration,
    /// Longest silence inside a stream.
    pub keep_alive_every: Duration,
}

impl Default for WaitingRules {
    /// Twice within the ten seconds after which impatient clients give up.
    fn default() -> Self {
        Self {
            begin_after: Duration::from_secs(4),
            keep_alive_every: Duration::from_secs(4),
        }
    }
}

/// A request while its handler works. Owned, so that it can become part of the answer's body: a client that leaves drops it
/// there (promise H1).
pub(crate) struct Exchange {
    pub(crate) cx: Cx,
    pub(crate) parts: Parts,
}

/// A handler at work.
pub(crate) type Handler = BoxFuture<'static, Result<Response<Body>, RunnerError>>;

/// The handler's answer; or, when that takes long and is to be a stream, the beginning of the stream with the handler
/// inside. The second value: the head went out before the handler was done.
pub(crate) async fn answer(
    mut handler: Handler,
    exchange: &Arc<Exchange>,
) -> (Result<Response<Body>, RunnerError>, bool) {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let early = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = handler.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        // Only now is it known that the answer is to be a stream; requests that are still being read have no form yet.
        let Some(form) = exchange.cx.stream_form() else {
            return Poll::Pending;
        };
        let after = exchange.cx.settings.waiting.begin_after;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(after)));
        timer.as_mut().poll(cx).map(|()| Err(Arc::clone(form)))
    })
    .await;
    match early {
        Ok(answer) => (answer, false),
        Err(form) => (Ok(begin(handler, form, Arc::clone(exchange))), true),
    }
}

/// The head of a stream whose answer is not there yet.
fn begin(handler: Handler, form: Arc<dyn StreamForm>, exchange: Arc<Exchange>) -> Response<Body> {
    let silence = Silence {
        due: true,
        ..Silence::new(Arc::clone(&form), &exchange.cx)
    };
    let content_type = form.content_type();
    let body = Begun {
        form,
        stage: Stage::Waiting(handler, exchange),
    };
    let mut response = relay::streamed(content_type, body);
    response.body_mut().keep_alive(silence);
    response
}

/// Keeps the stream of an answer that came in time alive, if it is one.
pub(crate) fn watch(response: &mut Response<Body>, cx: &Cx) {
    if let Some(form) = cx.stream_form()
        && is_stream(response, form.content_type())
    {
        response.body_mut().keep_alive(Silence::new(Arc::clone(form), cx));
    }
}

fn is_stream(response: &Response<Body>, content_type: &str) -> bool {
    response.status().is_success()
        && response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes() == content_type.as_bytes())
}

/// A stream that was begun before its answer.
struct Begun {
    form: Arc<dyn StreamForm>,
    stage: Stage,
}

enum Stage {
    Waiting(Handler, Arc<Exchange>),
    /// Reads an answer that is no stream.
    Reading(BoxFuture<'static, Vec<u8>>),
    Answering(Streamed),
    Done,
}

/// What is sent of the handler's answer.
fn stage(answer: Result<Response<Body>, RunnerError>, form: &Arc<dyn StreamForm>, cx: &Cx, out: &mut Vec<u8>) -> Stage {
    match answer {
        Ok(response) if is_stream(&response, form.content_type()) => Stage::Answering(Box::pin(response.into_body())),
        Ok(response) => Stage::Reading(Box::pin(read(response, Arc::clone(form), cx.request_id()))),
        Err(error) => {
            note_failure(cx.request_id().as_ref(), &error);
            form.fail(&error, out);
            Stage::Done
        }
    }
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RunnerError>>> {
        let this = self.get_mut();
        loop {
            let mut out = Vec::new();
            this.stage = match &mut this.stage {
                Stage::Waiting(handler, exchange) => {
                    let answer = ready!(handler.as_mut().poll(cx));
                    stage(answer, &this.form, &exchange.cx, &mut out)
                }
                Stage::Reading(reading) => {
                    out = ready!(reading.as_mut().poll(cx));
                    Stage::Done
                }
                Stage::Answering(body) => return body.as_mut().poll_frame(cx),
                Stage::Done => return Poll::Ready(None),
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

/// An answer that is no stream, as the only thing in one: an object (Ollama's answer to a load) or an error.
async fn read(response: Response<Body>, form: Arc<dyn StreamForm>, id: Option<HeaderValue>) -> Vec<u8> {
    let status = response.status();
    let mut out = Vec::new();
    let error = match response.into_body().collect().await {
        Ok(whole) if status.is_success() => {
            let whole = whole.to_bytes();
            if form.content_type() == Rendered::NDJSON {
                out.extend_from_slice(&whole);
                out.push(b'\n');
            } else {
                dialects::sse::write_data(&whole, &mut out);
            }
            return out;
        }
        Ok(whole) => dialects::engine::error_from_response(status.as_u16(), &whole.to_bytes()),
        Err(error) => error,
    };
    note_failure(id.as_ref(), &error);
    form.fail(&error, &mut out);
    out
}

/// The status was sent as a success: the log says what it would have been.
fn note_failure(id: Option<&HeaderValue>, error: &RunnerError) {
    let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::warn!(id, kind = ?error.kind, reason = error.message, "a request failed after its stream had begun");
}

/// Watches a stream for silence. Costs nothing per frame but four bytes and a flag.
pub(crate) struct Silence {
    form: Arc<dyn StreamForm>,
    every: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// A frame went out since the timer was set.
    heard: bool,
    /// A keep-alive is due without waiting.
    due: bool,
    /// The last bytes sent: only between events may something be put in.
    tail: [u8; 4],
}

impl Silence {
    fn new(form: Arc<dyn StreamForm>, cx: &Cx) -> Self {
        Self {
            form,
            every: cx.settings.waiting.keep_alive_every,
            timer: None,
            heard: false,
            due: false,
            tail: *b"\n\n\n\n",
        }
    }

    /// A frame goes out.
    pub(crate) fn heard(&mut self, data: &[u8]) {
        self.heard = true;
        self.due = false;
        if let Some(last) = data.last_chunk::<4>() {
            self.tail = *last;
        } else {
            for byte in data {
                self.tail.rotate_left(1);
                self.tail[3] = *byte;
            }
        }
    }

    /// Ready with a keep-alive when the stream was silent for long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let every = self.every;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(every)));
        loop {
            if !std::mem::take(&mut self.due) {
                ready!(timer.as_mut().poll(cx));
                timer.as_mut().reset(Instant::now() + every);
                if std::mem::take(&mut self.heard) {
                    continue;
                }
            }
            let between = if self.form.content_type() == Rendered::NDJSON {
                self.tail.ends_with(b"\n")
            } else {
                self.tail.ends_with(b"\n\n") || self.tail == *b"\r\n\r\n"
            };
            if between {
                let mut out = Vec::new();
                self.form.keep_alive(&mut out);
                return Poll::Ready(out.into());
            }
        }
    }
}

/// Response fields that say how long the parts of waiting took, as far as they are known (see `docs/api-headers.md`).
pub(crate) fn write_headers(cx: &Cx, response: &mut Response<Body>) {
    let Some(granted) = cx.granted.get() else { return };
    let headers = response.headers_mut();
    let ms = |time: Duration| HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    headers.insert("x-llamarunner-queue-ms", ms(granted.queued));
    headers.insert("x-llamarunner-load-ms", ms(granted.load));
    headers.insert("x-llamarunner-context", HeaderValue::from(granted.context));
    if let Some(first) = granted.first_byte.get() {
        headers.insert("x-llamarunner-first-token-ms", ms(*first));
    }
}
