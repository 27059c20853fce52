//! `llama-runner serve` as a process with a throw-away home.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::ProcessProbe;

use crate::client;

/// The product binary; built on first use when a plain `cargo test` runs.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("this test's own path");
        let folder = test.parent().and_then(Path::parent).expect("target folder");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "headless", "-p", "testkit"])
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the product does not build");
        folder.join("llama-runner")
    })
}

/// Which engine the server finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The real llama-server.
    Real,
    /// The stub, for faults and counting.
    Stub,
}

/// How to start.
pub(crate) struct Options {
    pub(crate) engine: Engine,
    pub(crate) config: Value,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: Engine::Real,
            config: json!({}),
            env: Vec::new(),
            args: Vec::new(),
        }
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) home: tempfile::TempDir,
    pub(crate) ready: Value,
    pub(crate) ollama: SocketAddr,
    pub(crate) lmstudio: SocketAddr,
    pub(crate) management: SocketAddr,
    options: Options,
}

impl Server {
    /// Starts with the tiny models and the real engine.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let config = home.path().join("config.json");
        // One thread per engine: these tests run beside each other, and engine threads spin while they wait.
        let mut settings = json!({"defaults": {"threads": 1}});
        for (key, value) in options.config.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        fs::write(&config, settings.to_string()).expect("config written");
        let (process, ready) = Self::launch(home.path(), &options);
        let (ollama, lmstudio, management) = Self::addresses(&ready);
        Self {
            process,
            home,
            ready,
            ollama,
            lmstudio,
            management,
            options,
        }
    }

    /// Ends the process as a user would and starts it again in the same home.
    pub(crate) fn restart(&mut self) {
        assert_eq!(self.stop(), Some(0));
        (self.process, self.ready) = Self::launch(self.home.path(), &self.options);
        (self.ollama, self.lmstudio, self.management) = Self::addresses(&self.ready);
    }

    /// The process and its ready line.
    fn launch(home: &Path, options: &Options) -> (Child, Value) {
        let engine = match options.engine {
            Engine::Real => testkit::real_engine_path().expect("no llama-server: run `cargo xtask setup --test`"),
            Engine::Stub => testkit::stub_engine_path(),
        };
        let mut process = Command::new(binary())
            .args([
                "serve",
                "--ollama-port",
                "0",
                "--lmstudio-port",
                "0",
                "--management-port",
                "0",
                "--config",
            ])
            .arg(home.join("config.json"))
            .arg("--models-dir")
            .arg(testkit::models_dir())
            .args(&options.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("LLAMARUNNER_LLAMA_SERVER", engine)
            .envs(options.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(home.join("stderr.log")).expect("log file"))
            .spawn()
            .expect("the product starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("stdout is readable");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!(
                "no ready line: {line:?}\n{}",
                fs::read_to_string(home.join("stderr.log")).unwrap_or_default()
            )
        });
        (process, ready)
    }

    /// Ollama's, LM Studio's and the management listener.
    fn addresses(ready: &Value) -> (SocketAddr, SocketAddr, SocketAddr) {
        let address = |name: &str| {
            ready["listeners"][name]
                .as_str()
                .and_then(|a| a.parse().ok())
                .unwrap_or_else(|| panic!("{name} in {ready}"))
        };
        (address("ollama"), address("lmstudio"), address("management"))
    }

    /// The server's own view.
    pub(crate) fn state(&self) -> Value {
        client::get(self.management, "/v1/state").json()
    }

    /// Waits (by asking, since the wire has nothing else) until `/v1/state` is as wanted.
    pub(crate) fn wait_for_state(&self, what: &str, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
            assert!(
                Instant::now() < deadline,
                "{what} did not come within {within:?}: {state:#}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The view of one model.
    pub(crate) fn model(state: &Value, key: &str) -> Value {
        state["models"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|m| m["key"] == key)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// A look at the process tree below the server.
    pub(crate) fn probe(&self) -> ProcessProbe {
        ProcessProbe::of(self.process.id()).expect("the server runs")
    }

    /// Engine processes now.
    pub(crate) fn children(&self) -> usize {
        self.probe().refresh().len()
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let status = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .expect("kill runs");
        assert!(status.success());
        self.process.wait().expect("the server ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("stderr.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- server log, last lines ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A chat request of the tiny model.
pub(crate) fn chat(text: &str, extra: &Value) -> Value {
    let mut body = json!({"model": "tiny-chat", "messages": [{"role": "user", "content": text}], "temperature": 0});
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}
