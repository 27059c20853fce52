//! The sockets of LM Studio's libraries (LM Studio contract 10, promise W3), with the stub engine.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_api::{ApiSettings, ConnectionLimits};
use serde_json::{Value, json};
use testkit::{FakeOrigin, HubRepo, OriginFault, Recorded, read_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Engine, Server, Setup, call, get, patiently, settings, until, with_stub};

const NAMESPACES: [&str; 8] = [
    "/llm",
    "/embedding",
    "/system",
    "/files",
    "/repository",
    "/diagnostics",
    "/runtime",
    "/plugins",
];

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

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_on_every_listener() {
    let server = Server::plain().await;
    for to in [server.ollama, server.lmstudio, server.management] {
        for path in NAMESPACES {
            let (mut client, answer) = Client::login(to, path, "guest:a", "b").await;
            assert_eq!(answer, json!({"success": true}), "{path}");
            client.say(&json!({"type": "keepAlive"})).await;
            assert_eq!(client.hear_answer().await, json!({"type": "keepAliveAck"}));
            let error = client.call("noSuchEndpoint", json!({})).await.unwrap_err();
            assert!(error["title"].as_str().unwrap().contains("noSuchEndpoint"), "{error}");
        }
    }
    for path in ["/llms", "/", "/llm/x"] {
        let refused = upgrade(server.lmstudio, path, &[]).await.unwrap_err();
        assert!(matches!(refused, Error::Http(response) if response.status() == 404 || path == "/"));
    }
    let plain = get(server.lmstudio, "/llm").await;
    assert_eq!(
        (plain.status, plain.header("upgrade")),
        (StatusCode::UPGRADE_REQUIRED, "websocket")
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_obey_the_guard() {
    let server = Server::plain().await;
    let status = |refused: Result<_, Error>| match refused {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    for (headers, llm, diagnostics) in [
        (&[("origin", "https://evil.example")][..], 403, 403),
        (&[("origin", "null")][..], 403, 403),
        (&[("origin", "http://localhost:3000")][..], 101, 403),
        (&[("sec-fetch-site", "cross-site")][..], 403, 403),
        (&[("host", "evil.example")][..], 403, 403),
        (&[][..], 101, 101),
    ] {
        assert_eq!(
            status(upgrade(server.lmstudio, "/llm", headers).await),
            llm,
            "{headers:?}"
        );
        assert_eq!(
            status(upgrade(server.lmstudio, "/diagnostics", headers).await),
            diagnostics,
            "{headers:?}"
        );
    }
    for path in ["/repository", "/runtime", "/plugins"] {
        let page = [("origin", "http://localhost:3000")];
        assert_eq!(status(upgrade(server.lmstudio, path, &page).await), 403, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_binds_a_client() {
    let limits = ConnectionLimits {
        head_timeout: Duration::from_secs(1),
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    // Silence, and frames that are none.
    let mut silent = Client::bare(server.lmstudio, "/llm").await;
    for frame in [json!({"type": "keepAlive"}), json!(5), json!({"authVersion": 1})] {
        silent.say(&frame).await;
    }
    assert_eq!(
        silent.hear().await.unwrap(),
        json!({"success": false, "error": "Authentication timed out"})
    );
    assert_eq!(silent.hear().await.unwrap_err(), Some(CloseCode::Policy));
    // The first passkey binds the identifier while a socket of it is open.
    let (first, _) = Client::login(server.lmstudio, "/llm", "a", "1").await;
    let (_, second) = Client::login(server.ollama, "/system", "a", "1").await;
    assert_eq!(second["success"], true);
    let (mut other, refused) = Client::login(server.lmstudio, "/llm", "a", "2").await;
    assert!(refused["success"] == false && refused["error"].is_string(), "{refused}");
    assert!(other.hear().await.is_err());
    drop(first);
    patiently("the identifier to become free", async {
        while Client::login(server.lmstudio, "/llm", "a", "2").await.1["success"] != true {}
    })
    .await;
    let mut flood = Client::bare(server.lmstudio, "/llm").await;
    for _ in 0..70 {
        if flood.socket.send(Message::text("x")).await.is_err() {
            break;
        }
    }
    assert!(flood.hear().await.is_ok_and(|answer| answer["success"] == false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_wrong() {
    let server = Server::plain().await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    // At most five warnings per connection, and an answer to every call.
    for n in 0..8 {
        let error = client.call("noSuchEndpoint", json!({})).await.unwrap_err();
        assert_eq!(error["title"], "Unknown endpoint noSuchEndpoint");
        assert_eq!(client.warnings.len(), 5.min(n + 1));
    }
    assert_eq!(
        client.warnings[0],
        "Received rpcCall for unknown endpoint, endpoint = noSuchEndpoint"
    );
    let mut client = Client::open(server.lmstudio, "/llm").await;
    let error = client.call("tokenize", json!({"specifier": 5})).await.unwrap_err();
    assert!(
        error["title"]
            .as_str()
            .unwrap()
            .starts_with("The parameter of tokenize"),
        "{error}"
    );
    assert!(client.warnings[0].contains("invalid parameter"));
    let failed = client.channel("predict", json!({})).await;
    assert!(failed.error.unwrap()["title"].as_str().unwrap().contains("predict"));
    for frame in ["not json", "{}", "[]", r#"{"type":"rpcCall"}"#] {
        client.socket.send(Message::text(frame)).await.unwrap();
    }
    client.socket.send(Message::binary(vec![1, 2])).await.unwrap();
    client
        .say(&json!({"type": "channelSend", "channelId": 99, "message": {"type": "cancel"}, "ackId": 7}))
        .await;
    let ack = client.hear_answer().await;
    assert_eq!(ack, json!({"type": "channelAck", "channelId": 99, "ackId": 7}));
    assert_eq!(client.warnings.len(), 5);
    client
        .say(&json!({"type": "signalSubscribe", "subscribeId": 4, "endpoint": "x"}))
        .await;
    assert_eq!(client.hear_answer().await["type"], "signalError");
    client
        .say(&json!({"type": "communicationWarning", "warning": "no idea"}))
        .await;
    assert!(
        client.call("listLoaded", Value::Null).await.is_ok(),
        "the socket still serves"
    );

    // Larger than 64 MiB: said in the frame's head, nothing of it is read.
    let mut stream = client.socket.into_inner();
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&((64_u64 << 20) + 1).to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    stream.write_all(&head).await.unwrap();
    let mut answer = Vec::new();
    patiently("the close", stream.read_to_end(&mut answer)).await.unwrap();
    let code = u16::from(CloseCode::Size).to_be_bytes();
    assert!(answer.windows(2).any(|pair| pair == code), "{answer:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_loads_and_what_is_told_about_them() {
    let (server, _record) = with_stub(&[]).await;
    let mut llm = Client::open(server.lmstudio, "/llm").await;
    let mut system = Client::open(server.lmstudio, "/system").await;
    let downloaded = system.call("listDownloadedModels", Value::Null).await.unwrap();
    let kinds: Vec<&str> = downloaded
        .as_array()
        .unwrap()
        .iter()
        .map(|info| info["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["llm", "embedding"],
        "models of other kinds are left out: {downloaded}"
    );
    assert_eq!(llm.call("listLoaded", Value::Null).await.unwrap(), json!([]));

    let loading = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-chat", "loadTtlMs": 60000, "loadConfigStack": {"layers": [
        {"layerName": "apiOverride", "config": {"fields": [
            {"key": "llm.load.contextLength", "value": 512}, {"key": "llm.load.numParallelSessions", "value": 1}]}}]}}),
        )
        .await;
    let kinds = loading.kinds();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("startLoading", "loadSuccess"));
    assert_eq!(loading.messages[0]["identifier"], "tiny-chat");
    let progress: Vec<f64> = loading
        .messages
        .iter()
        .filter_map(|message| message["progress"].as_f64())
        .collect();
    assert!(
        progress.windows(2).all(|pair| pair[0] <= pair[1]) && progress.last() == Some(&1.0),
        "{progress:?}"
    );
    let info = &loading.last()["info"];
    assert_eq!(
        (&info["identifier"], &info["contextLength"], &info["ttlMs"]),
        (&json!("tiny-chat"), &json!(512), &json!(60000))
    );
    let again = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "TINY-CHAT", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(again.kinds(), ["alreadyLoaded"]);
    assert_eq!(
        again.messages[0]["info"]["instanceReference"],
        info["instanceReference"]
    );

    let reference = json!({"type": "instanceReference", "instanceReference": info["instanceReference"]});
    for specifier in [
        query("tiny-chat"),
        reference.clone(),
        json!({"type": "query", "query": {}}),
    ] {
        let found = llm
            .call("getModelInfo", json!({"specifier": specifier, "throwIfNotFound": true}))
            .await
            .unwrap();
        assert_eq!(found["modelKey"], "tiny-chat");
    }
    let config = llm
        .call("getLoadConfig", json!({"specifier": reference}))
        .await
        .unwrap();
    assert!(
        config["fields"]
            .as_array()
            .unwrap()
            .contains(&json!({"key": "llm.load.contextLength", "value": 512}))
    );
    let state = llm
        .call(
            "getInstanceProcessingState",
            json!({"specifier": query("tiny-chat"), "throwIfNotFound": true}),
        )
        .await;
    assert_eq!(state.unwrap(), json!({"status": "idle", "queued": 0}));
    assert!(
        llm.call("getBasePredictionConfig", json!({"specifier": query("tiny-chat")}))
            .await
            .unwrap()["fields"]
            .is_array()
    );
    let usage = llm
        .call(
            "estimateModelUsage",
            json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}}),
        )
        .await
        .unwrap();
    assert!(
        usage["memory"]["totalBytes"].as_u64().unwrap() > 0 && usage["passesGuardrails"].is_boolean(),
        "{usage}"
    );

    // A second instance, under a number and under a name.
    let second = llm
        .channel(
            "loadModel",
            json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(
        (second.kinds()[0], &second.last()["info"]["identifier"]),
        ("resolved", &json!("tiny-chat:2"))
    );
    assert_eq!(second.last()["info"]["ttlMs"], Value::Null);
    let named = json!({"modelKey": "tiny-chat", "identifier": "mine", "loadConfigStack": {"layers": []}});
    assert_eq!(
        llm.channel("loadModel", named.clone()).await.last()["info"]["identifier"],
        "mine"
    );
    let taken = llm.channel("loadModel", named).await.error.unwrap();
    assert!(taken["title"].as_str().unwrap().contains("already exists"), "{taken}");
    assert_eq!(
        llm.call("listLoaded", Value::Null)
            .await
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    for identifier in ["mine", "tiny-chat:2"] {
        llm.call("unloadModel", json!({"identifier": identifier}))
            .await
            .unwrap();
    }

    // Nothing is loaded for a query, and every question about what is not there is answered at once.
    let mut embedding = Client::open(server.lmstudio, "/embedding").await;
    let not_there = [
        (
            "getModelInfo",
            json!({"specifier": query("nope"), "throwIfNotFound": true}),
        ),
        ("getLoadConfig", json!({"specifier": query("nope")})),
        (
            "tokenize",
            json!({"specifier": query("text-embedding-tiny-embed"), "inputString": "x"}),
        ),
        ("countTokens", json!({"specifier": query("nope"), "inputString": "x"})),
        (
            "embedString",
            json!({"modelSpecifier": query("tiny-embed"), "inputString": "x"}),
        ),
        ("unloadModel", json!({"identifier": "tiny-embed"})),
    ];
    for (endpoint, parameter) in not_there {
        let error = embedding.call(endpoint, parameter).await.unwrap_err();
        assert_eq!(
            error["displayData"]["code"], "generic.noModelMatchingQuery",
            "{endpoint}: {error}"
        );
        assert_eq!(error["displayData"]["totalLoadedModels"], 0);
    }
    let quiet = embedding
        .call(
            "getModelInfo",
            json!({"specifier": query("nope"), "throwIfNotFound": false}),
        )
        .await;
    assert_eq!(quiet.unwrap(), Value::Null);
    for endpoint in ["predict", "completeRawText"] {
        let mut parameter = prompt("nope", &json!([]));
        parameter["rawPrompt"] = "x".into();
        let error = llm.channel(endpoint, parameter).await.error.unwrap();
        assert_eq!(error["displayData"]["code"], "generic.noModelMatchingQuery");
    }
    for name in ["nope", "a/b"] {
        let error = llm
            .channel(
                "getOrLoad",
                json!({"identifier": name, "loadConfigStack": {"layers": []}}),
            )
            .await
            .error
            .unwrap();
        assert_eq!(error["displayData"]["code"], "generic.noModelMatchingQuery");
    }
    let error = llm
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-embed", "loadConfigStack": {"layers": []}}),
        )
        .await
        .error
        .unwrap();
    assert_eq!(error["displayData"]["code"], "generic.domainMismatch");

    // A load just in time evicts the other one of that kind, and says so.
    let evicting = embedding
        .channel(
            "getOrLoad",
            json!({"identifier": "tiny-embed", "loadConfigStack": {"layers": []}}),
        )
        .await;
    assert_eq!(evicting.kinds()[..2], ["unloadingOtherJITModel", "startLoading"]);
    assert_eq!(evicting.messages[0]["info"]["modelKey"], "tiny-chat");
    assert_eq!(evicting.last()["info"]["identifier"], "text-embedding-tiny-embed");
    let gone = llm
        .call("getModelInfo", json!({"specifier": reference, "throwIfNotFound": true}))
        .await
        .unwrap_err();
    assert_eq!(gone["displayData"]["code"], "generic.specificModelUnloaded");
    let vector = embedding
        .call(
            "embedString",
            json!({"modelSpecifier": query("tiny-embed"), "inputString": "cat"}),
        )
        .await
        .unwrap();
    assert!(!vector["embedding"].as_array().unwrap().is_empty());
    assert!(llm.warnings.is_empty() && embedding.warnings.is_empty() && system.warnings.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions() {
    let (server, _record) = with_stub(&[]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    let whole = client.channel("predict", prompt("tiny-chat", &tokens(5))).await;
    assert_eq!(whole.text(), " tok0 tok1 tok2 tok3 tok4");
    let success = whole.last();
    assert_eq!(success["stats"]["stopReason"], "maxPredictedTokensReached", "{success}");
    assert_eq!(success["modelInfo"]["identifier"], "tiny-chat");
    assert!(success["loadModelConfig"]["fields"].is_array() && success["predictionConfig"]["fields"].is_array());

    // Five at once on one socket.
    let ids = [
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
        client.begin("predict", prompt("tiny-chat", &tokens(20))).await,
    ];
    let mut closed = 0;
    while closed < ids.len() {
        let frame = client.hear_answer().await;
        assert!(
            ids.iter().any(|id| frame["channelId"] == *id) && frame["type"] != "channelError",
            "{frame}"
        );
        closed += usize::from(frame["type"] == "channelClose");
    }

    // Text completion: the old layer and the new endpoint send the same prompt.
    let mut old = prompt("tiny-chat", &tokens(2));
    old["predictionConfigStack"]["layers"].as_array_mut().unwrap().push(json!({
        "layerName": "completeModeFormatting",
        "config": {"fields": [{"key": "llm.prediction.promptTemplate", "value": {"type": "jinja", "stopStrings": []}}]},
    }));
    let old = client.channel("predict", old).await;
    let mut new = prompt("tiny-chat", &tokens(2));
    new["rawPrompt"] = "hi".into();
    let new = client.channel("completeRawText", new).await;
    assert_eq!(
        (old.text(), new.text()),
        (" tok0 tok1".to_owned(), " tok0 tok1".to_owned())
    );
    let config = old.last()["predictionConfig"].to_string();
    assert!(!config.contains("promptTemplate"), "{config}");

    let mut preset = prompt("tiny-chat", &json!([]));
    preset["fuzzyPresetIdentifier"] = "poet".into();
    let error = client.channel("predict", preset).await.error.unwrap();
    assert_eq!(error["displayData"]["code"], "generic.presetNotFound");

    // Files: an image for a model without vision, a text, an unknown one.
    let mut files = Client::open(server.lmstudio, "/files").await;
    let image = json!({"name": "a.png", "contentBase64": "iVBORw0KGgo="});
    let first = files.call("uploadFileBase64", image.clone()).await.unwrap();
    let second = files.call("uploadFileBase64", image).await.unwrap();
    assert_eq!((&first["fileType"], &first["sizeBytes"]), (&json!("image"), &json!(8)));
    assert_ne!(first["identifier"], second["identifier"]);
    assert!(
        files
            .call("uploadFileBase64", json!({"name": "x", "contentBase64": "%"}))
            .await
            .is_err()
    );
    let with_file = |identifier: &Value| {
        let mut asked = prompt("tiny-chat", &tokens(1));
        asked["history"]["messages"][0]["content"] =
            json!([{"type": "file", "name": "f", "identifier": identifier, "sizeBytes": 8, "fileType": "image"}]);
        asked
    };
    let text = files
        .call("uploadFileBase64", json!({"name": "a.txt", "contentBase64": "aGk="}))
        .await
        .unwrap();
    assert!(
        client
            .channel("predict", with_file(&first["identifier"]))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("predict", with_file(&json!("unknown")))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("predict", with_file(&text["identifier"]))
            .await
            .error
            .is_none()
    );
    assert!(client.warnings.is_empty());
    server.stop().await;
}

fn was_stopped(record: &std::path::Path) -> bool {
    read_record(record)
        .unwrap()
        .iter()
        .any(|event| matches!(event, Recorded::Gone { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_prediction_is_a_success_and_stops_the_engine() {
    let (server, record) = with_stub(&[("STUB_RATE", "50")]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    let id = client.begin("predict", prompt("tiny-chat", &tokens(100_000))).await;
    while client.message(id).await.unwrap()["type"] != "fragment" {}
    client.cancel(id).await;
    let rest = client.finish(id).await;
    assert_eq!(rest.last()["stats"]["stopReason"], "userStopped");
    assert!(rest.messages.len() < 10, "{}", rest.messages.len());
    until("the engine to stop", || was_stopped(&record)).await;
    until("the slot", || server.router.active_requests().is_empty()).await;
    // A cancel that comes too late is nothing.
    client.cancel(id).await;
    assert!(client.call("listLoaded", Value::Null).await.is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_closes_stops_its_predictions_and_loads() {
    let (server, record) = with_stub(&[("STUB_RATE", "50")]).await;
    let mut other = Client::open(server.lmstudio, "/llm").await;
    other.load("tiny-chat").await;
    for politely in [true, false] {
        let mut client = Client::open(server.lmstudio, "/llm").await;
        let id = client.begin("predict", prompt("tiny-chat", &tokens(100_000))).await;
        while client.message(id).await.unwrap()["type"] != "fragment" {}
        assert_eq!(server.router.active_requests().len(), 1);
        if politely {
            client.socket.close(None).await.unwrap();
        } else {
            drop(client);
        }
        until("the slot", || server.router.active_requests().is_empty()).await;
    }
    until("the engine to stop", || was_stopped(&record)).await;
    server.stop().await;

    let (server, _record) = with_stub(&[("STUB_LOAD_MS", "60000"), ("STUB_LOAD_STEPS", "600")]).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    let parameter = json!({"modelKey": "tiny-chat", "loadConfigStack": {"layers": []}});
    let id = client.begin("loadModel", parameter.clone()).await;
    assert_eq!(client.message(id).await.unwrap()["type"], "resolved");
    client.cancel(id).await;
    let error = client.finish(id).await.error.unwrap();
    assert!(error["title"].as_str().unwrap().contains("cancelled"), "{error}");
    until("the load to end", || server.router.instances().is_empty()).await;
    for endpoint in ["loadModel", "getOrLoad"] {
        let mut client = Client::open(server.lmstudio, "/llm").await;
        let mut parameter = parameter.clone();
        parameter["identifier"] = "tiny-chat".into();
        let id = client.begin(endpoint, parameter).await;
        client.message(id).await.unwrap();
        until("the load", || !server.router.instances().is_empty()).await;
        drop(client);
        until("the load to end", || server.router.instances().is_empty()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_breaks_is_an_error_on_the_channel() {
    for variable in ["STUB_CUT_AFTER", "STUB_DIE_TOKENS"] {
        let value = if variable == "STUB_CUT_AFTER" {
            "3"
        } else {
            "3,signal:9"
        };
        let (server, _record) = with_stub(&[(variable, value)]).await;
        let mut client = Client::open(server.lmstudio, "/llm").await;
        client.load("tiny-chat").await;
        let broken = client.channel("predict", prompt("tiny-chat", &tokens(50))).await;
        assert!(
            broken.error.is_some() && !broken.kinds().contains(&"success"),
            "{variable}: {broken:?}"
        );
        assert!(!broken.text().is_empty());
        assert!(
            client.call("listLoaded", Value::Null).await.is_ok(),
            "the socket still serves"
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed() {
    let limits = ConnectionLimits {
        write_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    let mut client = Client::open(server.lmstudio, "/llm").await;
    client.load("tiny-chat").await;
    for _ in 0..3 {
        client.begin("predict", prompt("tiny-chat", &tokens(2_000_000))).await;
    }
    until("the predictions", || !server.router.active_requests().is_empty()).await;
    // Nothing is read from here on: the queue fills, the engine waits, then the socket is given up.
    until("the slots", || server.router.active_requests().is_empty()).await;
    // Nor is a flood of questions taken whose answers nobody takes.
    let mut flood = Client::open(server.lmstudio, "/llm").await;
    let frame = Message::text(json!({"type": "rpcCall", "endpoint": "listLoaded", "callId": 1}).to_string());
    patiently("the end of the flood", async {
        while flood.socket.send(frame.clone()).await.is_ok() {}
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_socket_is_closed() {
    let limits = ConnectionLimits {
        idle_timeout: Duration::from_secs(1),
        total: 2,
        ..ConnectionLimits::default()
    };
    let server = scaled(&[], limits).await;
    // Sockets count as connections.
    let one = Client::open(server.lmstudio, "/llm").await;
    let mut two = Client::open(server.lmstudio, "/llm").await;
    assert!(upgrade(server.lmstudio, "/llm", &[]).await.is_err());
    // One never answers pings (its socket is not even read), the other does.
    let until_free = async {
        loop {
            let alive = two.call("listLoaded", Value::Null).await;
            assert!(alive.is_ok());
            if let Ok(socket) = upgrade(server.lmstudio, "/llm", &[]).await {
                return socket;
            }
        }
    };
    drop(patiently("the silent socket's place", until_free).await);
    drop(one);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_its_logs() {
    let (server, _record) = with_stub(&[]).await;
    let mut system = Client::open(server.lmstudio, "/system").await;
    let version = system.call("version", Value::Null).await.unwrap();
    assert!(
        version["version"].as_str().unwrap().starts_with("0.4.") && version["build"].is_u64(),
        "{version}"
    );
    assert_eq!(
        system.call("info", Value::Null).await.unwrap()["pid"],
        std::process::id()
    );
    assert_eq!(system.call("notify", json!({"title": "a"})).await.unwrap(), Value::Null);
    assert_eq!(system.call("getExperimentFlags", Value::Null).await.unwrap(), json!([]));
    let variants = system
        .call("listDownloadedModelVariants", json!({"modelKey": "tiny-chat"}))
        .await
        .unwrap();
    assert_eq!(variants.as_array().unwrap().len(), 1);
    for endpoint in ["requestShutdown", "startHttpServer", "stopHttpServer"] {
        let error = system.call(endpoint, json!({})).await.unwrap_err();
        assert!(error["title"].as_str().unwrap().contains("not supported"), "{error}");
    }
    let alive = system.begin("alive", Value::Null).await;
    let mut repository = Client::open(server.lmstudio, "/repository").await;
    assert_eq!(
        repository.call("isAuthenticated", Value::Null).await.unwrap(),
        json!({"authenticated": false})
    );
    for (path, endpoint) in [
        ("/runtime", "getEngineSelections"),
        ("/plugins", "setConfig"),
        ("/files", "retrieve"),
    ] {
        let mut client = Client::open(server.lmstudio, path).await;
        let error = client.call(endpoint, json!({})).await.unwrap_err();
        assert!(error["title"].as_str().unwrap().contains("not supported"), "{error}");
        assert!(client.warnings.is_empty(), "refused politely: {:?}", client.warnings);
    }

    let mut logs = Client::open(server.lmstudio, "/diagnostics").await;
    let id = logs.begin("streamLogs", Value::Null).await;
    // An answer means that the frame before it was read too.
    logs.say(&json!({"type": "keepAlive"})).await;
    assert_eq!(logs.hear_answer().await["type"], "keepAliveAck");
    let mut llm = Client::open(server.lmstudio, "/llm").await;
    llm.load("tiny-chat").await;
    llm.channel("predict", prompt("tiny-chat", &tokens(2))).await.last();
    let mut seen = Vec::new();
    while !seen.contains(&"llm.prediction.output".to_owned()) {
        let event = logs.message(id).await.unwrap();
        assert!(event["type"] == "log" && event["log"]["timestamp"].is_i64(), "{event}");
        let data = &event["log"]["data"];
        match data["type"].as_str().unwrap() {
            "llm.prediction.input" => assert_eq!(data["modelIdentifier"], "tiny-chat"),
            "llm.prediction.output" => assert_eq!(data["output"], " tok0 tok1"),
            "runtime.log" | "server.log" => {}
            other => panic!("{other}"),
        }
        seen.push(data["type"].as_str().unwrap().to_owned());
    }
    assert!(seen.contains(&"llm.prediction.input".to_owned()), "{seen:?}");
    // Libraries of the older generation know prompts alone.
    let (mut older, _) = Client::login(server.lmstudio, "/diagnostics", "no-guest", "x").await;
    let old_id = older.begin("streamLogs", Value::Null).await;
    older.say(&json!({"type": "keepAlive"})).await;
    assert_eq!(older.hear_answer().await["type"], "keepAliveAck");
    for _ in 0..2 {
        llm.channel("predict", prompt("tiny-chat", &tokens(2))).await.last();
        let event = older.message(old_id).await.unwrap();
        assert_eq!(event["log"]["data"]["type"], "llm.prediction.input", "{event}");
    }
    logs.say(&json!({"type": "channelSend", "channelId": id, "message": {"type": "stop"}}))
        .await;
    assert!(logs.finish(id).await.error.is_none());
    let _ = alive;
    // Sockets and endless channels do not keep the server from stopping.
    logs.begin("streamLogs", Value::Null).await;
    server.stop().await;
    assert_eq!(system.hear().await.unwrap_err(), Some(CloseCode::Away));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_upgrade_are_frames_not_http() {
    let server = Server::plain().await;
    // All in one write: the head, and frames that would be a refused request.
    let mut bytes = format!(
        "GET /llm HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.lmstudio
    )
    .into_bytes();
    let auth = br#"{"authVersion":1,"clientIdentifier":"early\n","clientPasskey":"b"}"#;
    bytes.extend_from_slice(&[0x81, 0x80 | u8::try_from(auth.len()).unwrap(), 0, 0, 0, 0]);
    bytes.extend_from_slice(auth);
    let mut stream = TcpStream::connect(server.lmstudio).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = String::new();
    let expected = r#"{"success":true}"#;
    while !answer.contains(expected) {
        let mut piece = [0; 512];
        let read = patiently("the answer", stream.read(&mut piece)).await.unwrap();
        assert!(read > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{answer}"
    );
    // A request that is not upgraded keeps the strict framing.
    let refused = call(
        server.lmstudio,
        "GET",
        "/llm",
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
        "",
    )
    .await;
    assert_eq!(refused.status, StatusCode::UPGRADE_REQUIRED);
    server.stop().await;
}

fn tiny(name: &str) -> Vec<u8> {
    std::fs::read(testkit::models_dir().join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_and_downloads() {
    let origin = FakeOrigin::start().await.unwrap();
    origin.add_hub_repo(
        "acme/Small-GGUF",
        HubRepo::new()
            .lfs("Small-Q4_K_M.gguf", tiny("tiny-chat.gguf"))
            .lfs("Small-F16.gguf", tiny("tiny-chat.gguf")),
    );
    let server = Server::start(Setup {
        origin: Some(origin.url()),
        ..Setup::default()
    })
    .await;
    let mut client = Client::open(server.lmstudio, "/repository").await;
    let found = client
        .call("searchModels", json!({"opts": {"searchTerm": "small", "limit": 5}}))
        .await
        .unwrap();
    let identifier = json!({"type": "hf", "identifier": "acme/Small-GGUF"});
    assert_eq!(
        found["results"],
        json!([{"name": "acme/Small-GGUF", "identifier": identifier}])
    );
    let asked = json!({"modelSearchResultIdentifier": identifier});
    let options = client.call("getModelDownloadOptions", asked).await.unwrap()["results"].clone();
    assert_eq!(options.as_array().unwrap().len(), 2, "{options}");
    let best = options
        .as_array()
        .unwrap()
        .iter()
        .find(|option| option["recommended"] == true)
        .unwrap();
    assert_eq!(
        (&best["quantization"], &best["compatibilityType"]),
        (&json!("Q4_K_M"), &json!("gguf"))
    );
    assert!(
        best["sizeBytes"].is_u64() && best["fitEstimation"].is_string(),
        "{best}"
    );
    let missing = json!({"modelSearchResultIdentifier": {"type": "hf", "identifier": "acme/nothing"}});
    assert!(client.call("getModelDownloadOptions", missing).await.is_err());

    let target = json!({"downloadIdentifier": best["downloadIdentifier"]});
    let download = client.channel("downloadModel", target).await;
    assert_eq!(download.last()["type"], "success");
    for message in &download.messages[..download.messages.len() - 1] {
        let update = &message["update"];
        assert!(
            message["type"] == "startFinalizing" || update["downloadedBytes"].as_u64() <= update["totalBytes"].as_u64()
        );
    }
    // The folder of downloads is not among the test's model folders, so it has no key.
    assert_eq!(
        download.last()["defaultIdentifier"],
        "acme/Small-GGUF/Small-Q4_K_M.gguf"
    );
    assert!(
        client
            .channel("downloadModel", json!({"downloadIdentifier": "acme/nothing/x.gguf"}))
            .await
            .error
            .is_some()
    );
    assert!(
        client
            .channel("downloadModel", json!({"downloadIdentifier": "nonsense"}))
            .await
            .error
            .is_some()
    );

    // A client's cancel ends the download.
    origin.add_hub_repo(
        "acme/Slow-GGUF",
        HubRepo::new().lfs("Slow-Q8_0.gguf", tiny("tiny-chat.gguf")),
    );
    origin.fault("Slow-Q8_0.gguf", OriginFault::Stall { after: 1000 });
    let id = client
        .begin(
            "downloadModel",
            json!({"downloadIdentifier": "acme/Slow-GGUF/Slow-Q8_0.gguf"}),
        )
        .await;
    until("the download to begin", || {
        origin
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/Slow-Q8_0.gguf"))
    })
    .await;
    client.cancel(id).await;
    let error = client.finish(id).await.error.unwrap();
    assert!(error["title"].as_str().unwrap().contains("cancelled"), "{error}");
    server.stop().await;
}
