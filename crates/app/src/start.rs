//! Starting, in an order in which every part finds the ones it needs, and with nothing before the ready line that can wait.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use config::{Config, ConfigStore, EngineRules, LogFormat, Overrides, Parsed};
use downloads::{DownloadDeps, Downloads};
use engines::Engines;
use hardware::Hardware;
use http_api::{ApiParts, ApiSettings, ApiState, ConfigView, ListenersView, Uploads};
use models::{Registry, RegistrySettings};
use router::{Router, RouterDeps};
use serde_json::json;
use supervisor::{Supervisor, SupervisorSettings};
use telemetry::{EventBus, TracingSettings};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builtin;
use crate::cleaning;
use crate::discovery_files;
use crate::error::StartError;
use crate::handle::{AppHandle, Inner};
use crate::instance_lock::InstanceLock;
use crate::listeners::Listeners;
use crate::places::{Places, private_folder};
use crate::ready::ReadyReport;
use crate::reload;
use crate::{settings, voices};

/// What the command line (or the desktop shell) asks for. Everything left out comes from the environment, the
/// configuration file or the defaults, in this order.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--models-dir`, once per folder; replaces `models.dirs`.
    pub models_dirs: Vec<PathBuf>,
    /// `--ollama-port`.
    pub ollama_port: Option<u16>,
    /// `--lmstudio-port`.
    pub lmstudio_port: Option<u16>,
    /// `--management-port`.
    pub management_port: Option<u16>,
    /// `--host`, for all listeners.
    pub host: Option<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<String>,
    /// There is a window: it gets a private port when the management listener is off or cannot be bound.
    pub desktop: bool,
}

impl StartOptions {
    /// The folders these options and the environment lead to.
    ///
    /// # Errors
    /// There is no home folder.
    pub fn places(&self) -> Result<Places, StartError> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let config = self.config.clone().or_else(|| variable("LLAMA_RUNNER_CONFIG"));
        let data = self.data_dir.clone().or_else(|| variable("LLAMA_RUNNER_DATA_DIR"));
        Places::find(config.as_deref(), data.as_deref())
    }

    /// Reads and checks the configuration without making or changing anything; a missing file counts as empty.
    ///
    /// # Errors
    /// The file cannot be read or is not acceptable.
    pub fn read_config(&self) -> Result<(Places, Parsed), StartError> {
        let places = self.places()?;
        let text = match std::fs::read_to_string(&places.config) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            Err(source) => {
                return Err(config::ConfigError::Read {
                    path: places.config.clone(),
                    source,
                }
                .into());
            }
        };
        let name = places
            .config
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let parsed = Config::parse_with(&name, &text, &config_overrides(self), &engine_rules())?;
        Ok((places, parsed))
    }
}

/// What environment and options lay over the configuration file.
pub fn config_overrides(options: &StartOptions) -> Overrides {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut overrides = Overrides::from_env(environment);
    let ports = [
        ("--ollama-port", "/proxies/ollama/port", options.ollama_port),
        ("--lmstudio-port", "/proxies/lmstudio/port", options.lmstudio_port),
        ("--management-port", "/proxies/management/port", options.management_port),
    ];
    for (flag, pointer, port) in ports {
        if let Some(port) = port {
            overrides = overrides.flag(flag, pointer, json!(port));
        }
    }
    if let Some(host) = &options.host {
        for proxy in ["ollama", "lmstudio", "management"] {
            overrides = overrides.flag("--host", &format!("/proxies/{proxy}/host"), json!(host));
        }
    }
    if !options.models_dirs.is_empty() {
        let absolute = |dir: &PathBuf| std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let dirs: Vec<PathBuf> = options.models_dirs.iter().map(absolute).collect();
        overrides = overrides.flag("--models-dir", "/models/dirs", json!(dirs));
    }
    if let Some(level) = &options.log_level {
        overrides = overrides.flag("--log-level", "/logging/level", json!(level));
    }
    if let Some(format) = &options.log_format {
        overrides = overrides.flag("--log-format", "/logging/format", json!(format));
    }
    overrides
}

/// The engine crate's checks in the form the configuration wants.
pub fn engine_rules() -> EngineRules {
    fn pair(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }
    EngineRules {
        arguments: |args| engines::reserved_flag(args).map_err(|error| error.to_string()),
        model_environment: |name, value| engines::reserved_env(&pair(name, value)).map_err(|error| error.to_string()),
        engine_environment: |name, value| {
            engines::reserved_setting_env(&pair(name, value)).map_err(|error| error.to_string())
        },
    }
}

/// Starts everything. Call it inside [`crate::runtime`]'s runtime.
///
/// # Errors
/// [`StartError`], with the exit code that belongs to it. Nothing is left running then.
pub async fn start(options: StartOptions) -> Result<AppHandle, StartError> {
    let places = options.places()?;
    private_folder(&places.data)?;
    let lock = InstanceLock::take(&places.data)?;
    let config = ConfigStore::open_with(&places.config, config_overrides(&options), engine_rules())?;
    let bus = EventBus::new();
    let snapshot = config.snapshot();
    start_logging(&snapshot, &places, &bus);
    for warning in config
        .status()
        .warnings
        .into_iter()
        .chain(settings::without_effect(&snapshot))
    {
        tracing::warn!("{warning}");
    }

    let (store, ollama_store) = open_stores(&places).await?;
    let uploads = Uploads::open(places.uploads()).map_err(|source| StartError::Folder {
        path: places.uploads(),
        source,
    })?;
    let hardware = Hardware::new();
    let engines = Engines::new(settings::engines(&snapshot, &places));
    let supervisor = Supervisor::start(SupervisorSettings {
        state_dir: places.children(),
        log_dir: places.logs(),
        max_file_bytes: u64::from(snapshot.logging.max_file_mb) << 20,
        max_files: snapshot.logging.max_files as usize,
    })?
    .with_line_decoder(engines::log_line);
    if snapshot.models.demo
        && let Err(error) = builtin::install(&places)
    {
        tracing::warn!(%error, "the demonstration model could not be put in place");
    }
    let registry = open_registry(settings::registry(&snapshot, &places), bus.clone()).await?;
    let downloads = start_downloads(&config, &places, (&store, &ollama_store), &bus, &hardware, &registry).await;
    let router = Router::new(RouterDeps {
        settings: settings::router(&snapshot),
        registry: registry.clone(),
        engines: engines.clone(),
        supervisor: supervisor.clone(),
        bus: bus.clone(),
        hardware: hardware.clone(),
    });

    let view = Arc::new(ArcSwap::from_pointee(ListenersView::default()));
    let listeners = Listeners::new(Arc::clone(&view), options.desktop);
    let bound = listeners.bind(&snapshot).await;
    let ready = ReadyReport::new(&view.load());
    if ready.listeners.is_empty() && listeners.management().is_none() {
        supervisor.shutdown().await;
        registry.shutdown().await;
        return Err(StartError::NothingBound(Box::new(ready)));
    }
    lock.announce(listeners.management());

    let file = config.clone();
    let api = ApiState::new(ApiParts {
        router: router.clone(),
        registry: registry.clone(),
        bus: bus.clone(),
        engines: engines.clone(),
        hardware: hardware.clone(),
        store,
        ollama_store: ollama_store.clone(),
        downloads: downloads.clone(),
        uploads,
        settings: ApiSettings::from_config(&snapshot),
        listeners: view,
        config_status: Arc::new(move || {
            let mut status = file.status();
            status.warnings.extend(settings::without_effect(&file.snapshot()));
            ConfigView {
                path: status.path.display().to_string(),
                ok: status.ok,
                error: status.error,
                warnings: status.warnings,
            }
        }),
    });
    let tasks = TaskTracker::new();
    cleaning::clean(&tasks, ollama_store, &downloads);
    let stop = CancellationToken::new();
    listeners.serve(bound, &api).await;
    if snapshot.lmstudio.write_discovery_files {
        discovery_files::write(&places.home, listeners.lmstudio());
    }

    let (subscription, updates) = reload::subscribe(&config);
    let inner = Arc::new(Inner {
        ready,
        places,
        config,
        bus,
        router,
        registry,
        downloads,
        engines,
        hardware,
        supervisor,
        api,
        listeners,
        tasks,
        stop,
        hurry: CancellationToken::new(),
        ended: tokio::sync::OnceCell::new(),
        lock,
        _subscription: subscription,
    });
    inner
        .tasks
        .spawn(reload::follow(Arc::downgrade(&inner), updates, inner.stop.clone()));
    tracing::info!(version = crate::VERSION, data = %inner.places.data.display(), "ready");
    Ok(AppHandle { inner })
}

fn start_logging(config: &Config, places: &Places, bus: &EventBus) {
    let logging = &config.logging;
    // Directives such as `info,router=debug`, for whoever looks for a fault.
    let directives = std::env::var("LLAMA_RUNNER_LOG").ok().filter(|text| !text.is_empty());
    let settings = |file| TracingSettings {
        level: directives.clone().unwrap_or_else(|| logging.level.as_str().to_owned()),
        json: logging.format == LogFormat::Json,
        file,
        max_file_bytes: u64::from(logging.max_file_mb) << 20,
        max_files: logging.max_files as usize,
    };
    let file = places.logs().join("llama-runner.log");
    match telemetry::init_tracing(settings(Some(file)), bus) {
        // Two applications in one process happen in tests only; the first one's logging serves both.
        Ok(()) | Err(telemetry::TelemetryError::AlreadySet) => {}
        Err(error) => {
            let without_file = telemetry::init_tracing(settings(None), bus);
            tracing::warn!(%error, "logging without a file");
            if let Err(error) = without_file {
                tracing::warn!(%error, "logging is not set up");
            }
        }
    }
}

/// Opens the database and our own model store, off the runtime's workers.
async fn open_stores(places: &Places) -> Result<(store::Store, ollama_store::Store), StartError> {
    let (database, models) = (places.database(), places.ollama_store());
    let opening = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
        Ok((
            store::Store::open(&database)?,
            ollama_store::Store::open(models, ollama_store::Access::Write)?,
        ))
    });
    opening.await.map_err(|error| StartError::Task(error.to_string()))?
}

/// Downloads; the library has looked at its folders when one is told to be complete.
async fn start_downloads(
    config: &ConfigStore,
    places: &Places,
    (store, ollama_store): (&store::Store, &ollama_store::Store),
    bus: &EventBus,
    hardware: &Hardware,
    registry: &Registry,
) -> Downloads {
    let (hardware, registry) = (hardware.clone(), registry.clone());
    let (current, library) = (config.clone(), places.clone());
    let deps = DownloadDeps {
        store: store.clone(),
        ollama_store: ollama_store.clone(),
        bus: bus.clone(),
        disk_free: Arc::new(move |path| hardware.disk_free(path)),
        landed: Arc::new(move |_, files| {
            let registry = registry.clone();
            let voices = voices::root(&library);
            if files.iter().any(|file| file.starts_with(&voices)) {
                // The library is told which voices there are by its settings.
                registry.apply(settings::registry(&current.snapshot(), &library));
            }
            Box::pin(async move {
                registry.rescan().await;
            })
        }),
    };
    Downloads::start(settings::downloads(&config.snapshot(), places), deps).await
}

/// Opens the library. It waits for the first look at the folders (a large library goes on in the background), which must
/// not hold up a worker of the runtime.
async fn open_registry(settings: RegistrySettings, bus: EventBus) -> Result<Registry, StartError> {
    let opening = tokio::task::spawn_blocking(move || Registry::open(settings, bus));
    // The only way not to come back is a panic in there.
    let registry = opening.await.map_err(|error| StartError::Task(error.to_string()))??;
    tracing::info!(models = registry.catalog().entries().len(), "model folders read");
    Ok(registry)
}
