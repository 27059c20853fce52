//! Streams that outlive their client. A chat whose request names itself (`X-Conversation-Id`) goes on when its client
//! leaves, and can be read again from any byte, as llama-server offers it (its `README-dev.md`, "Resumable streaming").
//! Without that field a client that leaves stops the engine (promise H1).
//!
//! A request of this kind is a task of its own that fills a bounded buffer; the client that asked reads the buffer like any
//! later reader.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::{ErrorKind, RunnerError};
use futures_util::stream;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use telemetry::now_ms;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::relay::is_event_stream;
use crate::routes::Operation;
use crate::waiting::{Exchange, Handler};

/// The field that names a conversation.
const NAME: &str = "x-conversation-id";
/// Longest name, in bytes.
const LONGEST_NAME: usize = 256;
/// Bytes kept of one stream; of a longer one the beginning is forgotten.
const MOST_BYTES: u64 = 4 << 20;
/// Streams kept at once.
const MOST_STREAMS: usize = 32;
/// How long a stream that ended can be read.
const KEPT: Duration = Duration::from_mins(5);

/// The streams that can be read again, by name.
#[derive(Default)]
pub(crate) struct Resumables {
    by_name: Mutex<HashMap<String, Arc<Resumable>>>,
}

/// One stream.
struct Resumable {
    kept: Mutex<Kept>,
    /// Told after every change of `kept`.
    changed: watch::Sender<()>,
    stop: CancellationToken,
    started_ms: i64,
}

#[derive(Default)]
struct Kept {
    /// Fields of the answer, once it began.
    head: Option<HeaderMap>,
    /// Pieces with the place of their first byte.
    pieces: VecDeque<(u64, Bytes)>,
    /// Bytes so far, forgotten ones included.
    total: u64,
    /// Unix milliseconds of the end.
    ended_ms: Option<i64>,
    /// Why it broke off.
    error: Option<RunnerError>,
}

impl Kept {
    fn add(&mut self, piece: Bytes) {
        let at = self.total;
        self.total += piece.len() as u64;
        self.pieces.push_back((at, piece));
        while self.total - self.first() > MOST_BYTES && self.pieces.len() > 1 {
            self.pieces.pop_front();
        }
    }

    /// Place of the first byte that is still there.
    fn first(&self) -> u64 {
        self.pieces.front().map_or(self.total, |(at, _)| *at)
    }

    /// What follows `from`, as far as it is there in one piece.
    fn after(&self, from: u64) -> Option<Bytes> {
        let index = self
            .pieces
            .partition_point(|(at, piece)| at + piece.len() as u64 <= from);
        let (at, piece) = self.pieces.get(index)?;
        let skipped = usize::try_from(from.checked_sub(*at)?).ok()?;
        Some(piece.slice(skipped..))
    }
}

impl Resumable {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            changed: watch::Sender::new(()),
            stop: CancellationToken::new(),
            started_ms: now_ms(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept());
        self.changed.send_replace(());
    }

    /// Everything from a place on, as it comes.
    fn read(self: Arc<Self>, from: u64) -> Body {
        let changes = self.changed.subscribe();
        let pieces = stream::try_unfold((self, changes, from), |(stream, mut changes, from)| async move {
            loop {
                changes.mark_unchanged();
                {
                    let kept = stream.kept();
                    if let Some(piece) = kept.after(from) {
                        let next = from + piece.len() as u64;
                        drop(kept);
                        return Ok(Some((Frame::data(piece), (stream, changes, next))));
                    }
                    if from < kept.first() {
                        return Err(RunnerError::invalid(
                            "The reader was too slow: its place in the stream is lost.",
                        ));
                    }
                    if let Some(error) = &kept.error {
                        return Err(error.clone());
                    }
                    if kept.ended_ms.is_some() {
                        return Ok(None);
                    }
                }
                // The sender lives in `stream`.
                let _ = changes.changed().await;
            }
        });
        Body::streamed(StreamBody::new(pieces))
    }

    /// Fills the buffer from an answer's body.
    async fn fill(&self, mut body: Body) {
        let outcome = loop {
            let frame = tokio::select! {
                biased;
                () = self.stop.cancelled() => break Err(cancelled()),
                frame = body.frame() => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data()
                        && !piece.is_empty()
                    {
                        self.change(|kept| kept.add(piece));
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            }
        };
        self.change(|kept| {
            kept.error = outcome.err();
            kept.ended_ms = Some(now_ms());
        });
    }
}

fn cancelled() -> RunnerError {
    RunnerError::invalid("The request was cancelled.").code("request_cancelled")
}

impl Resumables {
    fn by_name(&self) -> MutexGuard<'_, HashMap<String, Arc<Resumable>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new stream; one of the same name is stopped. `None`: there are too many that have not ended.
    fn open(&self, name: &str) -> Option<Arc<Resumable>> {
        let mut streams = self.by_name();
        if let Some(old) = streams.remove(name) {
            old.stop.cancel();
        }
        if streams.len() >= MOST_STREAMS {
            let ended = |stream: &Resumable| stream.kept().ended_ms;
            let oldest = streams
                .iter()
                .filter_map(|(name, stream)| Some((ended(stream)?, name.clone())))
                .min()?;
            streams.remove(&oldest.1);
        }
        let stream = Resumable::new();
        streams.insert(name.to_owned(), Arc::clone(&stream));
        Some(stream)
    }

    /// Takes a stream out, unless another has its name by now.
    fn forget(&self, name: &str, stream: &Arc<Resumable>) {
        let mut streams = self.by_name();
        if streams.get(name).is_some_and(|kept| Arc::ptr_eq(kept, stream)) {
            streams.remove(name);
        }
    }

    fn get(&self, name: &str) -> Option<Arc<Resumable>> {
        self.by_name().get(name).cloned()
    }

    /// The stream of this name from byte `from` on.
    ///
    /// # Errors
    /// `NotFound`; `Overloaded` while its answer has not begun (the model loads); `InvalidRequest` for a place that is
    /// forgotten or was never there.
    pub(crate) fn resume(&self, name: &str, from: u64) -> Result<Response<Body>, RunnerError> {
        let stream = self
            .get(name)
            .ok_or_else(|| RunnerError::new(ErrorKind::NotFound, "There is no such stream, or it expired."))?;
        let head = {
            let kept = stream.kept();
            let Some(head) = &kept.head else {
                let retry_after = Duration::from_secs(1);
                return Err(RunnerError::new(
                    ErrorKind::Overloaded { retry_after },
                    "The answer has not begun yet.",
                ));
            };
            if from < kept.first() || from > kept.total {
                return Err(
                    RunnerError::invalid("That place of the stream is not there: read it from its beginning.")
                        .param("from"),
                );
            }
            head.clone()
        };
        let mut response = Response::new(stream.read(from));
        *response.headers_mut() = head;
        Ok(response)
    }

    /// Stops and forgets a stream. Nothing happens when there is none.
    pub(crate) fn stop(&self, name: &str) {
        if let Some(stream) = self.by_name().remove(name) {
            stream.stop.cancel();
        }
    }

    /// How the streams stand that the asker names; also those of a name with `::model` behind it. There is no list of all:
    /// who does not know a name does not learn of it.
    pub(crate) fn look_up(&self, names: &[String]) -> Value {
        let streams = self.by_name();
        let of = |asked: &String| {
            let mut found: Vec<_> = streams
                .iter()
                .filter(|(name, _)| {
                    name.strip_prefix(asked)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                })
                .collect();
            found.sort_by_key(|(name, _)| name.as_str());
            found
        };
        let view = |(name, stream): (&String, &Arc<Resumable>)| {
            let kept = stream.kept();
            json!({
                "conversation_id": name,
                "is_done": kept.ended_ms.is_some(),
                "total_bytes": kept.total,
                "started_at": stream.started_ms / 1000,
                "completed_at": kept.ended_ms.unwrap_or(0) / 1000,
            })
        };
        names
            .iter()
            .filter(|name| !name.is_empty())
            .flat_map(of)
            .map(view)
            .collect()
    }
}

/// The handler, in a task of its own when the request asks for a stream that can be read again.
pub(crate) fn detach(handler: Handler, exchange: &Arc<Exchange>) -> Handler {
    let cx = &exchange.cx;
    if cx.route.operation != Operation::ChatCompletions {
        return handler;
    }
    let name = exchange.parts.headers.get(NAME).and_then(|name| name.to_str().ok());
    let Some(name) = name.filter(|name| (1..=LONGEST_NAME).contains(&name.len())) else {
        return handler;
    };
    let Some(stream) = cx.state().resumables.open(name) else {
        tracing::warn!(
            most = MOST_STREAMS,
            "too many chats can be read again already: this one ends when its client leaves"
        );
        return handler;
    };
    let (answer, answered) = oneshot::channel();
    let task = run(name.to_owned(), stream, handler, Arc::clone(exchange), answer);
    cx.connection.listener.tracker.spawn(task);
    Box::pin(async move {
        let lost = |_| Err(RunnerError::internal("The request was lost."));
        answered.await.unwrap_or_else(lost)
    })
}

/// The life of such a request. `exchange` keeps its place among the caller's requests until the answer is complete.
async fn run(
    name: String,
    stream: Arc<Resumable>,
    handler: Handler,
    exchange: Arc<Exchange>,
    answer: oneshot::Sender<Result<Response<Body>, RunnerError>>,
) {
    let listener = Arc::clone(&exchange.cx.connection.listener);
    let streams = &listener.state.resumables;
    let result = tokio::select! {
        biased;
        () = stream.stop.cancelled() => Err(cancelled()),
        result = handler => result,
    };
    let response = match result {
        Ok(response) if is_event_stream(response.headers()) => response,
        other => {
            streams.forget(&name, &stream);
            // The client may have left.
            let _ = answer.send(other);
            return;
        }
    };
    let (parts, body) = response.into_parts();
    stream.change(|kept| kept.head = Some(parts.headers.clone()));
    let _ = answer.send(Ok(Response::from_parts(parts, Arc::clone(&stream).read(0))));
    stream.fill(body).await;
    drop(exchange);
    tokio::select! {
        () = stream.stop.cancelled() => {}
        () = listener.cancel.cancelled() => {}
        () = tokio::time::sleep(KEPT) => {}
    }
    streams.forget(&name, &stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn whole(stream: &Arc<Resumable>, from: u64) -> Result<Bytes, RunnerError> {
        Arc::clone(stream)
            .read(from)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn every_byte_from_every_place() {
        let stream = Resumable::new();
        for piece in ["data: one\n\n", "data: two\n\n", "x"] {
            stream.change(|kept| kept.add(piece.into()));
        }
        stream.change(|kept| kept.ended_ms = Some(1));
        let all = whole(&stream, 0).await.unwrap();
        for from in 0..=all.len() {
            assert_eq!(whole(&stream, from as u64).await.unwrap(), all.slice(from..));
        }
    }

    #[tokio::test]
    async fn the_beginning_of_a_long_stream_is_forgotten() {
        let stream = Resumable::new();
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..6 {
            stream.change(|kept| kept.add(piece.clone()));
        }
        stream.change(|kept| kept.ended_ms = Some(1));
        let first = stream.kept().first();
        assert_eq!(first, 2 << 20);
        assert_eq!(whole(&stream, first).await.unwrap().len(), 4 << 20);
        assert!(whole(&stream, 0).await.is_err());
    }

    #[tokio::test]
    async fn a_broken_stream_ends_broken_for_every_reader() {
        let stream = Resumable::new();
        stream.change(|kept| {
            kept.add("data".into());
            kept.error = Some(RunnerError::internal("x"));
            kept.ended_ms = Some(1);
        });
        assert!(whole(&stream, 0).await.is_err());
    }

    #[test]
    fn a_name_has_one_stream_and_there_are_not_too_many() {
        let streams = Resumables::default();
        let first = streams.open("a").unwrap();
        let second = streams.open("a").unwrap();
        assert!(first.stop.is_cancelled() && !second.stop.is_cancelled());
        streams.forget("a", &first);
        assert!(
            streams.get("a").is_some(),
            "the first one's end must not take the second one's place"
        );
        for number in 1..MOST_STREAMS {
            assert!(streams.open(&number.to_string()).is_some());
        }
        assert!(streams.open("one more").is_none());
        second.change(|kept| kept.ended_ms = Some(1));
        assert!(streams.open("one more").is_some());
        assert!(streams.get("a").is_none());
    }

    #[test]
    fn only_named_streams_are_told() {
        let streams = Resumables::default();
        for name in ["a", "a::m/x", "ab", "b"] {
            streams.open(name);
        }
        let told = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = streams.look_up(&names);
            let ids = found
                .as_array()
                .unwrap()
                .iter()
                .map(|view| view["conversation_id"].as_str().unwrap().to_owned());
            ids.collect()
        };
        assert_eq!(told(&["a"]), ["a", "a::m/x"]);
        assert_eq!(told(&["b", "nobody", ""]), ["b"]);
    }
}
