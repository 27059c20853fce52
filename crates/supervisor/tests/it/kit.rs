//! What the tests share.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child as StdChild, Command, Stdio};
use std::time::Duration;

use supervisor::{Child, ChildSpec, OutputLine, StopPlan, Supervisor, SupervisorSettings};
use telemetry::LogRing;
use testkit::{Recorded, models_dir, read_record, stub_engine_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Longer than anything here takes on a loaded machine; a limit, not a delay.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Kit {
    pub(crate) supervisor: Supervisor,
    pub(crate) folder: PathBuf,
    // Kept for its drop.
    temp: Option<tempfile::TempDir>,
}

impl Kit {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut kit = Self::at(temp.path());
        kit.temp = Some(temp);
        kit
    }

    pub(crate) fn at(folder: &Path) -> Self {
        let supervisor = Supervisor::start(settings(folder)).unwrap();
        Self {
            supervisor,
            folder: folder.to_owned(),
            temp: None,
        }
    }

    /// The stub engine in child mode with these `STUB_*` variables, its events in `<label>.jsonl`.
    pub(crate) fn stub(&self, label: &str, faults: &[(&str, &str)]) -> ChildSpec {
        let mut env: Vec<(OsString, OsString)> = vec![
            ("LLAMA_SERVER_ROUTER_PORT".into(), "1".into()),
            ("STUB_RECORD".into(), self.record_path(label).into()),
        ];
        env.extend(faults.iter().map(|(name, value)| (name.into(), value.into())));
        let model = models_dir().join("tiny-chat.gguf");
        ChildSpec {
            label: label.to_owned(),
            program: stub_engine_path(),
            args: ["-m", &model.to_string_lossy(), "--host", "127.0.0.1", "--port", "0"]
                .map(OsString::from)
                .to_vec(),
            env,
            cwd: None,
            stop: StopPlan {
                stdin_message: Some(b"cmd_router_to_child:exit\n".to_vec()),
                grace: Duration::from_secs(20),
                second_term_grace: Duration::from_secs(5),
            },
            log: LogRing::new(100, 64 * 1024),
        }
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn ready(&self, spec: ChildSpec) -> (Child, u16, mpsc::Receiver<OutputLine>) {
        let (child, mut lines) = self.supervisor.spawn(spec).await.unwrap();
        let port = listening(&mut lines).await;
        (child, port, lines)
    }

    pub(crate) fn record_path(&self, label: &str) -> PathBuf {
        self.folder.join(format!("{label}.jsonl"))
    }

    pub(crate) fn record(&self, label: &str) -> Vec<Recorded> {
        read_record(&self.record_path(label)).unwrap()
    }

    /// What the child saw of being asked to end, in order.
    pub(crate) fn asked(&self, label: &str) -> Vec<String> {
        let asked = |event| {
            if let Recorded::Asked { what, .. } = event {
                Some(what)
            } else {
                None
            }
        };
        self.record(label).into_iter().filter_map(asked).collect()
    }

    pub(crate) fn grandchild(&self, label: &str) -> u32 {
        let pid = |event| {
            if let Recorded::Grandchild { pid } = event {
                Some(pid)
            } else {
                None
            }
        };
        self.record(label).into_iter().find_map(pid).unwrap()
    }

    pub(crate) fn state_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.join("state/children")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn settings(folder: &Path) -> SupervisorSettings {
    SupervisorSettings {
        state_dir: folder.join("state"),
        log_dir: folder.join("logs"),
        max_file_bytes: 256 * 1024,
        max_files: 3,
    }
}

pub(crate) async fn listening(lines: &mut mpsc::Receiver<OutputLine>) -> u16 {
    let line = line_with(lines, "listening on http://127.0.0.1:").await;
    line.rsplit(':').next().unwrap().parse().unwrap()
}

/// The next line that holds this text.
pub(crate) async fn line_with(lines: &mut mpsc::Receiver<OutputLine>, text: &str) -> String {
    let find = async {
        while let Some(line) = lines.recv().await {
            if line.text.contains(text) {
                return line.text;
            }
        }
        panic!("the child ended without saying {text:?}")
    };
    tokio::time::timeout(LIMIT, find).await.expect("no such line in time")
}

/// Status line of a GET.
pub(crate) async fn get(port: u16, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// `kill -SIGNAL PID`, from outside as a user would.
pub(crate) fn kill(signal: &str, pid: u32) {
    assert!(
        Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// This test binary again, playing one of [`crate::roles`]; ends with the value.
pub(crate) struct Role {
    pub(crate) process: StdChild,
    pub(crate) says: Vec<String>,
}

impl Role {
    /// Starts it and waits for its line `ready …`, whose words are `says`.
    pub(crate) fn start(role: &str, folder: &Path) -> Self {
        // Descriptor 9 stays open over exec, as one that a careless launcher left in the app.
        let mut process = Command::new("sh")
            .args(["-c", "exec 9</dev/null; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["roles::role", "--exact", "--ignored", "--nocapture"])
            .env("SUPERVISOR_TEST_ROLE", role)
            .env("SUPERVISOR_TEST_FOLDER", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let ready = |line: std::io::Result<String>| {
            // The test runner may have printed the start of the line.
            line.unwrap()
                .split_once("ready: ")
                .map(|(_, words)| words.split(' ').map(str::to_owned).collect())
        };
        let says = output.lines().find_map(ready).expect("the role ended early");
        Self { process, says }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
