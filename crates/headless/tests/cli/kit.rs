//! Running `llama-runner` in a throw-away home.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::TempHome;

/// Long enough for a loaded machine, short enough to notice a hang.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Home {
    pub(crate) home: TempHome,
    engine: PathBuf,
}

impl Home {
    /// A home with the stub engine.
    pub(crate) fn new() -> Self {
        Self {
            home: TempHome::new().unwrap(),
            engine: testkit::stub_engine_path(),
        }
    }

    /// A home with the real engine.
    pub(crate) fn real() -> Self {
        let engine = testkit::real_engine_path().expect("no llama-server: run `cargo xtask setup`");
        Self {
            home: TempHome::new().unwrap(),
            engine,
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home.config().join("llama-runner").join("config.json")
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::create_dir_all(self.config().parent().unwrap()).unwrap();
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llama-runner"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.home.env())
            .env("LLAMARUNNER_LLAMA_SERVER", &self.engine)
            .env("LLAMARUNNER_SPEECH_PYTHON", testkit::stub_speech_path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `serve` on free ports and waits for its ready line.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server<'_> {
        let ports = ["--ollama-port", "0", "--lmstudio-port", "0", "--management-port", "0"];
        self.serve_with(&[&ports[..], arguments].concat())
    }

    /// Starts `serve` with exactly these arguments and waits for its ready line.
    pub(crate) fn serve_with(&self, arguments: &[&str]) -> Server<'_> {
        let log = self.home.path().join("stderr.log");
        let mut child = self
            .command(&[&["serve"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!(
                "no ready line: {line:?}\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            )
        });
        Server {
            home: self,
            child,
            stdout,
            ready,
            line,
        }
    }
}

pub(crate) struct Server<'a> {
    pub(crate) home: &'a Home,
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
    pub(crate) ready: Value,
    pub(crate) line: String,
}

impl Server<'_> {
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.ready["listeners"][listener]
            .as_str()
            .unwrap_or_else(|| panic!("{}", self.ready))
            .parse()
            .unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (head, body) = get(self.address("management"), path);
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks until the state is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let state = self.get("/v1/state");
            if wanted(&state) {
                return state;
            }
            assert!(since.elapsed() < PATIENCE, "{what} did not come: {state:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Exit code and everything printed after the ready line.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status, rest)
    }

    /// A verb against this server.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        self.home.run(arguments)
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.home.path().join("stderr.log")).unwrap_or_default();
            eprintln!("--- server log\n{log}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process; a hang fails the test instead of blocking it.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(since.elapsed() < PATIENCE, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Head and body of a GET, connection closed after it.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    split(stream)
}

fn split(mut stream: TcpStream) -> (String, String) {
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    (head.to_owned(), if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&rest[..size]);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    text
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("not one JSON document: {output:?}"))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn models_dir() -> String {
    Path::new(&testkit::models_dir()).display().to_string()
}
