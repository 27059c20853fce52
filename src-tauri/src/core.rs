//! The running product as tray and window need it: facts out, commands in.

use std::sync::Arc;
use std::time::Duration;

use app::AppHandle;
use domain::{Event, InstanceView, LaunchOptions, ModelEntry, ModelKey, ModelState};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

/// How long running answers may take when the app quits: stopping is done within 15 s in all (promise G1).
const LONGEST_DRAIN: Duration = Duration::from_secs(8);

/// A model and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct ModelFact {
    pub(crate) entry: Arc<ModelEntry>,
    pub(crate) state: ModelState,
    pub(crate) instance: Option<InstanceView>,
}

/// Everything the tray shows, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Listed models in the catalogue's order.
    pub(crate) models: Vec<ModelFact>,
    /// Requests running or waiting.
    pub(crate) requests: usize,
    /// Listeners that do not answer, and a configuration file that was refused.
    pub(crate) warnings: Vec<String>,
}

/// The core with the runtime it lives on. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Core {
    app: AppHandle,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Core {
    pub(crate) fn new(app: AppHandle, runtime: Handle) -> Self {
        Self {
            app,
            runtime,
            tasks: TaskTracker::new(),
        }
    }

    /// The window's address. May change when the configuration is reloaded.
    pub(crate) fn ui_url(&self) -> Option<tauri::Url> {
        self.app.ui_url()?.parse().ok()
    }

    /// `http://127.0.0.1:11434` and the like; `None`: not served.
    pub(crate) fn ollama(&self) -> Option<String> {
        self.app
            .ready()
            .listeners
            .ollama
            .map(|address| format!("http://{address}"))
    }

    /// As [`Core::ollama`], for LM Studio's port.
    pub(crate) fn lmstudio(&self) -> Option<String> {
        self.app
            .ready()
            .listeners
            .lmstudio
            .map(|address| format!("http://{address}"))
    }

    pub(crate) fn app(&self) -> &AppHandle {
        &self.app
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.app.bus().subscribe()
    }

    /// What the tray shows.
    pub(crate) fn facts(&self) -> Facts {
        let catalog = self.app.registry().catalog();
        // Further names of one model are one line: there is one engine to start and to stop.
        let models = catalog
            .listed()
            .filter(|entry| entry.runs_as.is_none())
            .map(|entry| {
                let (state, instance) = self.app.router().status(&entry.key);
                ModelFact {
                    entry: Arc::clone(entry),
                    state,
                    instance,
                }
            })
            .collect();
        let ready = self.app.ready();
        let mut warnings: Vec<String> = ready.problems.iter().map(|problem| problem.error.clone()).collect();
        let config = self.app.config().status();
        if !config.ok {
            warnings.push(config.error.unwrap_or_else(|| "config.json was not accepted.".into()));
        }
        Facts {
            models,
            requests: self.app.router().active_requests().len(),
            warnings,
        }
    }

    /// Loads a model in the background; a failure shows as the model's state.
    pub(crate) fn start(&self, key: ModelKey) {
        let app = self.app.clone();
        self.spawn(async move {
            let Some(entry) = app.registry().catalog().resolve(key.as_str()) else {
                tracing::warn!(model = %key, "the model is gone from the library");
                return;
            };
            if let Err(error) = Box::pin(app.router().load(entry, LaunchOptions::default(), None, false)).await {
                tracing::warn!(model = %key, %error, "the tray could not start a model");
            }
        });
    }

    /// Unloads models in the background, after their running requests.
    pub(crate) fn stop(&self, keys: Vec<ModelKey>) {
        for key in keys {
            let app = self.app.clone();
            self.spawn(async move {
                app.router().unload(&key, false).await;
            });
        }
    }

    /// Unloads everything that is loaded or loading.
    pub(crate) fn stop_all(&self) {
        self.stop(
            self.app
                .router()
                .instances()
                .into_iter()
                .map(|instance| instance.model)
                .collect(),
        );
    }

    /// Starts a task that ends with the core.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Ends engines and listeners, in this order and within a deadline. Blocks; for the last moments of the process.
    pub(crate) fn shut_down(&self) {
        let configured = self.app.config().snapshot().supervisor.drain_timeout_seconds;
        let drain = Duration::from_secs(configured).min(LONGEST_DRAIN);
        self.runtime.block_on(self.app.shutdown_within(drain));
    }
}
