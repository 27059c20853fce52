//! The sockets of LM Studio's libraries (LM Studio contract 10, promise W3), with the stub engine.

mod clients;
mod handshake;
mod loads;
mod predictions;
mod services;

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_api::{ApiSettings, ConnectionLimits};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Engine, Server, Setup, patiently, settings};

/// A client's socket, with its own numbers for calls and channels.
struct Client {
    socket: WebSocketStream<TcpStream>,
    next: i64,
    warnings: Vec<String>,
}

/// How a channel ended, and what was said on it.
#[derive(Debug)]
struct Channel {
    messages: Vec<Value>,
    error: Option<Value>,
}

impl Channel {
    fn kinds(&self) -> Vec<&str> {
        self.messages
            .iter()
            .map(|message| message["type"].as_str().unwrap())
            .collect()
    }

    fn text(&self) -> String {
        self.messages
            .iter()
            .filter_map(|message| message["fragment"]["content"].as_str())
            .collect()
    }

    fn last(&self) -> &Value {
        assert!(self.error.is_none(), "{self:?}");
        self.messages.last().unwrap()
    }
}

async fn upgrade(
    to: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(to).await.unwrap();
    let mut request: Request<()> = format!("ws://{to}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    patiently("the upgrade", client_async(request, stream))
        .await
        .map(|(socket, _)| socket)
}

impl Client {
    async fn bare(to: SocketAddr, path: &str) -> Self {
        Self {
            socket: upgrade(to, path, &[]).await.unwrap(),
            next: 0,
            warnings: Vec::new(),
        }
    }

    async fn login(to: SocketAddr, path: &str, identifier: &str, passkey: &str) -> (Self, Value) {
        let mut client = Self::bare(to, path).await;
        client
            .say(&json!({"authVersion": 1, "clientIdentifier": identifier, "clientPasskey": passkey}))
            .await;
        let answer = client.hear().await.unwrap();
        (client, answer)
    }

    async fn open(to: SocketAddr, path: &str) -> Self {
        let (client, answer) = Self::login(to, path, "guest:test", "secret").await;
        assert_eq!(answer, json!({"success": true}));
        client
    }

    async fn say(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame; the code of a close, where there is one, as an error.
    async fn hear(&mut self) -> Result<Value, Option<CloseCode>> {
        loop {
            match patiently("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next frame that is no warning.
    async fn hear_answer(&mut self) -> Value {
        loop {
            let frame = self.hear().await.unwrap();
            if frame["type"] == "communicationWarning" {
                self.warnings.push(frame["warning"].as_str().unwrap().to_owned());
                continue;
            }
            return frame;
        }
    }

    async fn call(&mut self, endpoint: &str, parameter: Value) -> Result<Value, Value> {
        let id = self.next;
        self.next += 1;
        let mut frame = json!({"type": "rpcCall", "endpoint": endpoint, "callId": id});
        if !parameter.is_null() {
            frame["parameter"] = parameter;
        }
        self.say(&frame).await;
        let answer = self.hear_answer().await;
        assert_eq!(answer["callId"], id, "{answer}");
        if answer["type"] == "rpcError" {
            return Err(answer["error"].clone());
        }
        Ok(answer["result"].clone())
    }

    async fn begin(&mut self, endpoint: &str, parameter: Value) -> i64 {
        let id = self.next;
        self.next += 1;
        let frame =
            json!({"type": "channelCreate", "endpoint": endpoint, "channelId": id, "creationParameter": parameter});
        self.say(&frame).await;
        id
    }

    async fn cancel(&mut self, id: i64) {
        self.say(&json!({"type": "channelSend", "channelId": id, "message": {"type": "cancel"}}))
            .await;
    }

    /// The next message on a channel; `None` at its end.
    async fn message(&mut self, id: i64) -> Option<Value> {
        let frame = self.hear_answer().await;
        assert_eq!(frame["channelId"], id, "{frame}");
        (frame["type"] == "channelSend").then(|| frame["message"].clone())
    }

    async fn finish(&mut self, id: i64) -> Channel {
        let mut messages = Vec::new();
        loop {
            let frame = self.hear_answer().await;
            assert_eq!(frame["channelId"], id, "{frame}");
            match frame["type"].as_str().unwrap() {
                "channelSend" => messages.push(frame["message"].clone()),
                "channelClose" => return Channel { messages, error: None },
                _ => {
                    let error = Some(frame["error"].clone());
                    return Channel { messages, error };
                }
            }
        }
    }

    async fn channel(&mut self, endpoint: &str, parameter: Value) -> Channel {
        let id = self.begin(endpoint, parameter).await;
        self.finish(id).await
    }

    async fn load(&mut self, name: &str) -> Value {
        let channel = self
            .channel(
                "getOrLoad",
                json!({"identifier": name, "loadConfigStack": {"layers": []}}),
            )
            .await;
        channel.last()["info"].clone()
    }
}

fn query(identifier: &str) -> Value {
    json!({"type": "query", "query": {"identifier": identifier}})
}

fn prompt(identifier: &str, fields: &Value) -> Value {
    json!({
        "modelSpecifier": query(identifier),
        "history": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        "predictionConfigStack": {"layers": [{"layerName": "apiOverride", "config": {"fields": fields}}]},
    })
}

fn tokens(count: u32) -> Value {
    json!([{"key": "llm.prediction.maxPredictedTokens", "value": {"checked": true, "value": count}}])
}

async fn scaled(env: &[(&'static str, &str)], connections: ConnectionLimits) -> Server {
    Server::start(Setup {
        engine: Engine::Stub(env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()),
        settings: ApiSettings {
            connections,
            ..settings()
        },
        ..Setup::default()
    })
    .await
}
