//! Against the real llama-server, started by the real supervisor. Skipped with a message where there is no engine (the test
//! command makes sure there is one).

use std::path::PathBuf;
use std::sync::Arc;

use dialects::engine::error_from_response;
use domain::{EngineMode, LaunchOptions};
use engines::{
    EngineBinary, EngineSettings, Engines, FailureCause, FailurePhase, MemoryBudget, StartSignal, failure,
    failure_cause, launch, plan,
};
use testkit::models_dir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{LIMIT, Running, entry, supervisor};

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
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path());
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
        let mut running = Running::start(&supervisor, launch(&binary, &entry, &loaded, key, &settings())).await;
        let signals = running.start_signals().await;
        let Some(StartSignal::Ready(facts)) = signals.last() else {
            panic!("{file}: {signals:?} {:?}", running.log.tail(50))
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
        let error = error_from_response(status, body.as_bytes());
        assert!(
            matches!(error.kind, domain::ErrorKind::ContextExceeded { context: 512, prompt } if prompt > 512),
            "{file}: {body}"
        );
        let (status, body) = post(facts.address, "wrong", path, &good).await;
        assert_eq!(
            error_from_response(status, body.as_bytes()).kind,
            domain::ErrorKind::Internal,
            "{file}: {body}"
        );

        let exit = running.child.stop().await;
        assert_eq!((exit.code, exit.requested), (Some(0), true), "{file}: {exit:?}");
        let log = running.log.tail(200);
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
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path());
    let entry = entry("tiny-chat.gguf", &["completion", "chat"]);
    let loaded = plan(&entry, &LaunchOptions::default(), &MemoryBudget::default());
    let mut running = Running::start(&supervisor, launch(&binary, &entry, &loaded, "k", &settings())).await;
    let signals = running.start_signals().await;
    let Some(StartSignal::Ready(facts)) = signals.last() else {
        panic!("{signals:?}")
    };
    let body = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}"#;
    let (status, body) = post(facts.address, "k", "/v1/chat/completions", body).await;
    assert_eq!(
        error_from_response(status, body.as_bytes()).kind,
        domain::ErrorKind::NotCapable,
        "{status} {body}"
    );
    let (status, body) = post(facts.address, "k", "/v1/embeddings", r#"{"input":"x"}"#).await;
    assert_eq!(
        error_from_response(status, body.as_bytes()).kind,
        domain::ErrorKind::NotCapable,
        "{status} {body}"
    );
    running.child.stop().await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn each_failure_is_explained() {
    let Some(binary) = engine().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path());
    let whole = std::fs::read(models_dir().join("tiny-chat.gguf")).unwrap();
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
            models_dir().join("tiny-chat.gguf"),
            with_args(&["--nonsense"]),
            FailureCause::Argument,
            "'--nonsense'",
        ),
        (
            models_dir().join("tiny-chat.gguf"),
            with_args(&["-ctk", "q9"]),
            FailureCause::Argument,
            "'-ctk'",
        ),
    ] {
        let mut entry = entry("tiny-chat.gguf", &["completion"]);
        entry.path.clone_from(&path);
        let loaded = plan(&entry, &options, &MemoryBudget::default());
        let mut running = Running::start(&supervisor, launch(&binary, &entry, &loaded, "k", &settings())).await;
        let signals = running.start_signals().await;
        assert!(
            !signals.iter().any(|s| matches!(s, StartSignal::Ready(_))),
            "{}",
            path.display()
        );
        let exit = running.child.wait().await;
        let report = failure(&exit, FailurePhase::Starting);
        assert_eq!(failure_cause(&exit, FailurePhase::Starting), cause, "{report:#?}");
        assert!(report.reason.contains(words) && !report.retryable, "{report:#?}");
        assert!(!report.reason.contains(dir.path().to_str().unwrap()), "{report:#?}");
    }
}
