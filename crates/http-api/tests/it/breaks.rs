//! What happens when one side goes away (promises H1, H3, H7, H9), with the stub engine.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::{Recorded, read_record};

use crate::harness::{Engine, Server, Setup, drain, get, lines, open, patiently, post, until, with_stub};

fn openai(stub: &Value) -> String {
    json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": true, "stub": stub})
        .to_string()
}

const OLLAMA: &str = r#"{"model":"tiny-chat","messages":[{"role":"user","content":"x"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_passed_on_byte_for_byte() {
    let (server, _record) = with_stub(&[]).await;
    for split in [1, 7, 100_000] {
        let body = openai(&json!({"tokens": 300, "text": "Grüße aus 東京 😀", "split": split}));
        let reply = open(server.ollama, "POST", "/v1/chat/completions", &[], body).await;
        let bytes = drain(reply.into_body()).await;
        let marks = testkit::stub_marks(&bytes);
        assert!(marks.len() >= 300, "{}", marks.len());
        assert!(
            marks.iter().enumerate().all(|(n, mark)| mark.seq == n as u64),
            "every chunk once and in order"
        );
        assert!(String::from_utf8(bytes).unwrap().ends_with("data: [DONE]\n\n"));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_ends_with_the_dialects_error() {
    for (variable, value) in [("STUB_CUT_AFTER", "5"), ("STUB_DIE_TOKENS", "5,signal:9")] {
        let (server, _record) = with_stub(&[(variable, value), ("STUB_TOKENS", "50")]).await;
        let reply = open(server.ollama, "POST", "/v1/chat/completions", &[], openai(&json!({}))).await;
        assert_eq!(reply.status(), 200);
        let events = testkit::sse_events(&drain(reply.into_body()).await);
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap_or_else(|_| panic!("{events:?}"));
        assert!(last["error"]["message"].as_str().is_some(), "{variable}: {last}");
        assert!(!events.iter().any(|event| event == "[DONE]"), "{events:?}");
        assert!(
            !events.iter().any(|event| event.contains("\"finish_reason\":\"stop\"")),
            "{events:?}"
        );

        let reply = open(server.lmstudio, "POST", "/v1/chat/completions", &[], openai(&json!({}))).await;
        let text = String::from_utf8(drain(reply.into_body()).await).unwrap();
        assert!(text.contains("event: error\n"), "{text}");

        let reply = open(server.ollama, "POST", "/api/chat", &[], OLLAMA).await;
        assert_eq!(reply.status(), 200);
        let stream = lines(&drain(reply.into_body()).await);
        let last = stream.last().unwrap();
        assert!(
            last["error"].as_str().is_some() && last.get("done").is_none(),
            "{variable}: {last}"
        );
        assert!(stream.iter().all(|line| line["done"] != true), "{stream:?}");

        let whole = post(
            server.ollama,
            "/api/chat",
            &json!({"model": "tiny-chat", "stream": false, "messages": [{"role": "user", "content": "x"}]}),
        )
        .await;
        assert!(
            whole.status.is_server_error() && whole.json()["error"].as_str().is_some(),
            "{}",
            whole.text()
        );
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_first_byte_is_a_status() {
    let (server, _record) = with_stub(&[("STUB_DIE_TOKENS", "0,signal:9")]).await;
    for path in [
        "/v1/chat/completions",
        "/api/chat",
        "/api/generate",
        "/api/v0/chat/completions",
    ] {
        let body = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "stream": false});
        let reply = post(server.ollama, path, &body).await;
        assert!(
            reply.status.is_server_error(),
            "{path}: {} {}",
            reply.status,
            reply.text()
        );
        assert!(reply.json().get("error").is_some(), "{}", reply.text());
    }
    server.stop().await;
    // Ollama's stream has said nothing yet when the engine has only named the role. A new server: after that many deaths the
    // old one waits so long before it starts the engine again that the stream is begun without it.
    let (server, _record) = with_stub(&[("STUB_DIE_TOKENS", "0,signal:9")]).await;
    let reply = post(server.ollama, "/api/chat", &serde_json::from_str(OLLAMA).unwrap()).await;
    assert!(reply.status.is_server_error(), "{} {}", reply.status, reply.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_errors_keep_their_status_and_words() {
    let (server, _record) = with_stub(&[]).await;
    for (status, path) in [(400, "/v1/chat/completions"), (500, "/v1/chat/completions")] {
        let body: Value = serde_json::from_str(&openai(&json!({"status": status, "error": "bad grammar"}))).unwrap();
        let reply = post(server.ollama, path, &body).await;
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("bad grammar"),
            "{}",
            reply.text()
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_engine_and_frees_its_slot() {
    let (server, record) = with_stub(&[("STUB_TOKENS", "1000000"), ("STUB_RATE", "500")]).await;
    let whole = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": "x"}], "stream": false});
    for (path, body) in [
        ("/v1/chat/completions", openai(&json!({}))),
        ("/v1/chat/completions", whole.to_string()),
        ("/api/chat", OLLAMA.to_owned()),
        ("/api/chat", whole.to_string()),
        ("/api/generate", r#"{"model":"tiny-chat","prompt":"x"}"#.to_owned()),
        ("/api/v0/chat/completions", openai(&json!({}))),
    ] {
        let gone = || {
            read_record(&record)
                .unwrap()
                .iter()
                .filter(|entry| matches!(entry, Recorded::Gone { .. }))
                .count()
        };
        let asked = || {
            read_record(&record)
                .unwrap()
                .iter()
                .filter(|entry| matches!(entry, Recorded::Request { path, .. } if path.contains("chat")))
                .count()
        };
        let (before, asked_before) = (gone(), asked());
        let stream = tokio::net::TcpStream::connect(server.ollama).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        tokio::io::AsyncWriteExt::write_all(&mut writer, request.as_bytes())
            .await
            .unwrap();
        until("the engine to work", || asked() > asked_before).await;
        drop((reader, writer));
        let left = Instant::now();
        until(&format!("the engine to notice {path} {body}"), || gone() > before).await;
        assert!(left.elapsed() < Duration::from_secs(5), "{path}: {:?}", left.elapsed());
        until("the lease to be free", || server.router.active_requests().is_empty()).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_cut_at_any_byte_leave_nothing() {
    let (server, _record) = with_stub(&[("STUB_TOKENS", "200"), ("STUB_RATE", "2000")]).await;
    assert_eq!(
        post(server.ollama, "/api/generate", &json!({"model": "tiny-chat"}))
            .await
            .status,
        200
    );
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..100usize {
        let to = server.ollama;
        clients.spawn(async move {
            let (path, body) = if n.is_multiple_of(2) {
                ("/api/chat", OLLAMA.to_owned())
            } else {
                ("/v1/chat/completions", openai(&json!({})))
            };
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let sent = (n * 37) % (request.len() * 2);
            tokio::io::AsyncWriteExt::write_all(&mut stream, &request.as_bytes()[..sent.min(request.len())])
                .await
                .unwrap();
            if sent >= request.len() {
                let mut some = vec![0; sent - request.len() + 1];
                let _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut some).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    until("all leases to be free", || server.router.active_requests().is_empty()).await;
    until("all connections to be closed", || server.tracker.len() <= 6).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_clients_connection_reaches_the_engine() {
    let (server, record) = with_stub(&[]).await;
    let headers = [
        ("authorization", "Bearer secret-of-the-client"),
        ("x-api-key", "secret-of-the-client"),
        ("cookie", "secret-of-the-client"),
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("x-conversation-id", "abc"),
        ("proxy-authorization", "secret-of-the-client"),
        ("upgrade", "h2c"),
        ("x-request-id", "my-id-1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let reply = open(
        server.ollama,
        "POST",
        "/v1/chat/completions",
        &headers,
        openai(&json!({"tokens": 2})),
    )
    .await;
    assert_eq!(reply.headers()["x-request-id"], "my-id-1");
    drain(reply.into_body()).await;
    let asked: Vec<Recorded> = read_record(&record).unwrap();
    let Some(Recorded::Request { headers, .. }) = asked
        .iter()
        .find(|entry| matches!(entry, Recorded::Request { path, .. } if path == "/v1/chat/completions"))
    else {
        panic!("{asked:?}")
    };
    assert!(
        headers
            .iter()
            .any(|(name, value)| name == "x-request-id" && value == "my-id-1"),
        "{headers:?}"
    );
    assert!(headers.iter().any(|(name, _)| name == "traceparent"), "{headers:?}");
    for (name, value) in headers {
        assert!(!value.contains("secret-of-the-client"), "{name}");
        assert!(
            ![
                "x-forwarded-for",
                "forwarded",
                "x-hop",
                "te",
                "x-conversation-id",
                "cookie",
                "upgrade",
                "origin"
            ]
            .contains(&name.as_str()),
            "{name}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_holds_the_engine_back_not_the_memory() {
    let (server, record) = with_stub(&[("STUB_TOKENS", "400000")]).await;
    let mut reply = open(server.ollama, "POST", "/v1/chat/completions", &[], openai(&json!({}))).await;
    let first = patiently("the first frame", reply.body_mut().frame())
        .await
        .unwrap()
        .unwrap();
    assert!(first.is_data());
    let done = || matches!(read_record(&record).unwrap().last(), Some(Recorded::Done { .. }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        !done(),
        "100 MB of stream cannot be in buffers: {:?}",
        read_record(&record).unwrap().last()
    );
    drop(reply);
    until("the lease to be free", || server.router.active_requests().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_lets_answers_finish_and_takes_no_new_ones() {
    let (server, _record) = with_stub(&[("STUB_TOKENS", "200"), ("STUB_RATE", "400")]).await;
    let reply = open(server.ollama, "POST", "/v1/chat/completions", &[], openai(&json!({}))).await;
    server.cancel.cancel();
    let refused = tokio::net::TcpStream::connect(server.ollama).await;
    let text = String::from_utf8(drain(reply.into_body()).await).unwrap();
    assert!(
        text.ends_with("data: [DONE]\n\n"),
        "{}",
        &text[text.len().saturating_sub(200)..]
    );
    drop(refused);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_while_inference_is_busy() {
    let (server, _record) = with_stub(&[("STUB_HANG_AFTER", "0")]).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let to = server.ollama;
        clients.spawn(async move { open(to, "POST", "/v1/chat/completions", &[], openai(&json!({}))).await });
    }
    until("requests to arrive", || server.router.active_requests().len() == 50).await;
    let started = Instant::now();
    assert_eq!(get(server.ollama, "/health").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    clients.abort_all();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_in_every_dialect_with_the_state_of_the_model() {
    let mut setup = Setup {
        engine: Engine::Stub(vec![("STUB_LOAD_MS", "60000".to_owned())]),
        ..Setup::default()
    };
    setup.router.max_queue = 1;
    let server = Server::start(setup).await;
    let chat = json!({"model": "tiny-chat", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    let body = chat.to_string();
    let waiting = server
        .tracker
        .spawn(open(server.ollama, "POST", "/v1/chat/completions", &[], body));
    let queued = || server.router.instances().iter().any(|instance| instance.queued > 0);
    until("the first request waits", queued).await;
    for (path, status) in [
        ("/v1/chat/completions", 503),
        ("/api/chat", 503),
        ("/v1/messages", 503),
        // To LM Studio it is a limit like any other (LM Studio contract 8).
        ("/api/v0/chat/completions", 429),
    ] {
        let refused = post(server.ollama, path, &chat).await;
        assert_eq!(refused.status.as_u16(), status, "{path}: {}", refused.text());
        assert_eq!(refused.header("x-llamarunner-state"), "loading", "{path}");
        assert!(
            refused.header("retry-after").parse::<u64>().is_ok_and(|s| s > 0),
            "{path}"
        );
    }
    waiting.abort();
    server.stop().await;
}
