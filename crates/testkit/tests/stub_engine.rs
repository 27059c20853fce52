//! The stub engine does what it says; tests of the product rely on every one of these.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy exempts test functions only, not what they share"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Recorded, models_dir, monotonic_ns, read_record, sse_events, stub_marks};

const LIMIT: Duration = Duration::from_secs(20);

struct Stub {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Stub {
    fn command(env: &[(&str, &str)], args: &[&str]) -> (Command, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stub-engine"));
        command
            .env_clear()
            .envs(env.iter().copied())
            .env("LLAMA_SERVER_ROUTER_PORT", "1")
            .env("STUB_RECORD", folder.path().join("record.jsonl"))
            .args([
                "-m",
                &models_dir().join("tiny-chat.gguf").to_string_lossy(),
                "--alias",
                "tiny",
                "--port",
                "0",
            ])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        (command, folder)
    }

    fn start(env: &[(&str, &str)], args: &[&str]) -> Self {
        let (mut command, folder) = Self::command(env, args);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            line.unwrap()
                .split_once("http://127.0.0.1:")
                .map(|(_, port)| port.parse().unwrap())
        });
        // Read on, or the stub would block or break.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            port: port.expect("it never listened"),
            folder,
        }
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        socket
    }

    /// Status and raw body.
    fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Vec<u8>, bool) {
        let mut answer = Vec::new();
        let whole = self.send(method, path, headers, body).read_to_end(&mut answer).is_ok();
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("no answer");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &answer[end + 4..];
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            let (body, ended) = dechunk(body);
            (status, body, whole && ended)
        } else {
            (status, body.to_vec(), whole)
        }
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body, _) = self.raw("POST", path, "", &body.to_string());
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn stream(&self, body: &Value) -> (Vec<u8>, bool) {
        let (_, body, whole) = self.raw("POST", "/v1/chat/completions", "", &body.to_string());
        (body, whole)
    }

    fn record_path(&self) -> PathBuf {
        self.folder.path().join("record.jsonl")
    }

    fn wait_for(&self, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let start = Instant::now();
        loop {
            if let Some(found) = read_record(&self.record_path())
                .unwrap()
                .into_iter()
                .find(|event| wanted(event))
            {
                return found;
            }
            assert!(start.elapsed() < LIMIT, "never recorded");
            std::thread::yield_now();
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The data of chunked encoding and whether the last chunk was there.
fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return (data, true);
        }
        let rest = &bytes[end + 2..];
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    (data, false)
}

fn chat(more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn content(stream: &[u8]) -> String {
    let part = |event: String| {
        Some(
            serde_json::from_str::<Value>(&event)
                .ok()?
                .pointer("/choices/0/delta/content")?
                .as_str()?
                .to_owned(),
        )
    };
    sse_events(stream).into_iter().filter_map(part).collect()
}

#[test]
fn answers_in_every_shape() {
    let stub = Stub::start(&[], &["--metrics", "--embeddings", "--reranking"]);
    let (status, answer) = stub.post("/v1/chat/completions", &chat(&json!({"max_tokens": 3})));
    assert_eq!(
        (status, &answer["choices"][0]["message"]["content"]),
        (200, &" tok0 tok1 tok2".into())
    );
    assert_eq!(
        (
            &answer["choices"][0]["finish_reason"],
            &answer["usage"]["completion_tokens"]
        ),
        (&"length".into(), &3.into())
    );
    assert_eq!(
        stub.post("/v1/completions", &json!({"prompt": "x", "n_predict": 1})).1["choices"][0]["text"],
        " tok0"
    );
    assert_eq!(
        stub.post("/completion", &json!({"prompt": "x", "n_predict": 1})).1["stop_type"],
        "limit"
    );
    assert_eq!(
        stub.post("/infill", &json!({"stub": {"tokens": 2}})).1["stop_type"],
        "eos"
    );
    let embeddings = stub.post("/v1/embeddings", &json!({"input": ["a", "b"]})).1;
    assert_eq!(embeddings["data"].as_array().unwrap().len(), 2);
    let best = &stub
        .post("/v1/rerank", &json!({"query": "ab", "documents": ["x", "ab"]}))
        .1["results"][0];
    assert_eq!(best["index"], 1);
    let tokens = stub.post("/tokenize", &json!({"content": "añ"})).1;
    assert_eq!(stub.post("/detokenize", &tokens).1["content"], "añ");
    assert!(
        stub.post("/apply-template", &chat(&json!({}))).1["prompt"]
            .as_str()
            .unwrap()
            .contains("user\nhi")
    );
    for (path, status) in [
        ("/health", 200),
        ("/v1/models", 200),
        ("/props", 200),
        ("/slots", 200),
        ("/metrics", 200),
        ("/no", 404),
    ] {
        assert_eq!(stub.raw("GET", path, "", "").0, status, "{path}");
    }
    assert_eq!(stub.raw("POST", "/completion", "", "{").0, 400);
    assert_eq!(
        stub.post("/completion", &json!({"stub": {"status": 500, "error": "no"}})),
        (
            500,
            json!({"error": {"code": 500, "message": "no", "type": "server_error"}})
        )
    );
}

#[test]
fn modes_that_are_off_answer_501() {
    let stub = Stub::start(&[], &["--no-slots"]);
    for path in ["/v1/embeddings", "/v1/rerank"] {
        assert_eq!(stub.post(path, &json!({})).0, 501, "{path}");
    }
    assert_eq!(stub.raw("GET", "/slots", "", "").0, 501);
}

#[test]
fn a_stream_has_all_chunks_in_order_at_every_split() {
    let stub = Stub::start(&[], &[]);
    let text = "Grüße 🦙 aus 東京";
    for split in [1, 2, 3, 7, 64, 1 << 20] {
        let options =
            json!({"stream": true, "stream_options": {"include_usage": true}, "stub": {"text": text, "split": split}});
        let (stream, whole) = stub.stream(&chat(&options));
        assert!(whole);
        assert_eq!(content(&stream), text, "split {split}");
        let marks = stub_marks(&stream);
        assert_eq!(
            marks.iter().map(|mark| mark.seq).collect::<Vec<_>>(),
            (0..marks.len() as u64).collect::<Vec<_>>()
        );
        assert!(marks.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns) && marks[0].at_ns <= monotonic_ns());
        assert_eq!(sse_events(&stream).last().unwrap(), "[DONE]");
    }
    let (stream, _) = stub.stream(&chat(
        &json!({"stream": true, "stub": {"reasoning": "hm", "tool_call": {"name": "f", "arguments": "{}"}}}),
    ));
    let stream = String::from_utf8(stream).unwrap();
    assert!(stream.contains("\"reasoning_content\":\"hm\"") && stream.contains("\"finish_reason\":\"tool_calls\""));
}

#[test]
fn pace_and_first_token_delay_are_kept() {
    let stub = Stub::start(&[], &[]);
    let (stream, _) = stub.stream(&chat(
        &json!({"stream": true, "stub": {"tokens": 5, "rate": 50, "first_ms": 100}}),
    ));
    let marks = stub_marks(&stream);
    let spent = marks[marks.len() - 1].at_ns - marks[0].at_ns;
    assert!(
        (60_000_000..1_000_000_000).contains(&spent),
        "{spent} ns for four gaps of 20 ms"
    );
    let (start, _) = (
        Instant::now(),
        stub.post(
            "/v1/chat/completions",
            &chat(&json!({"stub": {"tokens": 2, "rate": 20}})),
        ),
    );
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn broken_streams_break_as_told() {
    let stub = Stub::start(&[], &[]);
    let (stream, whole) = stub.stream(&chat(&json!({"stream": true, "stub": {"cut_after": 2}})));
    assert_eq!((whole, content(&stream).as_str()), (false, " tok0 tok1"));
    let (stream, whole) = stub.stream(&chat(&json!({"stream": true, "stub": {"error_after": 1}})));
    assert!(whole && sse_events(&stream).last().unwrap().contains("\"error\""));
    let mut dying = Stub::start(&[], &[]);
    let (stream, whole) = dying.stream(&chat(
        &json!({"stream": true, "stub": {"die_after": 3, "die": "signal:11"}}),
    ));
    assert!(!whole && content(&stream).len() <= 15);
    assert_eq!(dying.process.wait().unwrap().signal(), Some(11));
    let mut dying = Stub::start(&[("STUB_DIE_TOKENS", "1,exit:0")], &[]);
    dying.stream(&chat(&json!({"stream": true})));
    assert_eq!(dying.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_hang_takes_the_queue_but_not_health() {
    let stub = Stub::start(&[], &["--metrics"]);
    let mut hung = stub.send(
        "POST",
        "/v1/chat/completions",
        "",
        &chat(&json!({"stream": true, "stub": {"hang_after": 1}})).to_string(),
    );
    let mut seen = Vec::new();
    while content(&dechunk_tail(&seen)).is_empty() {
        let mut byte = [0; 512];
        let n = hung.read(&mut byte).unwrap();
        seen.extend_from_slice(&byte[..n]);
    }
    assert_eq!(stub.raw("GET", "/health", "", "").0, 200);
    let mut metrics = stub.send("GET", "/metrics", "", "");
    metrics.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(metrics.read(&mut [0]).is_err(), "answered although the queue hangs");
}

fn dechunk_tail(answer: &[u8]) -> Vec<u8> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Vec::new();
    };
    dechunk(&answer[end + 4..]).0
}

#[test]
fn keys_are_checked_and_may_be_refused() {
    let stub = Stub::start(&[("LLAMA_API_KEY", "right,other")], &[]);
    for (headers, status) in [
        ("", 401),
        ("authorization: Bearer wrong\r\n", 401),
        ("authorization: Bearer right\r\n", 200),
        ("x-api-key: other\r\n", 200),
    ] {
        assert_eq!(stub.raw("GET", "/v1/models", headers, "").0, status, "{headers}");
    }
    assert_eq!(stub.raw("GET", "/health", "", "").0, 200);
    let stub = Stub::start(&[("STUB_REFUSE_KEY", "1")], &[]);
    assert_eq!(stub.raw("GET", "/v1/models", "authorization: Bearer x\r\n", "").0, 401);
}

#[test]
fn requests_and_peers_that_go_are_recorded() {
    let stub = Stub::start(&[], &[]);
    let socket = stub.send(
        "POST",
        "/v1/chat/completions?x=1",
        "x-canary: 7\r\n",
        &chat(&json!({"stream": true, "stub": {"tokens": 100_000, "rate": 100}})).to_string(),
    );
    let Recorded::Request {
        path,
        headers,
        body,
        method,
        ..
    } = stub.wait_for(|event| matches!(event, Recorded::Request { .. }))
    else {
        panic!()
    };
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/v1/chat/completions?x=1"));
    assert!(headers.contains(&("x-canary".to_owned(), "7".to_owned())) && body.contains("messages"));
    socket.shutdown(Shutdown::Both).unwrap();
    let left = monotonic_ns();
    let Recorded::Gone { at_ns, .. } = stub.wait_for(|event| matches!(event, Recorded::Gone { .. })) else {
        panic!()
    };
    assert!(at_ns.saturating_sub(left) < 1_000_000_000);
    stub.post("/completion", &json!({"stub": {"tokens": 2}}));
    stub.wait_for(|event| matches!(event, Recorded::Done { tokens: 2, .. }));
    let start = read_record(&stub.record_path()).unwrap().remove(0);
    assert!(
        matches!(start, Recorded::Start { argv, env, .. } if argv.contains(&"--alias".to_owned()) && env.contains_key("STUB_RECORD"))
    );
}

#[test]
fn a_body_nobody_reads_blocks_the_sender() {
    let stub = Stub::start(&[("STUB_NO_BODY_READ", "1")], &[]);
    let mut socket = TcpStream::connect(("127.0.0.1", stub.port)).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
        .write_all(b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        .unwrap();
    let block = vec![b'x'; 1 << 20];
    assert!((0..64).any(|_| socket.write_all(&block).is_err()), "64 MiB were taken");
}

#[test]
fn deaths_before_ready_have_their_code() {
    for (variable, how, code, signal) in [
        ("STUB_DIE_BEFORE_BIND", "exit:7", Some(7), None),
        ("STUB_DIE_LOADING", "signal:6", None, Some(6)),
        ("STUB_DIE_READY", "exit:0", Some(0), None),
    ] {
        let (mut command, _folder) = Stub::command(&[(variable, how)], &[]);
        let mut process = command.stderr(Stdio::null()).spawn().unwrap();
        // The handle would close stdin before it waits, and that is another way to end.
        let _stdin = process.stdin.take();
        let status = process.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (code, signal), "{variable}");
    }
    let (mut command, _folder) = Stub::command(&[], &["--no-such-flag"]);
    let output = command.output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(1), &b"error: invalid argument: --no-such-flag\n"[..])
    );
}

#[test]
fn once_means_that_the_second_start_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("once");
    let env = [
        ("STUB_ONCE", once.to_str().unwrap()),
        ("STUB_DIE_BEFORE_BIND", "exit:9"),
    ];
    let (mut command, _folder) = Stub::command(&env, &[]);
    assert_eq!(command.stderr(Stdio::null()).status().unwrap().code(), Some(9));
    let stub = Stub::start(&env, &[]);
    assert_eq!(stub.raw("GET", "/health", "", "").0, 200);
}

#[test]
fn loading_answers_503_and_tells_progress() {
    let (mut command, folder) = Stub::command(&[("STUB_LOAD_MS", "600000"), ("STUB_LOAD_STEPS", "60000")], &[]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let progress: Vec<String> = (0..3).map(|_| lines.next().unwrap().unwrap()).collect();
    assert!(
        progress
            .iter()
            .all(|line| line.starts_with("cmd_child_to_router:state:{\"state\":\"loading\"")),
        "{progress:?}"
    );
    let bound = read_record(&folder.path().join("record.jsonl")).unwrap();
    let port = bound
        .iter()
        .find_map(|event| {
            if let Recorded::Bound { port } = event {
                Some(*port)
            } else {
                None
            }
        })
        .unwrap();
    let stub = Stub { process, port, folder };
    for path in ["/health", "/v1/models"] {
        assert_eq!(stub.raw("GET", path, "", "").0, 503, "{path}");
    }
}

#[test]
fn ends_like_the_real_one() {
    // Message, with a request running: waits for it. Then SIGTERM twice: at once, with 1.
    let mut stub = Stub::start(&[], &[]);
    let _running = stub.send(
        "POST",
        "/completion",
        "",
        &json!({"stub": {"tokens": 1000, "rate": 1}}).to_string(),
    );
    stub.wait_for(|event| matches!(event, Recorded::Request { .. }));
    stub.process
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"cmd_router_to_child:exit\n")
        .unwrap();
    stub.wait_for(|event| matches!(event, Recorded::Asked { what, .. } if what == "message"));
    assert!(stub.process.try_wait().unwrap().is_none());
    Command::new("kill")
        .arg(stub.process.id().to_string())
        .status()
        .unwrap();
    assert_eq!(stub.process.wait().unwrap().code(), Some(1));
    // End of stdin: at once, with 1.
    let mut stub = Stub::start(&[], &[]);
    drop(stub.process.stdin.take());
    assert_eq!(stub.process.wait().unwrap().code(), Some(1));
    // SIGTERM, idle: 0.
    let mut stub = Stub::start(&[], &[]);
    let _stdin = stub.process.stdin.take();
    Command::new("kill")
        .arg(stub.process.id().to_string())
        .status()
        .unwrap();
    assert_eq!(stub.process.wait().unwrap().code(), Some(0));
}
