//! `GET /models/sse`: changes of models in the words of llama-server's router.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialects::llamacpp::ModelChanges;
use dialects::openai::{Ids, ModelListOptions};
use dialects::{Rendered, openai};
use domain::{Event, EventKind, ModelKey, ModelState};
use futures_util::{StreamExt, stream};
use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::dispatch::Cx;
use crate::relay;
use crate::state::ApiState;

/// A comment this often keeps the connection alive (management contract 1.6).
const HEARTBEAT: Duration = Duration::from_secs(15);

/// First what is loaded now, then every change.
pub(super) fn events(cx: &Cx) -> Response<Body> {
    // Subscribed before the state is read: nothing falls in between.
    let receiver = cx.state().bus.subscribe();
    let mut feed = Feed {
        state: Arc::clone(cx.state()),
        options: super::openai::options(cx, false),
        changes: ModelChanges::default(),
        receiver,
        cancel: cx.connection.listener.cancel.clone(),
    };
    // The head must go out before the first change: readers act once they are connected.
    let mut first = b": models\n\n".to_vec();
    feed.now(&mut first);
    let changes = stream::unfold(
        feed,
        |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) },
    );
    let pieces = stream::once(async { Bytes::from(first) }).chain(changes);
    let frames = pieces.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)).map_err(|never| match never {}));
    relay::streamed(Rendered::SSE, StreamBody::new(frames))
}

struct Feed {
    state: Arc<ApiState>,
    options: ModelListOptions,
    changes: ModelChanges,
    receiver: Receiver<Arc<Event>>,
    cancel: CancellationToken,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                () = self.cancel.cancelled() => return None,
                () = tokio::time::sleep(HEARTBEAT) => return Some(Bytes::from_static(b": still here\n\n")),
            };
            let mut out = Vec::new();
            match received {
                Ok(event) => self.write(&event.kind, &mut out),
                // Too slow for the changes: where everything stands now.
                Err(RecvError::Lagged(_)) => self.now(&mut out),
                Err(RecvError::Closed) => return None,
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }

    fn write(&mut self, event: &EventKind, out: &mut Vec<u8>) {
        let (state, ids) = (&self.state, self.options.ids);
        self.changes.write(event, |key| listed_name(state, key, ids), out);
    }

    /// Where everything stands, also what was told and is not loaded any more.
    fn now(&mut self, out: &mut Vec<u8>) {
        let mut live = HashSet::new();
        for instance in self.state.router.instances() {
            if !matches!(instance.state, ModelState::Unloaded | ModelState::Failed(_)) {
                live.insert(listed_name(&self.state, &instance.model, self.options.ids));
                self.write(&EventKind::Instance { instance }, out);
            }
        }
        self.changes.catch_up(&live, out);
    }
}

fn listed_name(state: &ApiState, key: &ModelKey, ids: Ids) -> String {
    let entry = state.registry.catalog().get(key).cloned();
    entry.map_or_else(|| key.to_string(), |entry| openai::listed_id(&entry, ids))
}
