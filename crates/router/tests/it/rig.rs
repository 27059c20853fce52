use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::{
    Capabilities, Capability, EngineKind, EngineMode, InstanceView, LaunchOptions, ModelEntry, ModelFacts, ModelSource,
    RunnerError,
};
use engines::{EngineSettings, Engines};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Body as _;
use models::{Registry, RegistrySettings};
use router::{Lease, LeaseRequest, Router, RouterDeps, RouterSettings, UpstreamBody, UpstreamRequest};
use serde_json::{Value, json};
use supervisor::{Supervisor, SupervisorSettings};
use telemetry::EventBus;
use testkit::{Recorded, TempHome, read_record};

/// No step of a test takes longer, even on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Rig {
    pub(crate) router: Router,
    pub(crate) bus: EventBus,
    home: TempHome,
}

impl Rig {
    pub(crate) fn new(settings: RouterSettings) -> Self {
        Self::with_engine(settings, testkit::stub_engine_path())
    }

    pub(crate) fn with_engine(settings: RouterSettings, engine: PathBuf) -> Self {
        let engines = EngineSettings {
            path: Some(engine),
            ..EngineSettings::default()
        };
        Self::with_engines(settings, engines)
    }

    /// With these engines; places are the rig's own.
    pub(crate) fn with_engines(settings: RouterSettings, engines: EngineSettings) -> Self {
        let home = TempHome::new().unwrap();
        let bus = EventBus::new();
        let engines = Engines::new(EngineSettings {
            cache_dir: home.cache(),
            data_dir: home.data(),
            ..engines
        });
        let supervisor = Supervisor::start(SupervisorSettings {
            state_dir: home.state(),
            log_dir: home.data().join("logs"),
            max_file_bytes: 1 << 20,
            max_files: 2,
        })
        .unwrap();
        let registry = RegistrySettings {
            index_path: home.cache().join("models.index"),
            ..RegistrySettings::default()
        };
        let router = Router::new(RouterDeps {
            settings,
            registry: Registry::open(registry, bus.clone()).unwrap(),
            engines,
            supervisor,
            bus: bus.clone(),
            hardware: hardware::Hardware::new(),
        });
        Self { router, bus, home }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A model of the stub engine with these faults; one slot.
    pub(crate) fn model(&self, name: &str, faults: &[(&str, &str)]) -> Arc<ModelEntry> {
        let record = self.path(&format!("{name}.record")).to_string_lossy().into_owned();
        let mut env = vec![("STUB_RECORD".to_owned(), record)];
        env.extend(faults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let launch = LaunchOptions {
            parallel: Some(1),
            env,
            ..LaunchOptions::default()
        };
        entry(name, "tiny-chat.gguf", Capability::Chat, launch)
    }

    /// A model of the stub speech engine with these faults.
    pub(crate) fn speech_model(&self, name: &str, faults: &[(&str, &str)]) -> Arc<ModelEntry> {
        let mut model = ModelEntry::clone(&self.model(name, faults));
        model.engine = EngineKind::FasterWhisper;
        model.launch.parallel = None;
        model.path = testkit::tiny_whisper_dir();
        model.capabilities = Capabilities::from_iter([Capability::Transcription]);
        model.facts.architecture = "whisper".into();
        Arc::new(model)
    }

    /// What the stub engines of a model recorded.
    pub(crate) fn record(&self, name: &str) -> Vec<Recorded> {
        read_record(&self.path(&format!("{name}.record"))).unwrap()
    }

    pub(crate) fn starts(&self, name: &str) -> usize {
        self.record(name)
            .iter()
            .filter(|r| matches!(r, Recorded::Start { .. }))
            .count()
    }

    /// Chat requests the stub engines of a model got.
    pub(crate) fn chats(&self, name: &str) -> usize {
        let is_chat = |r: &&Recorded| matches!(r, Recorded::Request { path, .. } if path.starts_with("/v1/chat"));
        self.record(name).iter().filter(is_chat).count()
    }

    pub(crate) async fn lease(&self, model: &Arc<ModelEntry>) -> Result<Lease, RunnerError> {
        let lease = self.router.lease(ask(model));
        tokio::time::timeout(LIMIT, lease).await.expect("no lease in time")
    }

    pub(crate) fn view(&self, model: &ModelEntry) -> Option<InstanceView> {
        self.router.status(&model.key).1
    }

    pub(crate) async fn end(self) {
        self.router.shutdown(Duration::ZERO).await;
    }
}

pub(crate) fn entry(name: &str, file: &str, capability: Capability, launch: LaunchOptions) -> Arc<ModelEntry> {
    let path = testkit::models_dir().join(file);
    Arc::new(ModelEntry {
        key: name.into(),
        slug: name.into(),
        engine: EngineKind::LlamaServer,
        source: ModelSource::Folder,
        size: path.metadata().unwrap().len(),
        path,
        parts: Vec::new(),
        mmproj: None,
        modified: 0,
        publisher: String::new(),
        indexed_path: String::new(),
        display_name: name.into(),
        description: None,
        digest: String::new(),
        aliases: Vec::new(),
        capabilities: Capabilities::from_iter([capability]),
        facts: ModelFacts::default(),
        launch,
        keep_alive: None,
        pinned: false,
        unlisted: false,
        profile: std::sync::Arc::default(),
        runs_as: None,
        instance_of: None,
    })
}

pub(crate) fn ask(model: &Arc<ModelEntry>) -> LeaseRequest {
    LeaseRequest {
        model: model.clone(),
        launch: LaunchOptions {
            mode: Some(EngineMode::Completion),
            ..LaunchOptions::default()
        },
        keep_alive: None,
        jit: false,
        operation: "test chat",
        client: "test".into(),
        id: None,
    }
}

/// A chat request; `script` tells the stub engine what to do.
pub(crate) fn chat(stream: bool, script: &Value) -> UpstreamRequest {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "stream": stream, "stub": script});
    post("/v1/chat/completions", &body)
}

pub(crate) fn post(path: &str, body: &Value) -> UpstreamRequest {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    UpstreamRequest {
        method: Method::POST,
        path: path.into(),
        headers,
        body: body.to_string().into(),
        attached: None,
    }
}

pub(crate) async fn send(lease: &Lease, request: UpstreamRequest) -> Result<Response<UpstreamBody>, RunnerError> {
    tokio::time::timeout(LIMIT, lease.send(request))
        .await
        .expect("no answer in time")
}

pub(crate) async fn next(body: &mut UpstreamBody) -> Option<Result<Bytes, RunnerError>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    let frame = tokio::time::timeout(LIMIT, frame).await.expect("no bytes in time")?;
    Some(frame.map(|frame| frame.into_data().expect("data")))
}

/// All bytes and how the body ended.
pub(crate) async fn drain(mut body: UpstreamBody) -> (Vec<u8>, Result<(), RunnerError>) {
    let mut all = Vec::new();
    loop {
        match next(&mut body).await {
            Some(Ok(data)) => all.extend_from_slice(&data),
            Some(Err(error)) => return (all, Err(error)),
            None => return (all, Ok(())),
        }
    }
}

/// Waits for something that has no event of its own, such as a line in another process's record file.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, poll).await.is_ok(), "{what}: not in time");
}
