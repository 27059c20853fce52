//! Recordings to text over HTTP, with the stub speech engine (audio contract 1 to 3, 5, 6).

mod answers;
mod breaks;
mod others;
mod refusals;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use domain::LaunchOptions;
use engines::speech::SpeechSettings;
use http_api::ApiSettings;
use models::{EntrySettings, RegistrySettings};
use router::RouterSettings;
use serde_json::{Value, json};
use testkit::{Recorded, read_record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Reply, Server, Setup, call, patiently, settings, until};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";
const BOUNDARY: &str = "x-boundary-x";
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=x-boundary-x");
const MODEL: (&str, &str) = ("model", "tiny-whisper");

/// A form; a field called `file` is a file.
fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        let file = if *name == "file" {
            "; filename=\"a.wav\"\r\ncontent-type: audio/wav"
        } else {
            ""
        };
        out.extend_from_slice(
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    out
}

/// A recording with this content and these fields.
fn recording(content: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    all.push(("file", content));
    form(&all)
}

/// A recording that tells the stub what to do with it.
fn scripted(script: &Value) -> Vec<u8> {
    json!({"stub": script}).to_string().into_bytes()
}

async fn send(to: SocketAddr, path: &str, body: impl Into<bytes::Bytes>) -> Reply {
    call(to, "POST", path, &[FORM], body).await
}

async fn transcribe(to: SocketAddr, fields: &[(&str, &str)]) -> Reply {
    let mut all = vec![MODEL];
    all.extend_from_slice(fields);
    send(to, TRANSCRIPTIONS, recording(b"RIFF", &all)).await
}

fn error_of(reply: &Reply) -> (u16, String, String) {
    let error = &reply.json()["error"];
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (reply.status.as_u16(), word("code"), word("param"))
}

struct Case {
    server: Server,
    record: PathBuf,
}

impl Case {
    async fn new() -> Self {
        Self::with(settings(), &[]).await
    }

    async fn with(settings: ApiSettings, env: &[(&'static str, &str)]) -> Self {
        Self::watched(settings, RouterSettings::default(), env).await
    }

    async fn watched(settings: ApiSettings, router: RouterSettings, env: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let record = folder.join("record.jsonl");
        let mut env: Vec<(String, String)> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        env.push(("STUB_RECORD".into(), record.to_string_lossy().into_owned()));
        let entry = EntrySettings {
            launch: LaunchOptions {
                env,
                ..LaunchOptions::default()
            },
            ..EntrySettings::default()
        };
        let server = Server::start(Setup {
            speech: SpeechSettings {
                python: Some(testkit::stub_speech_path()),
                auto_install: false,
                ..SpeechSettings::default()
            },
            library: RegistrySettings {
                entries: BTreeMap::from([("tiny-whisper".to_owned(), entry)]),
                ..RegistrySettings::default()
            },
            settings,
            router,
            ..Setup::default()
        })
        .await;
        Self { server, record }
    }

    fn to(&self) -> SocketAddr {
        self.server.management
    }

    fn uploads(&self) -> Vec<PathBuf> {
        let dir = self.server.home.data().join("uploads");
        std::fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    }

    fn recorded(&self) -> Vec<Recorded> {
        read_record(&self.record).unwrap()
    }

    /// Bodies of the jobs that the engine was given.
    fn jobs(&self) -> Vec<Value> {
        let body = |event: Recorded| match event {
            Recorded::Request { path, body, .. } if path == "/transcribe" => serde_json::from_str(&body).ok(),
            _ => None,
        };
        self.recorded().into_iter().filter_map(body).collect()
    }

    /// Jobs that are neither done nor given up.
    fn open_jobs(&self) -> usize {
        let mut open = std::collections::HashSet::new();
        for event in self.recorded() {
            match event {
                Recorded::Request { n, path, .. } if path == "/transcribe" => drop(open.insert(n)),
                Recorded::Done { n, .. } | Recorded::Gone { n, .. } => drop(open.remove(&n)),
                _ => {}
            }
        }
        open.len()
    }

    async fn shown(&self) -> Vec<Value> {
        let state = crate::harness::get(self.to(), "/v1/state").await.json();
        state["transcriptions"].as_array().unwrap().clone()
    }

    /// Nothing of any request is left.
    async fn is_clean(&self) {
        until("no file of an upload is left", || self.uploads().is_empty()).await;
        until("no request is active", || {
            self.server.router.active_requests().is_empty()
        })
        .await;
        let idle = |instance: &domain::InstanceView| instance.active == 0 && instance.queued == 0;
        until("no lease is held", || self.server.router.instances().iter().all(idle)).await;
        until("the engine is idle", || self.open_jobs() == 0).await;
        for view in self.shown().await {
            let state = view["state"].as_str().unwrap();
            assert!(matches!(state, "completed" | "failed" | "cancelled"), "{view}");
        }
    }

    async fn stop(self) {
        self.is_clean().await;
        self.server.stop().await;
        std::fs::remove_dir_all(self.record.parent().unwrap()).unwrap();
    }
}

/// Sends the head and a part of a request, and returns the connection.
async fn half(to: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: {to}\r\n{}: {}\r\n{head}\r\n\r\n",
        FORM.0, FORM.1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may have answered and closed already.
    let _ = stream.write_all(body).await;
    stream
}

/// Status and JSON of a raw answer.
async fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = patiently("an answer", stream.read(&mut piece)).await.unwrap_or(0);
        text.extend_from_slice(&piece[..read]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n")
            && let Ok(value) = serde_json::from_str(body)
        {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), value);
        }
        assert!(read > 0, "no answer: {whole}");
    }
}

fn gate(case: &Case, name: &str) -> PathBuf {
    case.record.with_file_name(name)
}

fn open_gate(gate: &Path) {
    std::fs::write(gate, b"").unwrap();
}
