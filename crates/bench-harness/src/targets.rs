//! The programs under measurement: the stub engine itself ("direct"), the minimal hyper proxy, and LlamaRunner with the same stub engine.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Something that answers at an address, and the process whose CPU and memory count.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// Killed on drop.
    _child: Option<Child>,
    _home: Option<tempfile::TempDir>,
}

/// The stub closes connections as the real engine does (5 idle seconds, 100 requests) unless told otherwise; here that would
/// only measure reconnecting.
const KEEP_OPEN: [(&str, &str); 2] = [("STUB_KEEPALIVE_MAX", "1000000000"), ("STUB_IDLE_MS", "3600000")];

/// Slots of one engine: the most that config.json takes.
pub(crate) const PARALLEL: usize = 256;

/// Longest wait for a program to start and for one exchange with a target.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Gives up on `work` after `limit`, naming who did not answer: a benchmark must fail, never hang.
pub(crate) async fn within<T>(limit: Duration, what: impl Display, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.with_context(|| what.to_string()),
        Err(_) => bail!("{what}: nothing for {} s", limit.as_secs_f64()),
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../testkit/fixtures/models/{name}.gguf"))
}

fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().context("no folder")?.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: use `cargo xtask bench`",
        path.display()
    );
    Ok(path)
}

/// The stub engine by itself, started as LlamaRunner starts it but without a key.
pub(crate) async fn direct() -> Result<Target> {
    direct_loading("0").await
}

/// The stub engine with a load time.
pub(crate) async fn direct_loading(load_ms: &str) -> Result<Target> {
    let mut child = Command::new(sibling("stub-engine")?)
        .arg("-m")
        .arg(fixture("tiny-chat"))
        .args(["--host", "127.0.0.1", "--port", "0", "--log-jsonl"])
        .env("STUB_LOAD_MS", load_ms)
        .envs(KEEP_OPEN)
        .stdin(Stdio::null())
        // Without a router above it the engine logs here; stderr is only for the engine that is a child.
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("no pid")?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let address = within(PATIENCE, "start of the stub engine", async {
        loop {
            let line = lines.next_line().await?.context("it ended")?;
            if let Some(at) = line.find("http://") {
                let rest = &line[at + 7..];
                let end = rest
                    .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
                    .unwrap_or(rest.len());
                return Ok(rest[..end].parse()?);
            }
        }
    })
    .await?;
    // The stub's own log goes on: somebody has to read it.
    drain(lines);
    Ok(Target {
        name: "direct",
        address,
        pid,
        _child: Some(child),
        _home: None,
    })
}

/// The minimal hyper proxy in front of `upstream`.
pub(crate) async fn hyper(upstream: SocketAddr) -> Result<Target> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["proxy", &upstream.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("no pid")?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let address = within(PATIENCE, "start of the hyper proxy", async {
        Ok(lines.next_line().await?.context("it ended")?.parse()?)
    })
    .await?;
    Ok(Target {
        name: "hyper proxy",
        address,
        pid,
        _child: Some(child),
        _home: None,
    })
}

/// What LlamaRunner is started with.
pub(crate) struct Runner {
    pub(crate) target: Target,
    pub(crate) ready_after: std::time::Duration,
}

/// LlamaRunner with the stub engine; models are the tiny ones of the repository, and `copies` of the chat model.
pub(crate) async fn runner(copies: usize, extra: Value, env: &[(&str, &str)]) -> Result<Runner> {
    let home = tempfile::tempdir()?;
    let config = home.path().join("config.json");
    let stub_env: serde_json::Map<String, Value> = KEEP_OPEN
        .iter()
        .chain(env)
        .map(|(k, v)| ((*k).to_owned(), json!(v)))
        .collect();
    let mut settings = json!({
        "defaults": {"parallel": PARALLEL, "context": 64},
        "logging": {"level": "warn"},
        "engines": {"llama_server": {"path": sibling("stub-engine")?, "env": stub_env}},
    });
    merge(&mut settings, extra);
    std::fs::write(&config, settings.to_string())?;
    let models = home.path().join("models");
    std::fs::create_dir(&models)?;
    for name in ["tiny-chat", "tiny-embed"] {
        std::fs::copy(fixture(name), models.join(format!("{name}.gguf")))?;
    }
    for number in 0..copies {
        std::fs::copy(fixture("tiny-chat"), models.join(format!("copy-{number}.gguf")))?;
    }
    let started = std::time::Instant::now();
    let mut child = Command::new(sibling("llama-runner")?)
        .args([
            "serve",
            "--ollama-port",
            "0",
            "--lmstudio-port",
            "0",
            "--management-port",
            "0",
            "--models-dir",
        ])
        .arg(&models)
        .arg("--config")
        .arg(&config)
        .env("HOME", home.path())
        .env("XDG_DATA_HOME", home.path().join("data"))
        .env("XDG_CACHE_HOME", home.path().join("cache"))
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("no pid")?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let line = within(PATIENCE, "ready line of llama-runner", async {
        lines.next_line().await?.context("it ended")
    })
    .await?;
    let ready_after = started.elapsed();
    let ready: Value = serde_json::from_str(&line)?;
    let address = ready["listeners"]["ollama"]
        .as_str()
        .context("no ollama listener")?
        .parse()?;
    Ok(Runner {
        target: Target {
            name: "LlamaRunner",
            address,
            pid,
            _child: Some(child),
            _home: Some(home),
        },
        ready_after,
    })
}

fn merge(base: &mut Value, extra: Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, extra) => *base = extra,
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the child whose output it reads")]
fn drain(mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) {
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

/// Direct, proxy and LlamaRunner, each with one request answered so that everything is loaded.
pub(crate) async fn all() -> Result<Vec<Target>> {
    let direct = direct().await?;
    let proxy = hyper(direct.address).await?;
    let runner = runner(0, json!({}), &[]).await?.target;
    Ok(vec![direct, proxy, runner])
}
