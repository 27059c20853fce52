//! Engine answers on their way to the client: bytes as they come, or through a translator. Never waits for more than the
//! engine has sent, never leaves a cut stream looking complete (promises H2, H3).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dialects::openai::{RelayTail, StreamErrorForm};
use dialects::{Rendered, Transcoder};
use domain::{ErrorKind, RunnerError};
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use router::UpstreamBody;

use crate::body::Body;

type Polled = Poll<Option<Result<Frame<Bytes>, RunnerError>>>;

/// Largest answer that is held until it is whole, so that a failure in its middle can still become a status.
const HELD: u64 = 8 << 20;

/// A stream with the fields that keep proxies from buffering it (promise H2).
pub(crate) fn streamed(
    content_type: &'static str,
    body: impl HttpBody<Data = Bytes, Error = RunnerError> + Send + 'static,
) -> Response<Body> {
    streamed_as(HeaderValue::from_static(content_type), body)
}

fn streamed_as(
    content_type: HeaderValue,
    body: impl HttpBody<Data = Bytes, Error = RunnerError> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::streamed(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// Is this an event stream?
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// The next bytes of the engine's body; `None` at its end.
pub(crate) async fn next_piece(body: &mut UpstreamBody) -> Result<Option<Bytes>, RunnerError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Passes an event stream on untouched. Waits for the first piece, so that a failure before it is still a status.
pub(crate) async fn event_stream(
    mut upstream: UpstreamBody,
    tail: RelayTail,
    form: StreamErrorForm,
) -> Result<Response<Body>, RunnerError> {
    let Some(first) = next_piece(&mut upstream).await? else {
        return Err(RunnerError::new(
            ErrorKind::EngineFailed,
            "The engine ended without an answer.",
        ));
    };
    Ok(streamed(
        Rendered::SSE,
        EventRelay {
            upstream: Some(upstream),
            first,
            tail,
            form,
        },
    ))
}

/// Passes a whole answer on untouched.
pub(crate) async fn whole(response: Response<UpstreamBody>) -> Result<Response<Body>, RunnerError> {
    let (parts, mut upstream) = response.into_parts();
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let first = next_piece(&mut upstream).await?.unwrap_or_default();
    let body = match length {
        Some(length) if length == first.len() as u64 => Body::full(first),
        Some(length) if length <= HELD => {
            let mut all = bytes::BytesMut::with_capacity(length as usize);
            all.extend_from_slice(&first);
            while let Some(piece) = next_piece(&mut upstream).await? {
                all.extend_from_slice(&piece);
            }
            if all.len() as u64 != length {
                return Err(RunnerError::new(
                    ErrorKind::EngineFailed,
                    "The engine's answer was cut.",
                ));
            }
            Body::full(all.freeze())
        }
        _ => Body::streamed(Joined { first, upstream }),
    };
    let mut answer = Response::new(body);
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static(Rendered::JSON));
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(answer)
}

/// Passes sound on as it is made, its length unknown. Waits for the first piece, so that a failure before it is still a
/// status; after a failure in its middle the connection is cut, so that nobody takes what came for the whole.
pub(crate) async fn sound(
    mut upstream: UpstreamBody,
    content_type: HeaderValue,
) -> Result<Response<Body>, RunnerError> {
    let first = next_piece(&mut upstream).await?.unwrap_or_default();
    Ok(streamed_as(content_type, Joined { first, upstream }))
}

/// A long answer: an error in its middle cuts the connection.
struct Joined {
    first: Bytes,
    upstream: UpstreamBody,
}

impl HttpBody for Joined {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        Pin::new(&mut this.upstream).poll_frame(cx)
    }
}

/// An event stream, byte for byte, with the dialect's error event if it breaks.
struct EventRelay {
    /// Dropped as soon as the stream is over: the slot is free before the client has read everything.
    upstream: Option<UpstreamBody>,
    first: Bytes,
    tail: RelayTail,
    form: StreamErrorForm,
}

impl HttpBody for EventRelay {
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let first = std::mem::take(&mut this.first);
            this.tail.observe(&first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let mut last = Vec::new();
        loop {
            let Some(upstream) = &mut this.upstream else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(upstream).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.tail.observe(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => this.tail.fail(&error, this.form, &mut last),
                None => this.tail.finish(this.form, &mut last),
            }
            this.upstream = None;
            if !last.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(last.into()))));
            }
        }
    }
}

/// Sends an engine stream through a translator. Waits for the first output, so that a failure before it is still a status.
pub(crate) async fn translated<T: Transcoder + Unpin + 'static>(
    upstream: UpstreamBody,
    coder: T,
    content_type: &'static str,
) -> Result<Response<Body>, RunnerError> {
    let finish = |mut coder: T| -> BoxFuture<'static, Vec<u8>> {
        let mut out = Vec::new();
        coder.finish(&mut out);
        Box::pin(std::future::ready(out))
    };
    translated_then(upstream, coder, content_type, finish).await
}

/// As [`translated`], for streams whose end waits for something besides the engine: `last` gets the translator once the
/// engine is done and gives what is still to be sent (it calls [`Transcoder::finish`] itself).
pub(crate) async fn translated_then<T, L>(
    mut upstream: UpstreamBody,
    mut coder: T,
    content_type: &'static str,
    last: L,
) -> Result<Response<Body>, RunnerError>
where
    T: Transcoder + Unpin + 'static,
    L: FnOnce(T) -> BoxFuture<'static, Vec<u8>> + Send + Unpin + 'static,
{
    let out = prime(&mut upstream, &mut coder).await?;
    let stage = if coder.ended() {
        Stage::Last(last(coder))
    } else {
        Stage::Running { upstream, coder, last }
    };
    Ok(streamed(content_type, Translated { stage, out }))
}

/// Feeds the translator until it says something or the engine's stream is over.
pub(crate) async fn prime<T: Transcoder>(upstream: &mut UpstreamBody, coder: &mut T) -> Result<Vec<u8>, RunnerError> {
    let mut out = Vec::new();
    while out.is_empty() && !coder.ended() {
        let Some(piece) = next_piece(upstream).await? else {
            return Err(RunnerError::new(
                ErrorKind::EngineFailed,
                "The engine ended without an answer.",
            ));
        };
        coder.push(&piece, &mut out);
    }
    match coder.error() {
        Some(error) if out.is_empty() => Err(error.clone()),
        _ => Ok(out),
    }
}

/// A translated stream.
struct Translated<T, L> {
    stage: Stage<T, L>,
    out: Vec<u8>,
}

enum Stage<T, L> {
    Running { upstream: UpstreamBody, coder: T, last: L },
    Last(BoxFuture<'static, Vec<u8>>),
    Done,
}

impl<T, L> HttpBody for Translated<T, L>
where
    T: Transcoder + Unpin,
    L: FnOnce(T) -> BoxFuture<'static, Vec<u8>> + Unpin,
{
    type Data = Bytes;
    type Error = RunnerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        loop {
            if !this.out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.out).into()))));
            }
            match &mut this.stage {
                Stage::Running { upstream, coder, .. } => {
                    // The engine's slot is free as soon as it is done, before the client has read everything.
                    if ready!(push_frame(upstream, coder, &mut this.out, cx))
                        && let Stage::Running { coder, last, .. } = std::mem::replace(&mut this.stage, Stage::Done)
                    {
                        this.stage = Stage::Last(last(coder));
                    }
                }
                Stage::Last(last) => {
                    this.out = ready!(last.as_mut().poll(cx));
                    this.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }
}

/// Feeds one frame to the translator. True: the engine's stream is over (then `finish` is due; it does nothing after
/// `fail`).
pub(crate) fn push_frame<T: Transcoder>(
    upstream: &mut UpstreamBody,
    coder: &mut T,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    Poll::Ready(match ready!(Pin::new(upstream).poll_frame(cx)) {
        Some(Ok(frame)) => {
            if let Ok(data) = frame.into_data() {
                coder.push(&data, out);
            }
            coder.ended()
        }
        Some(Err(error)) => {
            coder.fail(&error, out);
            true
        }
        None => true,
    })
}
