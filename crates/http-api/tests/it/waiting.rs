//! Waiting is visible in every dialect: however long a load takes, a client hears of it all the time, and what keeps it
//! waiting changes no answer. A load ends when its test has heard enough, so that no machine is too slow for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_api::{ApiSettings, WaitingRules};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Engine, Reply, Server, Setup, lines, open, patiently, post, until};

const RULES: WaitingRules = WaitingRules {
    begin_after: Duration::from_millis(250),
    keep_alive_every: Duration::from_millis(250),
};
/// Keep-alives after which a test lets the load go on.
const ENOUGH: usize = 5;

async fn server(env: &[(&'static str, &str)]) -> Server {
    let env = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Server::start(Setup {
        engine: Engine::Stub(env),
        settings: ApiSettings {
            waiting: RULES,
            ..ApiSettings::default()
        },
        ..Setup::default()
    })
    .await
}

/// A server whose models load until the gate is opened.
async fn gated(env: &[(&'static str, &str)]) -> (Server, Gate) {
    let gate = Gate(tempfile::tempdir().unwrap());
    let path = gate.path().to_string_lossy().into_owned();
    let mut all = env.to_vec();
    all.push(("STUB_LOAD_GATE", &path));
    (server(&all).await, gate)
}

struct Gate(tempfile::TempDir);

impl Gate {
    fn path(&self) -> PathBuf {
        self.0.path().join("open")
    }

    fn open(&self) {
        std::fs::write(self.path(), b"").unwrap();
    }

    fn close(&self) {
        std::fs::remove_file(self.path()).unwrap();
    }
}

/// An answer and its pieces; `seen` learns of the pieces there are each time some more have come.
async fn read(to: SocketAddr, path: &str, body: &Value, seen: impl Fn(&[String])) -> (Reply, Vec<String>) {
    let headers = [
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
    ];
    let (parts, mut body) = open(to, "POST", path, &headers, body.to_string()).await.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = patiently("the next piece", body.frame()).await {
        if let Ok(data) = frame.unwrap().into_data() {
            bytes.extend_from_slice(&data);
            seen(&pieces(path, &bytes));
        }
    }
    let pieces = pieces(path, &bytes);
    let reply = Reply {
        status: parts.status,
        headers: parts.headers,
        body: bytes.into(),
    };
    (reply, pieces)
}

/// The whole lines or events of a stream, however the transport cut and joined them.
fn pieces(path: &str, bytes: &[u8]) -> Vec<String> {
    let end = if is_ollamas(path) { "\n" } else { "\n\n" };
    let text = String::from_utf8_lossy(bytes);
    text.split_inclusive(end)
        .filter(|piece| piece.ends_with(end))
        .map(str::to_owned)
        .collect()
}

fn is_ollamas(path: &str) -> bool {
    matches!(path, "/api/chat" | "/api/generate")
}

fn keep_alives(path: &str, pieces: &[String]) -> usize {
    pieces.iter().filter(|piece| is_keep_alive(path, piece)).count()
}

/// A streaming request of each dialect.
fn requests(server: &Server) -> Vec<(SocketAddr, &'static str, Value)> {
    let messages = json!([{"role": "user", "content": "hello"}]);
    let chat = json!({"model": "tiny-chat", "messages": messages, "stream": true, "max_tokens": 5});
    vec![
        (
            server.ollama,
            "/api/chat",
            json!({"model": "tiny-chat", "messages": messages, "options": {"num_predict": 5}}),
        ),
        (
            server.ollama,
            "/api/generate",
            json!({"model": "tiny-chat", "prompt": "hello", "options": {"num_predict": 5}}),
        ),
        (server.ollama, "/v1/chat/completions", chat.clone()),
        (server.lmstudio, "/v1/chat/completions", chat.clone()),
        (
            server.management,
            "/v1/completions",
            json!({"model": "tiny-chat", "prompt": "a", "stream": true, "max_tokens": 5}),
        ),
        (server.lmstudio, "/api/v0/chat/completions", chat.clone()),
        (
            server.lmstudio,
            "/api/v1/chat",
            json!({"model": "tiny-chat", "input": "hello", "stream": true, "max_output_tokens": 5}),
        ),
        (
            server.ollama,
            "/v1/responses",
            json!({"model": "tiny-chat", "input": "hello", "stream": true, "max_output_tokens": 5}),
        ),
        (server.lmstudio, "/v1/messages", chat),
        (
            server.management,
            "/completion",
            json!({"model": "tiny-chat", "prompt": "hello", "stream": true, "n_predict": 5}),
        ),
    ]
}

/// Is this piece of a stream only there to keep the connection alive?
fn is_keep_alive(path: &str, piece: &str) -> bool {
    match path {
        "/api/chat" => piece.contains(r#""message":{"role":"assistant","content":""},"done":false}"#),
        "/api/generate" => piece.contains(r#""response":"","done":false}"#),
        "/v1/messages" => piece == "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        _ => piece.starts_with(": "),
    }
}

/// The text of an answer, put together as clients of the dialect do.
fn text(path: &str, body: &[u8]) -> String {
    let objects: Vec<Value> = if is_ollamas(path) {
        lines(body)
    } else {
        testkit::sse_events(body)
            .into_iter()
            .filter_map(|event| serde_json::from_str(&event).ok())
            .collect()
    };
    let places = [
        "/message/content",
        "/response",
        "/choices/0/delta/content",
        "/choices/0/text",
        "/delta/text",
        "/content",
    ];
    let piece = |object: &Value| {
        let delta = ["response.output_text.delta", "message.delta"]
            .iter()
            .any(|kind| object["type"] == **kind);
        let plain = if delta {
            object["delta"].as_str().or(object["content"].as_str())
        } else {
            None
        };
        plain
            .or_else(|| places.iter().find_map(|place| object.pointer(place)?.as_str()))
            .map(str::to_owned)
    };
    objects.iter().filter_map(piece).collect()
}

/// One server for each dialect: the wait is that for a load.
async fn survives_a_load(number: usize) {
    let (server, gate) = gated(&[]).await;
    let (to, path, body) = requests(&server).swap_remove(number);
    let listen = |pieces: &[String]| {
        if keep_alives(path, pieces) >= ENOUGH {
            gate.open();
        }
    };
    let (reply, pieces) = read(to, path, &body, listen).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    assert_eq!(
        text(path, &reply.body),
        " tok0 tok1 tok2 tok3 tok4",
        "{path}: {pieces:?}"
    );
    // Now that the model is there, the same answer comes without the wait.
    let (again, _) = read(to, path, &body, |_| ()).await;
    assert_eq!(text(path, &again.body), " tok0 tok1 tok2 tok3 tok4", "{path}");
    assert_eq!(
        again.header("content-type").split(';').next(),
        reply.header("content-type").split(';').next(),
        "{path}"
    );
    server.stop().await;
}

macro_rules! each {
    ($($name:ident $number:literal)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            survives_a_load($number).await;
        }
    )*};
}

each! {
    ollama_chat 0
    ollama_generate 1
    openai_chat 2
    openai_chat_of_the_lm_studio_port 3
    openai_completion 4
    lm_studio_v0 5
    lm_studio_v1 6
    openai_responses 7
    anthropic_messages 8
    llama_cpp_completion 9
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_time_has_nothing_added() {
    let (server, _record) = crate::harness::with_stub(&[]).await;
    for (to, path, body) in requests(&server) {
        let (reply, pieces) = read(to, path, &body, |_| ()).await;
        assert_eq!(text(path, &reply.body), " tok0 tok1 tok2 tok3 tok4", "{path}");
        // Ollama's keep-alives look like an answer's first object; Anthropic sends one ping with every start.
        let own = usize::from(path == "/v1/messages");
        assert!(
            is_ollamas(path) || keep_alives(path, &pieces) == own,
            "{path}: {pieces:?}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_ends_a_begun_stream_in_the_dialects_words() {
    futures_util::future::join_all((0..10).map(fails_to_load)).await;
}

async fn fails_to_load(number: usize) {
    let (server, gate) = gated(&[
        ("STUB_DIE_LOADING", "exit:1"),
        // Another try would fail the same way, and is not made.
        ("STUB_DIE_MESSAGE", "unknown model architecture: 'stub'"),
    ])
    .await;
    let (to, path, body) = requests(&server).swap_remove(number);
    let listen = |pieces: &[String]| {
        if keep_alives(path, pieces) > 0 {
            gate.open();
        }
    };
    let (reply, pieces) = read(to, path, &body, listen).await;
    assert_eq!(reply.status, 200, "{path}");
    let last = pieces.concat();
    let error = match path {
        "/api/chat" | "/api/generate" => lines(last.as_bytes()).pop().unwrap()["error"]
            .as_str()
            .map(str::to_owned),
        _ => testkit::sse_events(last.as_bytes())
            .iter()
            .rev()
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .find_map(|event| {
                let places = ["/error/message", "/message", "/response/error/message"];
                places
                    .iter()
                    .find_map(|place| Some(event.pointer(place)?.as_str()?.to_owned()))
            }),
    };
    assert!(error.is_some_and(|error| !error.is_empty()), "{path}: {last}");
    assert!(text(path, last.as_bytes()).is_empty(), "{path}: {last}");
    server.stop().await;
}

/// llama-server's own routes pass its errors on as they are; once the stream has begun they are read like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_engines_error_in_a_begun_stream_is_read_like_any_other() {
    let (server, gate) = gated(&[
        ("STUB_STATUS", "500"),
        (
            "STUB_ERROR",
            "input is too large to process: 24010 tokens, context 4096",
        ),
    ])
    .await;
    let (to, path, body) = requests(&server).swap_remove(9);
    let listen = |pieces: &[String]| {
        if keep_alives(path, pieces) > 0 {
            gate.open();
        }
    };
    let (reply, pieces) = read(to, path, &body, listen).await;
    assert_eq!(reply.status, 200);
    let last: Value = serde_json::from_str(testkit::sse_events(pieces.concat().as_bytes()).last().unwrap()).unwrap();
    let error = &last["error"];
    assert_eq!(error["type"], "exceed_context_size_error", "{last}");
    assert_eq!(
        (&error["n_prompt_tokens"], &error["n_ctx"]),
        (&json!(24010), &json!(4096)),
        "{last}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_begun_stream_leaves_the_queue() {
    for number in [0, 2, 7, 8] {
        let server = server(&[("STUB_LOAD_MS", "600000")]).await;
        let (to, path, body) = requests(&server).swap_remove(number);
        let answer = open(to, "POST", path, &[], body.to_string()).await;
        assert_eq!(server.router.active_requests().len(), 1, "{path}");
        drop(answer);
        until("the request to leave", || server.router.active_requests().is_empty()).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_streams_just_wait() {
    let server = server(&[("STUB_LOAD_MS", "1500")]).await;
    let reply = post(
        server.ollama,
        "/api/chat",
        &json!({"model": "tiny-chat", "stream": false, "messages": [{"role": "user", "content": "x"}]}),
    )
    .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["done"], true);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ollamas_load_of_a_model_is_one_object_after_its_keep_alives() {
    let (server, gate) = gated(&[]).await;
    let listen = |pieces: &[String]| {
        if keep_alives("/api/chat", pieces) >= ENOUGH {
            gate.open();
        }
    };
    let (reply, _) = read(server.ollama, "/api/chat", &json!({"model": "tiny-chat"}), listen).await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let lines = lines(&reply.body);
    assert_eq!(lines.last().unwrap()["done_reason"], "load");
    assert!(lines.len() > ENOUGH, "{}", reply.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silences_inside_a_stream_are_kept_alive() {
    let gate = Gate(tempfile::tempdir().unwrap());
    let path = gate.path().to_string_lossy().into_owned();
    let server = server(&[("STUB_TOKEN_GATE", &path), ("STUB_TOKENS", "3")]).await;
    for number in [0, 2, 7, 8] {
        let (to, path, body) = requests(&server).swap_remove(number);
        // The second token comes when the silence was heard twice.
        let listen = |pieces: &[String]| {
            let first = pieces.iter().position(|piece| piece.contains("tok0"));
            if first.is_some_and(|first| keep_alives(path, &pieces[first..]) >= 2) {
                gate.open();
            }
        };
        let (reply, pieces) = read(to, path, &body, listen).await;
        assert_eq!(reply.status, 200);
        assert_eq!(text(path, &reply.body), " tok0 tok1 tok2", "{path}: {pieces:?}");
        gate.close();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_tells_where_the_time_went() {
    let server = server(&[("STUB_LOAD_MS", "300"), ("STUB_FIRST_MS", "80")]).await;
    let body = json!({"model": "tiny-chat", "stream": false, "messages": [{"role": "user", "content": "x"}]});
    let number = |reply: &Reply, name: &str| reply.header(name).parse::<u64>().unwrap_or_else(|_| panic!("{name}"));
    for path in ["/api/chat", "/v1/chat/completions"] {
        let first = post(server.ollama, path, &body).await;
        let load = number(&first, "x-llamarunner-load-ms");
        assert_eq!(load >= 300, path == "/api/chat", "{path}: {load}");
        assert!(number(&first, "x-llamarunner-first-token-ms") >= 80, "{path}");
        assert!(number(&first, "x-llamarunner-context") >= 512, "{path}");
        let _ = number(&first, "x-llamarunner-queue-ms");
    }
    let origin = [
        ("origin", "http://localhost:3000"),
        ("content-type", "application/json"),
    ];
    let reply = crate::harness::call(server.ollama, "POST", "/api/chat", &origin, body.to_string()).await;
    let exposed = reply.header("access-control-expose-headers").to_lowercase();
    for name in ["queue-ms", "load-ms", "first-token-ms", "context"] {
        assert!(exposed.contains(&format!("x-llamarunner-{name}")), "{exposed}");
    }
    let list = patiently("tags", crate::harness::get(server.ollama, "/api/tags")).await;
    assert_eq!(list.header("x-llamarunner-load-ms"), "");
    server.stop().await;
}
