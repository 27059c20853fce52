//! Listeners on free ports with everything behind them, and two clients: raw bytes, and plain requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use downloads::{DownloadDeps, DownloadSettings, Downloads};
use engines::speech::SpeechSettings;
use engines::{CustomSettings, EngineSettings, Engines};
use hardware::Hardware;
use http::{HeaderMap, Request, StatusCode};
use http_api::{
    ApiParts, ApiSettings, ApiState, ConfigView, Flavour, ListenerSettings, ListenerView, ListenersView, Uploads,
    WaitingRules, bind, serve,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use models::{Registry, RegistrySettings};
use router::{Router, RouterDeps, RouterSettings};
use supervisor::{Supervisor, SupervisorSettings};
use telemetry::EventBus;
use testkit::TempHome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest any single step of a test may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Which engine runs the models.
#[derive(Clone, Default)]
pub(crate) enum Engine {
    /// None: only routes that need no engine.
    #[default]
    Absent,
    /// The stub engine with these `STUB_*` variables.
    Stub(Vec<(&'static str, String)>),
    /// llama-server.
    Real,
    /// The program at this path.
    At(PathBuf),
}

pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) settings: ApiSettings,
    pub(crate) router: RouterSettings,
    /// Address of the origin that models come from; none: nothing can be fetched.
    pub(crate) origin: Option<String>,
    /// Asking for the state of the configuration panics.
    pub(crate) panics: bool,
    /// Speech and custom engines; none unless a test names them.
    pub(crate) speech: SpeechSettings,
    pub(crate) custom: BTreeMap<String, CustomSettings>,
    /// Further settings of the library: voices, speech models, settings of entries.
    pub(crate) library: RegistrySettings,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            settings: settings(),
            router: RouterSettings::default(),
            origin: None,
            panics: false,
            speech: SpeechSettings {
                python: Some(PathBuf::from("/nonexistent/python")),
                auto_install: false,
                ..SpeechSettings::default()
            },
            custom: BTreeMap::new(),
            library: RegistrySettings::default(),
        }
    }
}

/// The settings of tests that are not about waiting: no stream is begun before its answer, however slow the machine is.
pub(crate) fn settings() -> ApiSettings {
    let never = Duration::from_hours(1);
    ApiSettings {
        waiting: WaitingRules {
            begin_after: never,
            keep_alive_every: never,
        },
        ..ApiSettings::default()
    }
}

pub(crate) struct Server {
    pub(crate) ollama: SocketAddr,
    pub(crate) lmstudio: SocketAddr,
    pub(crate) management: SocketAddr,
    pub(crate) state: Arc<ApiState>,
    pub(crate) router: Router,
    pub(crate) downloads: Downloads,
    pub(crate) cancel: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) home: TempHome,
    pub(crate) store: store::Store,
    pub(crate) bus: EventBus,
    supervisor: Supervisor,
    pub(crate) registry: Registry,
}

impl Server {
    pub(crate) async fn plain() -> Self {
        Self::start(Setup::default()).await
    }

    pub(crate) async fn start(setup: Setup) -> Self {
        let home = TempHome::new().unwrap();
        let bus = EventBus::new();
        let (path, env) = match &setup.engine {
            Engine::Absent => (Some(PathBuf::from("/nonexistent/llama-server")), BTreeMap::new()),
            Engine::Stub(env) => {
                let env = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                (Some(testkit::stub_engine_path()), env.collect())
            }
            Engine::At(path) => (Some(path.clone()), BTreeMap::new()),
            Engine::Real => (
                Some(testkit::real_engine_path().expect("cargo xtask test provides llama-server")),
                BTreeMap::new(),
            ),
        };
        let engines = Engines::new(EngineSettings {
            path,
            args: Vec::new(),
            env,
            cache_dir: home.cache(),
            data_dir: home.data(),
            speech: setup.speech,
            custom: setup.custom,
        });
        let supervisor = Supervisor::start(SupervisorSettings {
            state_dir: home.path().join("run"),
            log_dir: home.data().join("logs"),
            max_file_bytes: 1 << 20,
            max_files: 2,
        })
        .unwrap();
        std::fs::create_dir_all(home.data().join("models")).unwrap();
        let registry = Registry::open(
            RegistrySettings {
                dirs: vec![testkit::models_dir(), home.data().join("models")],
                store: Some(home.data().join("ollama")),
                speech_dir: Some(home.data().join("models/whisper")),
                index_path: home.cache().join("models.json"),
                ..setup.library
            },
            bus.clone(),
        )
        .unwrap();
        let hardware = Hardware::new();
        let router = Router::new(RouterDeps {
            settings: setup.router,
            registry: registry.clone(),
            engines: engines.clone(),
            supervisor: supervisor.clone(),
            bus: bus.clone(),
            hardware: hardware.clone(),
        });
        let store = store::Store::in_memory().unwrap();
        let ollama_store = ollama_store::Store::open(home.data().join("ollama"), ollama_store::Access::Write).unwrap();
        let origin = setup.origin.clone().unwrap_or_else(|| "http://127.0.0.1:9".into());
        let landed = registry.clone();
        let downloads = Downloads::start(
            DownloadSettings {
                allow_private_hosts: setup.origin.is_some(),
                resume_on_start: false,
                ..DownloadSettings::below(&home.data()).asking(&origin)
            },
            DownloadDeps {
                store: store.clone(),
                ollama_store: ollama_store.clone(),
                bus: bus.clone(),
                disk_free: Arc::new(|_| None),
                landed: Arc::new(move |_, _| {
                    let registry = landed.clone();
                    Box::pin(async move {
                        registry.rescan().await;
                    })
                }),
            },
        )
        .await;
        let listeners = Arc::new(ArcSwap::from_pointee(ListenersView::default()));
        let state = ApiState::new(ApiParts {
            router: router.clone(),
            registry: registry.clone(),
            bus: bus.clone(),
            engines,
            hardware,
            store: store.clone(),
            downloads: downloads.clone(),
            ollama_store,
            uploads: Uploads::open(home.data().join("uploads")).unwrap(),
            settings: setup.settings,
            listeners: Arc::clone(&listeners),
            config_status: Arc::new(move || {
                assert!(!setup.panics, "a fault of ours");
                ConfigView {
                    path: "config.json".into(),
                    ok: true,
                    error: None,
                    warnings: vec!["\"levle\" is not known; did you mean \"level\"?".into()],
                }
            }),
        });
        let tracker = TaskTracker::new();
        let cancel = CancellationToken::new();
        let mut addresses = Vec::new();
        for flavour in [Flavour::Ollama, Flavour::LmStudio, Flavour::Management] {
            let bound = bind(&ListenerSettings {
                host: "127.0.0.1".into(),
                port: 0,
            })
            .await
            .unwrap();
            addresses.push(bound.address());
            serve(bound, Arc::clone(&state), flavour, tracker.clone(), cancel.clone());
        }
        let view = |at: usize| ListenerView {
            enabled: true,
            address: Some(addresses[at]),
            problem: None,
        };
        listeners.store(Arc::new(ListenersView {
            ollama: view(0),
            lmstudio: view(1),
            management: view(2),
            ..ListenersView::default()
        }));
        Self {
            ollama: addresses[0],
            lmstudio: addresses[1],
            management: addresses[2],
            state,
            router,
            downloads,
            cancel,
            tracker,
            home,
            store,
            bus,
            supervisor,
            registry,
        }
    }

    /// Ends everything as the app does, and waits for it: nothing may hang.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.tracker.close();
        patiently("draining", self.tracker.wait()).await;
        patiently("router shutdown", self.router.shutdown(Duration::from_secs(5))).await;
        patiently("registry shutdown", self.registry.shutdown()).await;
        patiently("supervisor shutdown", self.supervisor.shutdown()).await;
    }
}

pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not end"))
}

/// Sends bytes and reads until the server closes.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_all(stream).await
}

/// Reads until the server closes (a reset counts as an end).
pub(crate) async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = patiently("the server's close", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status codes of the answers in raw bytes, in order.
pub(crate) fn statuses(raw: &str) -> Vec<u16> {
    raw.match_indices("HTTP/1.1 ")
        .filter_map(|(at, _)| raw.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Starts a request on a connection of its own and returns the answer's head with its body still open.
pub(crate) async fn open(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> http::Response<Incoming> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    drive(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", to.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    patiently(
        "an answer",
        sender.send_request(request.body(Full::new(body.into())).unwrap()),
    )
    .await
    .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's connection")]
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(connection);
}

/// One request on a connection of its own.
pub(crate) async fn call(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let (parts, body) = open(to, method, path, headers, body).await.into_parts();
    let body = patiently("an answer's end", body.collect()).await.unwrap().to_bytes();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> Reply {
    call(to, "GET", path, &[], "").await
}

pub(crate) async fn post(to: SocketAddr, path: &str, body: &serde_json::Value) -> Reply {
    call(
        to,
        "POST",
        path,
        &[("content-type", "application/json")],
        body.to_string(),
    )
    .await
}

/// The rest of an answer's body, errors included: what a client saw until the connection ended.
pub(crate) async fn drain(mut body: Incoming) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(Ok(frame)) = patiently("a frame", body.frame()).await {
        if let Ok(data) = frame.into_data() {
            out.extend_from_slice(&data);
        }
    }
    out
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    patiently(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Lines of an Ollama stream; every line must be JSON and end in a line feed, none may be blank.
pub(crate) fn lines(body: &[u8]) -> Vec<serde_json::Value> {
    assert!(body.ends_with(b"\n"), "{}", String::from_utf8_lossy(body));
    body[..body.len() - 1]
        .split(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// A server with the stub engine, which records what it is asked.
pub(crate) async fn with_stub(env: &[(&'static str, &str)]) -> (Server, PathBuf) {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let path = file.to_path_buf();
    drop(file);
    let mut env: Vec<(&'static str, String)> = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    env.push(("STUB_RECORD", path.to_string_lossy().into_owned()));
    (
        Server::start(Setup {
            engine: Engine::Stub(env),
            ..Setup::default()
        })
        .await,
        path,
    )
}

/// A server with llama-server.
pub(crate) async fn with_engine() -> Server {
    Server::start(Setup {
        engine: Engine::Real,
        ..Setup::default()
    })
    .await
}
