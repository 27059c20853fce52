//! Against the real llama-server. Skipped with a message where there is none (the test command makes sure there is one).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use domain::{EngineMode, LaunchOptions, ModelEntry};
use engines::{
    EngineBinary, EngineSettings, Engines, FailureCause, FailurePhase, Launch, MemoryBudget, StartSignal, StartWatch,
    failure, failure_cause, http_error, launch, log_line, plan,
};
use supervisor::{ExitReport, OutputLine, OutputStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Generous: the machine may be busy compiling.
const LIMIT: Duration = Duration::from_secs(60);

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/models")
}

fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    base.unwrap_or_default().join("llama-runner")
}

fn settings() -> EngineSettings {
    EngineSettings {
        cache_dir: cache_dir(),
        data_dir: "/nonexistent".into(),
        ..EngineSettings::default()
    }
}

async fn engine() -> Option<Arc<EngineBinary>> {
    match Engines::new(settings()).llama_server().await {
        Ok(binary) => Some(binary),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn entry(file: &str, capabilities: &[&str]) -> ModelEntry {
    serde_json::from_value(serde_json::json!({
        "key": file.trim_end_matches(".gguf"), "slug": "m", "engine": "llama-server", "source": "folder",
        "path": models().join(file), "parts": [], "mmproj": null, "size": 1, "modified": 0, "publisher": "",
        "indexed_path": "", "display_name": "m", "description": null, "digest": "", "aliases": [],
        "capabilities": capabilities, "facts": {"context_length": 4096, "kv_bytes_per_token": 1024}, "launch": {},
        "keep_alive": null, "pinned": false, "unlisted": false
    }))
    .unwrap()
}

struct Running {
    child: Child,
    stop: Vec<u8>,
    lines: mpsc::UnboundedReceiver<OutputLine>,
    seen: Vec<String>,
}

impl Running {
    fn start(launch: &Launch) -> Self {
        let mut child = Command::new(&launch.program)
            .args(&launch.args)
            .env_clear()
            .envs(launch.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (send, lines) = mpsc::unbounded_channel();
        let tracker = tokio_util_free_tracker();
        read(
            &tracker,
            child.stdout.take().unwrap(),
            OutputStream::Stdout,
            send.clone(),
        );
        read(&tracker, child.stderr.take().unwrap(), OutputStream::Stderr, send);
        Self {
            child,
            stop: launch.stop.stdin_message.clone().unwrap(),
            lines,
            seen: Vec::new(),
        }
    }

    async fn line(&mut self) -> Option<OutputLine> {
        let line = tokio::time::timeout(LIMIT, self.lines.recv())
            .await
            .expect("the engine went silent")?;
        self.seen.push(line.text.clone());
        Some(line)
    }

    /// Signals up to Ready, or to the end of the output.
    async fn start_signals(&mut self) -> Vec<StartSignal> {
        let mut watch = StartWatch::new();
        let mut signals = Vec::new();
        while let Some(line) = self.line().await {
            if let Some(signal) = watch.on_line(&line) {
                signals.push(signal);
                if matches!(signal, StartSignal::Ready(_)) {
                    break;
                }
            }
        }
        signals
    }

    async fn end(mut self) -> ExitReport {
        while self.line().await.is_some() {}
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.unwrap().unwrap();
        let last = self.seen.len().saturating_sub(50);
        ExitReport {
            code: status.code(),
            signal: None,
            requested: false,
            last_lines: self.seen.split_off(last),
        }
    }

    async fn stop(mut self) -> ExitReport {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(&self.stop).await.unwrap();
        let exit = self.end().await;
        drop(stdin);
        exit
    }
}

/// Tasks end with their pipe, which ends with the child; the set aborts them if a test fails before.
type Tasks = std::sync::Mutex<tokio::task::JoinSet<()>>;

fn tokio_util_free_tracker() -> Arc<Tasks> {
    Arc::new(std::sync::Mutex::new(tokio::task::JoinSet::new()))
}

fn read(
    tasks: &Arc<Tasks>,
    pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    stream: OutputStream,
    send: mpsc::UnboundedSender<OutputLine>,
) {
    let keep = Arc::clone(tasks);
    tasks.lock().unwrap().spawn(async move {
        let _keep = keep;
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            if send.send(OutputLine { stream, text }).is_err() {
                return;
            }
        }
    });
}

async fn post(address: std::net::SocketAddr, key: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

#[tokio::test]
async fn the_probe_knows_the_real_program() {
    let Some(binary) = engine().await else { return };
    assert!(binary.build.is_some_and(|build| build > 5000), "{binary:?}");
    assert!(binary.flags.len() > 100, "{}", binary.flags.len());
    for flag in ["--port", "--alias", "--jinja", "--embeddings", "-np", "--no-slots"] {
        assert!(binary.has(flag), "{flag}");
    }
    assert!(!binary.has("--no-such-flag"));
}

#[tokio::test]
async fn every_mode_starts_serves_and_stops() {
    let Some(binary) = engine().await else { return };
    let budget = MemoryBudget {
        ram_available: 8 << 30,
        vram_free: 0,
    };
    let long = "hello world ".repeat(3000);
    let chat = serde_json::json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}).to_string();
    let chat_long = serde_json::json!({"messages": [{"role": "user", "content": long}]}).to_string();
    for (file, capabilities, mode, path, good, bad) in [
        (
            "tiny-chat.gguf",
            &["completion", "chat"][..],
            EngineMode::Completion,
            "/v1/chat/completions",
            chat.clone(),
            chat_long,
        ),
        (
            "tiny-embed.gguf",
            &["embedding"],
            EngineMode::Embedding,
            "/v1/embeddings",
            r#"{"input":"cat"}"#.into(),
            serde_json::json!({"input": long}).to_string(),
        ),
        (
            "tiny-rerank.gguf",
            &["rerank"],
            EngineMode::Rerank,
            "/v1/rerank",
            r#"{"query":"cat","documents":["cat","dog"]}"#.into(),
            serde_json::json!({"query": "cat", "documents": [long]}).to_string(),
        ),
    ] {
        let entry = entry(file, capabilities);
        let options = LaunchOptions {
            context: Some(512),
            parallel: Some(2),
            ..LaunchOptions::default()
        };
        let loaded = plan(&entry, &options, &budget);
        assert_eq!((loaded.mode, loaded.context, loaded.parallel), (mode, 512, 2), "{file}");
        let key = "test-key-1234";
        let mut running = Running::start(&launch(&binary, &entry, &loaded, key, &settings()));
        let signals = running.start_signals().await;
        let Some(StartSignal::Ready(facts)) = signals.last() else {
            panic!("{file}: {signals:?} {:?}", running.seen)
        };
        assert!(
            matches!(signals.first(), Some(StartSignal::Progress(p)) if *p < 0.01),
            "{file}: {signals:?}"
        );
        // "context per request" is what each slot really has.
        assert_eq!(facts.context, Some(512), "{file}");

        let (status, body) = post(facts.address, key, path, &good).await;
        assert_eq!(status, 200, "{file}: {body}");
        assert!(body.contains("usage"), "{file}: {body}");
        let (status, body) = post(facts.address, key, path, &bad).await;
        let error = http_error(status, body.as_bytes());
        assert!(
            matches!(error.kind, domain::ErrorKind::ContextExceeded { context: 512, prompt } if prompt > 512),
            "{file}: {body}"
        );
        let (status, body) = post(facts.address, "wrong", path, &good).await;
        assert_eq!(
            http_error(status, body.as_bytes()).kind,
            domain::ErrorKind::Internal,
            "{file}: {body}"
        );

        let exit = running.stop().await;
        assert_eq!(exit.code, Some(0), "{file}: {:?}", exit.last_lines);
        let log: Vec<_> = exit
            .last_lines
            .iter()
            .filter_map(|text| {
                log_line(&OutputLine {
                    stream: OutputStream::Stderr,
                    text: text.clone(),
                })
            })
            .collect();
        assert!(log.iter().any(|l| l.text.ends_with("model loaded")), "{log:?}");
        assert!(
            !log.iter()
                .any(|l| l.text.contains("cmd_child_to_router") || l.text.contains(key)),
            "{log:?}"
        );
    }
}

#[tokio::test]
async fn an_image_for_a_text_model_is_the_callers_fault() {
    let Some(binary) = engine().await else { return };
    let entry = entry("tiny-chat.gguf", &["completion", "chat"]);
    let loaded = plan(&entry, &LaunchOptions::default(), &MemoryBudget::default());
    let mut running = Running::start(&launch(&binary, &entry, &loaded, "k", &settings()));
    let signals = running.start_signals().await;
    let Some(StartSignal::Ready(facts)) = signals.last() else {
        panic!("{signals:?}")
    };
    let body = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}"#;
    let (status, body) = post(facts.address, "k", "/v1/chat/completions", body).await;
    assert_eq!(
        http_error(status, body.as_bytes()).kind,
        domain::ErrorKind::NotCapable,
        "{status} {body}"
    );
    let (status, body) = post(facts.address, "k", "/v1/embeddings", r#"{"input":"x"}"#).await;
    assert_eq!(
        http_error(status, body.as_bytes()).kind,
        domain::ErrorKind::NotCapable,
        "{status} {body}"
    );
    running.stop().await;
}

#[tokio::test]
async fn each_failure_is_explained() {
    let Some(binary) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(models().join("tiny-chat.gguf")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let replaced = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let mut architecture = whole.clone();
    let at = whole.windows(20).position(|w| w == b"general.architecture").unwrap();
    let at = at + whole[at..].windows(5).position(|w| w == b"llama").unwrap();
    architecture[at..at + 5].copy_from_slice(b"zzzzz");
    let with_args = |args: &[&str]| LaunchOptions {
        extra_args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..LaunchOptions::default()
    };
    let auto = LaunchOptions::default;
    for (path, options, cause, words) in [
        (dir.path().join("none.gguf"), auto(), FailureCause::File, "missing"),
        (file("empty.gguf", b""), auto(), FailureCause::File, "not a GGUF"),
        (
            file("text.gguf", b"hello world, not a model"),
            auto(),
            FailureCause::File,
            "not a GGUF",
        ),
        (
            file("cut.gguf", &whole[..900_000]),
            auto(),
            FailureCause::File,
            "incomplete",
        ),
        (
            file("architecture.gguf", &architecture),
            auto(),
            FailureCause::File,
            "'zzzzz'",
        ),
        (
            file("tensor.gguf", &replaced("blk.0.attn_q.weight", "blk.0.attn_z.weight")),
            auto(),
            FailureCause::File,
            "newer",
        ),
        (
            models().join("tiny-chat.gguf"),
            with_args(&["--nonsense"]),
            FailureCause::Argument,
            "'--nonsense'",
        ),
        (
            models().join("tiny-chat.gguf"),
            with_args(&["-ctk", "q9"]),
            FailureCause::Argument,
            "'-ctk'",
        ),
    ] {
        let mut entry = entry("tiny-chat.gguf", &["completion"]);
        entry.path.clone_from(&path);
        let loaded = plan(&entry, &options, &MemoryBudget::default());
        let mut running = Running::start(&launch(&binary, &entry, &loaded, "k", &settings()));
        let signals = running.start_signals().await;
        assert!(
            !signals.iter().any(|s| matches!(s, StartSignal::Ready(_))),
            "{}",
            path.display()
        );
        let exit = running.end().await;
        let report = failure(&exit, FailurePhase::Starting);
        assert_eq!(failure_cause(&exit, FailurePhase::Starting), cause, "{report:#?}");
        assert!(report.reason.contains(words) && !report.retryable, "{report:#?}");
        assert!(!report.reason.contains(dir.path().to_str().unwrap()), "{report:#?}");
    }
}
