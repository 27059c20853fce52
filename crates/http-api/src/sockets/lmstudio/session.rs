//! One socket from its handshake to its end.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dialects::lmstudio_ws::{self as wire, ClientFrame, WireError};
use futures_util::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

use super::super::upgrade::Socket;
use super::Namespace;
use super::clients::Client;
use super::work::{self, Context, Outbox};
use crate::dispatch::Connection;

/// Warnings per connection (contract 10.3).
const MAX_WARNINGS: u8 = 5;
/// Calls and channels open at once on one socket (promise H6).
const MAX_OPEN: usize = 1024;
/// Frames before the handshake that are ignored.
const MAX_IGNORED: u32 = 64;
/// Messages that wait to be written.
const QUEUE: usize = 128;
/// How long a client may leave what was sent to it unread.
const SLOW: Duration = Duration::from_secs(30);

type Sink = SplitSink<Socket, Message>;
type Stream = SplitStream<Socket>;
type Running = FuturesUnordered<Pin<Box<dyn Future<Output = Option<i64>> + Send>>>;

/// Serves a socket until either side closes it.
pub(super) async fn run(mut socket: Socket, connection: Arc<Connection>, namespace: Namespace, name: String) {
    let Some(client) = handshake(&mut socket, &connection).await else {
        return;
    };
    let limits = connection.listener.state.limits();
    let slow = limits.write_timeout.min(SLOW);
    let silence = limits.idle_timeout;
    let (sink, stream) = socket.split();
    let (outbox, queue) = mpsc::channel(QUEUE);
    let context = Context::new(connection, namespace, client, name, Outbox(outbox));
    let mut session = Session {
        context,
        channels: HashMap::new(),
        running: Running::new(),
        warnings: 0,
        complaints: 0,
    };
    let close = {
        let writing = std::pin::pin!(write(sink, queue, slow));
        session.serve(stream, writing, silence).await
    };
    tracing::debug!(?namespace, ?close, "socket ended");
}

/// Waits for the first frame (contract 10.2).
async fn handshake(socket: &mut Socket, connection: &Connection) -> Option<Arc<Client>> {
    let listener = &connection.listener;
    let deadline = Instant::now() + listener.state.limits().head_timeout;
    let mut ignored = 0;
    let refused = loop {
        let message = tokio::select! {
            () = listener.cancel.cancelled() => return None,
            () = sleep_until(deadline) => break "Authentication timed out",
            message = socket.next() => message?.ok()?,
        };
        let auth = match &message {
            Message::Text(text) => wire::parse_auth(text),
            Message::Close(_) => return None,
            _ => None,
        };
        let Some(auth) = auth else {
            ignored += 1;
            if ignored > MAX_IGNORED {
                break "Too many messages before authentication";
            }
            continue;
        };
        let clients = &listener.state.sdk_clients;
        match clients.bind(&auth.client_identifier, &auth.client_passkey) {
            Some(client) => {
                socket.send(Message::text(wire::auth_success())).await.ok()?;
                return Some(client);
            }
            None => break "This client identifier is in use with another passkey",
        }
    };
    let farewell = async {
        socket.send(Message::text(wire::auth_refused(refused))).await?;
        socket.close(Some(close_frame(CloseCode::Policy, refused))).await
    };
    let _ = timeout(Duration::from_secs(1), farewell).await;
    None
}

fn close_frame(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame {
        code,
        reason: reason.into(),
    }
}

/// Writes what is queued; ends when the queue is closed, the client does not read, or the socket breaks.
async fn write(mut sink: Sink, mut queue: mpsc::Receiver<Message>, slow: Duration) {
    while let Some(message) = queue.recv().await {
        let closing = matches!(message, Message::Close(_));
        let batch = async {
            sink.feed(message).await?;
            // Everything that is ready goes out in one write.
            while let Ok(next) = queue.try_recv() {
                sink.feed(next).await?;
            }
            sink.flush().await
        };
        match timeout(slow, batch).await {
            Ok(Ok(())) if !closing => {}
            Ok(_) => return,
            Err(_) => {
                tracing::warn!("a socket's client does not read; closed");
                let farewell = sink.send(Message::Close(Some(close_frame(
                    CloseCode::Again,
                    "You read too slowly.",
                ))));
                let _ = timeout(Duration::from_millis(100), farewell).await;
                return;
            }
        }
    }
}

/// Why a socket ended.
#[derive(Debug)]
enum End {
    /// The client closed it, or its connection broke.
    Left,
    /// The client does not read, or the connection cannot be written to.
    Unwritable,
    /// Nothing was heard from it, not even an answer to a ping.
    Silent,
    /// A message that is too large or no WebSocket message.
    Malformed,
    /// The server stops.
    Stopping,
}

struct Session {
    context: Arc<Context>,
    /// What cancels an open channel.
    channels: HashMap<i64, CancellationToken>,
    running: Running,
    /// Warnings we sent.
    warnings: u8,
    /// Warnings we got and logged.
    complaints: u8,
}

impl Session {
    async fn serve(
        &mut self,
        mut stream: Stream,
        mut writing: Pin<&mut impl Future<Output = ()>>,
        silence: Duration,
    ) -> End {
        let cancel = self.context.connection.listener.cancel.clone();
        let mut heard = Instant::now();
        let mut ping = interval_at(heard + silence / 2, silence / 2);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        loop {
            // A full queue must not keep the client's next frame, perhaps a cancel, from being read: what answers
            // frames at once is then work of its own.
            tokio::select! {
                () = &mut writing => return End::Unwritable,
                // Answers that nobody takes are no reason to take more questions.
                message = stream.next(), if self.running.len() < MAX_OPEN + QUEUE => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.frame(&text, stopping),
                        Some(Ok(Message::Binary(_))) => self.warn("Received a binary message", None),
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                        Some(Err(SocketError::Capacity(_))) => {
                            self.close(writing, CloseCode::Size, "The message is larger than 64 MiB.").await;
                            return End::Malformed;
                        }
                        Some(Err(SocketError::Protocol(_) | SocketError::Utf8(_))) => {
                            self.close(writing, CloseCode::Protocol, "This is not a WebSocket message.").await;
                            return End::Malformed;
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Left,
                    }
                }
                Some(ended) = self.running.next(), if !self.running.is_empty() => {
                    if let Some(channel) = ended {
                        self.channels.remove(&channel);
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > silence * 3 / 2 {
                        return End::Silent;
                    }
                    self.context.outbox.try_send(Message::Ping(bytes::Bytes::new()));
                }
                () = cancel.cancelled(), if !stopping => stopping = true,
            }
            // Answers that run may end (promise H9); streams of logs and the like would never.
            if stopping && self.context.busy() == 0 {
                self.close(writing, CloseCode::Away, "The server stops.").await;
                return End::Stopping;
            }
        }
    }

    async fn close(&mut self, writing: Pin<&mut impl Future<Output = ()>>, code: CloseCode, reason: &'static str) {
        self.context
            .outbox
            .try_send(Message::Close(Some(close_frame(code, reason))));
        let _ = timeout(Duration::from_secs(1), writing).await;
    }

    fn warn(&mut self, words: &str, kind: Option<&str>) {
        if self.warnings < MAX_WARNINGS {
            self.warnings += 1;
            tracing::debug!(words, "a frame of a socket's client is not valid");
            self.say(wire::warning(words, kind));
        }
    }

    /// Queues a frame behind everything that is queued.
    fn say(&self, frame: String) {
        let outbox = self.context.outbox.clone();
        if let Err(frame) = outbox.try_text(frame) {
            self.running.push(Box::pin(async move {
                outbox.text(frame).await;
                None
            }));
        }
    }

    fn frame(&mut self, text: &str, stopping: bool) {
        let frame = match ClientFrame::parse(text) {
            Ok(frame) => frame,
            Err(words) => return self.warn(&words, None),
        };
        let full = self.running.len() >= MAX_OPEN;
        let refusal = || {
            if stopping {
                Some(WireError::new("The server is shutting down."))
            } else {
                full.then(|| WireError::new("Too many calls are open on this socket. Wait for some to end."))
            }
        };
        match frame {
            ClientFrame::RpcCall {
                endpoint,
                call_id,
                parameter,
            } => {
                if let Some(error) = refusal() {
                    return self.say(wire::rpc_error(call_id, &error));
                }
                match work::call(&self.context, &endpoint, parameter) {
                    Ok(work) => {
                        let outbox = self.context.outbox.clone();
                        self.running.push(Box::pin(async move {
                            let frame = match work.await {
                                Ok(result) => wire::rpc_result(call_id, result.as_ref()),
                                Err(error) => wire::rpc_error(call_id, &error),
                            };
                            outbox.text(frame).await;
                            None
                        }));
                    }
                    Err(refused) => {
                        if let Some(words) = refused.warning("rpcCall", &endpoint) {
                            self.warn(&words, Some(refused.kind(true)));
                        }
                        self.say(wire::rpc_error(call_id, &refused.error(&endpoint)));
                    }
                }
            }
            ClientFrame::ChannelCreate {
                endpoint,
                channel_id,
                parameter,
            } => {
                if let Some(error) = refusal() {
                    return self.say(wire::channel_error(channel_id, &error));
                }
                if self.channels.contains_key(&channel_id) {
                    return self.warn(
                        &format!("Received channelCreate for the open channel {channel_id}"),
                        None,
                    );
                }
                let cancel = CancellationToken::new();
                match work::channel(&self.context, &endpoint, channel_id, parameter, cancel.clone()) {
                    Ok(work) => {
                        self.channels.insert(channel_id, cancel);
                        let outbox = self.context.outbox.clone();
                        self.running.push(Box::pin(async move {
                            let frame = match work.await {
                                Ok(()) => wire::channel_close(channel_id),
                                Err(error) => wire::channel_error(channel_id, &error),
                            };
                            outbox.text(frame).await;
                            Some(channel_id)
                        }));
                    }
                    Err(refused) => {
                        if let Some(words) = refused.warning("channelCreate", &endpoint) {
                            self.warn(&words, Some(refused.kind(false)));
                        }
                        self.say(wire::channel_error(channel_id, &refused.error(&endpoint)));
                    }
                }
            }
            ClientFrame::ChannelSend {
                channel_id,
                kind,
                ack_id,
            } => {
                if let Some(ack_id) = ack_id {
                    self.say(wire::channel_ack(channel_id, ack_id));
                }
                // A cancel may cross the end of its channel; that is no fault.
                if let ("cancel" | "stop", Some(cancel)) = (kind.as_str(), self.channels.get(&channel_id)) {
                    cancel.cancel();
                }
            }
            ClientFrame::SignalSubscribe { subscribe_id, writable } => {
                let error = WireError::not_supported("This signal");
                self.say(if writable {
                    wire::writable_signal_error(subscribe_id, &error)
                } else {
                    wire::signal_error(subscribe_id, &error)
                });
            }
            ClientFrame::ChannelAck | ClientFrame::SignalOther => {}
            ClientFrame::KeepAlive => self.say(wire::keep_alive_ack()),
            ClientFrame::CommunicationWarning { warning } => {
                // Bounded: a reader of the log that complains about log lines would be sent each of its complaints.
                if self.complaints < MAX_WARNINGS {
                    self.complaints += 1;
                    let client = &self.context.name;
                    tracing::warn!(client, warning, "a client could not read a message of ours");
                }
            }
            ClientFrame::Unknown { kind } => {
                self.warn(&format!("Received a message of the unknown type '{kind}'"), None);
            }
        }
    }
}
