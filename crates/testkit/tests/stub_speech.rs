//! The stub speech engine does what it says; tests of the product rely on it.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy exempts test functions only, not what they share"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Recorded, ndjson_lines, read_record};

const LIMIT: Duration = Duration::from_secs(20);

struct Stub {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Stub {
    fn start(task: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_stub-speech"))
            .env_clear()
            .env("LR_SIDECAR_TOKEN", "secret")
            .env("STUB_RECORD", folder.path().join("record.jsonl"))
            .envs(env.iter().copied())
            .args(["-I", "-u", "/x/speech_engine.py", "--host", "127.0.0.1", "--port", "0"])
            .args(["--task", task, "--model", "/x/tiny", "--device", "auto"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(first["event"], "listening");
        Self {
            process,
            lines,
            port: u16::try_from(first["port"].as_u64().unwrap()).unwrap(),
            folder,
        }
    }

    /// The lines until one of this kind, with it.
    fn until(&mut self, event: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let line: Value = serde_json::from_str(&self.lines.next().expect(event).unwrap()).unwrap();
            let last = line["event"] == event;
            seen.push(line);
            if last {
                return seen;
            }
        }
    }

    fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer secret\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        socket
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut answer = String::new();
        let _ = self.send(method, path, body).read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("no answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Transcribes a recording that is its own script.
    fn hear(&self, script: &Value) -> (u16, String) {
        let file = self.folder.path().join("recording");
        std::fs::write(&file, json!({"stub": script}).to_string()).unwrap();
        self.ask("POST", "/transcribe", &json!({"path": file}).to_string())
    }
}

#[test]
fn starts_hears_and_ends_with_its_stdin() {
    let mut stub = Stub::start("transcribe", &[]);
    let ready = stub.until("ready");
    assert_eq!(ready[0], json!({"event": "loading", "progress": 0.0}));
    assert_eq!(ready.last().unwrap()["multilingual"], true);
    assert_eq!(stub.ask("GET", "/health", "").0, 200);
    let (status, body) = stub.hear(&json!({}));
    let lines = ndjson_lines(body.as_bytes()).unwrap();
    assert_eq!((status, lines.len()), (200, 5), "{body}");
    let refused = json!({"error": {"status": 400, "code": "unsupported_audio", "message": "x"}});
    let (status, body) = stub.hear(&refused);
    assert_eq!((status, body.contains("unsupported_audio")), (400, true));
    assert_eq!(stub.ask("POST", "/speak", "{}").0, 404);
    drop(stub.process.stdin.take());
    assert!(stub.process.wait().unwrap().success());
}

#[test]
fn a_client_that_leaves_frees_the_worker() {
    let mut stub = Stub::start("transcribe", &[]);
    stub.until("ready");
    let file = stub.folder.path().join("waits");
    let never = stub.folder.path().join("never");
    std::fs::write(&file, json!({"stub": {"before": [{"gate": never}]}}).to_string()).unwrap();
    let left = stub.send("POST", "/transcribe", &json!({"path": file}).to_string());
    let record = stub.folder.path().join("record.jsonl");
    let saw = |wanted: fn(&Recorded) -> bool| {
        let begun = Instant::now();
        while !read_record(&record).unwrap().iter().any(wanted) {
            assert!(begun.elapsed() < LIMIT, "the stub did not say so");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    saw(|event| matches!(event, Recorded::Request { .. }));
    drop(left);
    saw(|event| matches!(event, Recorded::Gone { .. }));
    assert_eq!(stub.hear(&json!({})).0, 200);
    let (_, body) = stub.hear(&json!({"steps": [{"event": "info", "duration": 1.0}, {"die": "exit:7"}]}));
    assert!(body.contains("info"), "{body}");
    assert_eq!(stub.process.wait().unwrap().code(), Some(7));
}

#[test]
fn says_what_was_asked() {
    let mut stub = Stub::start("speak", &[]);
    stub.until("ready");
    let asked = json!({"sentences": ["One.", "Two."], "voice": "alloy", "speed": 1.5, "format": "wav"});
    assert_eq!(
        stub.ask("POST", "/speak", &asked.to_string()),
        (200, "wav alloy 1.5\nOne.\nTwo.\n".to_owned())
    );
    let unknown = json!({"sentences": ["One."], "voice": "nobody", "speed": 1.0, "format": "wav"});
    let (status, body) = stub.ask("POST", "/speak", &unknown.to_string());
    assert_eq!((status, body.contains("voice_not_found")), (400, true));
    assert!(stub.ask("GET", "/voices", "").1.contains("en-us"));
    stub.process.kill().unwrap();
    stub.process.wait().unwrap();
}

#[test]
fn a_model_that_cannot_be_loaded() {
    let mut stub = Stub::start("transcribe", &[("STUB_LOAD_FAILED", "There is no model.bin.")]);
    let lines = stub.until("load_failed");
    assert_eq!(lines.last().unwrap()["error"], "There is no model.bin.");
    assert_eq!(stub.process.wait().unwrap().code(), Some(3));
}
