//! Chats that name themselves go on without their client and can be read again (llama-server's resumable streams).

use std::path::PathBuf;

use domain::ModelState;
use http_api::{Limits, ListenerRules};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::{Recorded, read_record};

use crate::harness::{Engine, Reply, Server, Setup, call, drain, open, patiently, until, with_stub};

const NAMED: (&str, &str) = ("X-Conversation-Id", "chat one::tiny/chat");
const QUERY: &str = "conv_id=chat%20one%3A%3Atiny%2Fchat";

/// A file that a stub waits for.
struct Gate(tempfile::TempDir);

impl Gate {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("open")
    }

    fn text(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn open(&self) {
        std::fs::write(self.path(), b"").unwrap();
    }
}

fn chat(stub: &Value) -> String {
    json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": true, "stub": stub})
        .to_string()
}

async fn resume(server: &Server, from: usize) -> Reply {
    call(
        server.ollama,
        "GET",
        &format!("/v1/stream?{QUERY}&from={from}"),
        &[],
        "",
    )
    .await
}

async fn stop(server: &Server) -> Reply {
    call(server.ollama, "DELETE", &format!("/v1/stream?{QUERY}"), &[], "").await
}

async fn state(server: &Server) -> Value {
    let body = json!({"conversation_ids": ["chat one", "somebody else's"]}).to_string();
    call(server.ollama, "POST", "/v1/streams/lookup", &[], body)
        .await
        .json()
}

/// Asks and waits for the first piece of the answer.
async fn begin(server: &Server, stub: &Value) -> hyper::body::Incoming {
    let reply = open(server.ollama, "POST", "/v1/chat/completions", &[NAMED], chat(stub)).await;
    assert_eq!(reply.status(), 200);
    let mut body = reply.into_body();
    patiently("the first piece", body.frame()).await.unwrap().unwrap();
    body
}

/// Every piece once and in order, to the end.
fn whole_answer(bytes: &[u8], tokens: usize) {
    let marks = testkit::stub_marks(bytes);
    assert!(marks.len() >= tokens, "{} pieces", marks.len());
    assert!(marks.iter().enumerate().all(|(n, mark)| mark.seq == n as u64));
    assert!(bytes.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_again_from_any_byte_until_it_is_stopped() {
    let (server, _record) = with_stub(&[]).await;
    assert_eq!(resume(&server, 0).await.status, 404);
    let stub = json!({"tokens": 40});
    let reply = open(server.ollama, "POST", "/v1/chat/completions", &[NAMED], chat(&stub)).await;
    let whole = drain(reply.into_body()).await;
    assert!(whole.ends_with(b"data: [DONE]\n\n"));
    for from in [0, 1, 100, whole.len() - 1, whole.len()] {
        let again = resume(&server, from).await;
        assert_eq!(again.status, 200);
        assert!(again.header("content-type").starts_with("text/event-stream"));
        assert_eq!(again.body, whole[from..], "from {from}");
    }
    assert_eq!(resume(&server, whole.len() + 1).await.status, 400);
    let told = state(&server).await;
    assert_eq!(told[0]["conversation_id"], NAMED.1);
    assert_eq!(told[0]["is_done"], true);
    assert_eq!(told[0]["total_bytes"], whole.len());
    assert_eq!(told.as_array().unwrap().len(), 1);
    assert_eq!(stop(&server).await.status, 204);
    assert_eq!(resume(&server, 0).await.status, 404);
    assert_eq!(stop(&server).await.status, 204);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_goes_on_when_its_client_leaves() {
    let gate = Gate::new();
    let (server, record) = with_stub(&[("STUB_TOKEN_GATE", &gate.text())]).await;
    let left = begin(&server, &json!({"tokens": 20})).await;
    drop(left);
    // A reader in the middle of it hears the rest.
    let reading = open(server.ollama, "GET", &format!("/v1/stream?{QUERY}"), &[], "").await;
    assert_eq!(reading.status(), 200);
    gate.open();
    let whole = drain(reading.into_body()).await;
    whole_answer(&whole, 20);
    let cancelled = read_record(&record)
        .unwrap()
        .into_iter()
        .filter(|event| matches!(event, Recorded::Gone { .. }));
    assert_eq!(cancelled.count(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_engines_work_and_every_reader() {
    let gate = Gate::new();
    let (server, _record) = with_stub(&[("STUB_TOKEN_GATE", &gate.text())]).await;
    let asker = begin(&server, &json!({"tokens": 20})).await;
    assert_eq!(stop(&server).await.status, 204);
    let rest = drain(asker).await;
    assert!(!String::from_utf8(rest).unwrap().contains("[DONE]"));
    until("no request is left", || server.router.active_requests().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_chat_of_the_same_name_takes_its_place() {
    let gate = Gate::new();
    let (server, _record) = with_stub(&[("STUB_TOKEN_GATE", &gate.text())]).await;
    let first = begin(&server, &json!({"tokens": 20})).await;
    gate.open();
    let reply = open(
        server.ollama,
        "POST",
        "/v1/chat/completions",
        &[NAMED],
        chat(&json!({"tokens": 5})),
    )
    .await;
    let second = drain(reply.into_body()).await;
    drain(first).await;
    assert_eq!(resume(&server, 0).await.body, second);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_model_loads() {
    let gate = Gate::new();
    let (server, _record) = with_stub(&[("STUB_LOAD_GATE", &gate.text())]).await;
    let asked = open(
        server.ollama,
        "POST",
        "/v1/chat/completions",
        &[NAMED],
        chat(&json!({"tokens": 5})),
    );
    let waited = async {
        loading(&server).await;
        let early = resume(&server, 0).await;
        assert_eq!(early.status, 503);
        assert_eq!(early.header("retry-after"), "1");
        assert_eq!(stop(&server).await.status, 204);
    };
    let (reply, ()) = tokio::join!(asked, waited);
    assert_eq!(reply.status(), 400);
    let told = String::from_utf8(drain(reply.into_body()).await).unwrap();
    assert!(told.contains("cancelled"), "{told}");
    assert_eq!(resume(&server, 0).await.status, 404);

    // The client that leaves during the load finds its answer later.
    {
        let asked = open(
            server.ollama,
            "POST",
            "/v1/chat/completions",
            &[NAMED],
            chat(&json!({"tokens": 5})),
        );
        tokio::select! {
            _ = asked => panic!("answered before the model was loaded"),
            () = loading(&server) => {}
        }
    }
    gate.open();
    let again = patiently("the answer", async {
        loop {
            let again = resume(&server, 0).await;
            if again.status != 503 {
                break again;
            }
        }
    })
    .await;
    whole_answer(&again.body, 5);
    server.stop().await;
}

async fn loading(server: &Server) {
    until("the model loads and a request waits for it", || {
        let loading = |view: &domain::InstanceView| matches!(view.state, ModelState::Loading { .. });
        server.router.instances().iter().any(loading) && !server.router.active_requests().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions() {
    let (server, _record) = with_stub(&[]).await;
    for (method, path, body) in [
        ("GET", "/v1/stream", ""),
        ("GET", "/v1/stream?conv_id=a&from=x", ""),
        ("DELETE", "/v1/stream?conv_id=", ""),
        ("POST", "/v1/streams/lookup", "[]"),
    ] {
        let reply = call(server.ollama, method, path, &[], body).await;
        assert_eq!(reply.status, 400, "{method} {path}");
        assert!(reply.json()["error"]["message"].as_str().is_some());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_complete_counts_for_no_limit() {
    let mut setup = Setup {
        engine: Engine::Stub(Vec::new()),
        ..Setup::default()
    };
    setup.settings.ollama = ListenerRules {
        local: Limits {
            concurrent: Some(1),
            streaming: Some(1),
            ..Limits::default()
        },
        ..ListenerRules::default()
    };
    let server = Server::start(setup).await;
    let ask = async |name: &'static str| {
        let chat = chat(&json!({"tokens": 1}));
        let reply = open(server.ollama, "POST", "/v1/chat/completions", &[(NAMED.0, name)], chat).await;
        let status = reply.status();
        drain(reply.into_body()).await;
        status
    };
    assert_eq!(ask(NAMED.1).await, 200);
    // The task that filled the buffer ends a moment after its reader.
    let mut status = ask("another").await;
    for _ in 0..100 {
        if status != 429 {
            break;
        }
        tokio::task::yield_now().await;
        status = ask("another").await;
    }
    assert_eq!(status, 200);
    assert_eq!(resume(&server, 0).await.status, 200, "it can still be read");
    server.stop().await;
}
