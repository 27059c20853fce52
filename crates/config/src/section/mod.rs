//! The sections of `config.json`. Names come from the compatibility contract "Command line and config" and stay.
//! Every field's documentation becomes the JSON Schema and the reference page, so it is written for users.

mod engines;
mod models;
mod proxies;
mod services;
mod surface;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use engines::{CustomEngine, Engines, FasterWhisper, Limits, LlamaServer, Scheduler, Supervisor};
pub use models::{Defaults, Group, ModelConfig, Models};
pub use proxies::{Proxies, Proxy, RateLimits};
pub use services::{Audio, Auth, Catalog, Downloads, LmStudio, Node, ReasoningField, UnknownModel, Webhooks};
pub use surface::{Desktop, Inspector, LogFormat, LogLevel, Logging, Telemetry, Theme, Ui};

/// The version of the file's form that this program writes.
pub const CONFIG_VERSION: u32 = 1;

/// LlamaRunner's settings: everything in `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Where an editor finds the JSON Schema of this file. Not used by the program.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Version of this file's form. Written by the program.
    pub config_version: u32,
    /// The three listeners.
    pub proxies: Proxies,
    /// Where models are found, and settings of single models.
    pub models: Models,
    /// Further names for models: `"name": "model key"`.
    pub model_aliases: BTreeMap<String, String>,
    /// Groups of models that share rules for being loaded together.
    pub groups: BTreeMap<String, Group>,
    /// What a model is started with unless its own entry or the request says otherwise.
    pub defaults: Defaults,
    /// How many models are loaded, and how long requests wait.
    pub scheduler: Scheduler,
    /// When an engine counts as stuck, and how it is stopped.
    pub supervisor: Supervisor,
    /// Sizes the server accepts.
    pub limits: Limits,
    /// The programs that run models.
    pub engines: Engines,
    /// Speech to text.
    pub audio: Audio,
    /// Behaviour of the LM Studio port.
    pub lmstudio: LmStudio,
    /// API keys.
    pub auth: Auth,
    /// Model downloads.
    pub downloads: Downloads,
    /// The list of models offered for download.
    pub catalog: Catalog,
    /// Calls to other programs when something happens.
    pub webhooks: Webhooks,
    /// Other LlamaRunner servers, by name.
    pub nodes: BTreeMap<String, Node>,
    /// This server's name among the nodes. Empty: the machine's name.
    pub local_node: String,
    /// Log output.
    pub logging: Logging,
    /// Sending measurements elsewhere.
    pub telemetry: Telemetry,
    /// Keeping recent requests for inspection.
    pub inspector: Inspector,
    /// The window.
    pub ui: Ui,
    /// The tray application.
    pub desktop: Desktop,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schema: None,
            config_version: CONFIG_VERSION,
            proxies: Proxies::default(),
            models: Models::default(),
            model_aliases: BTreeMap::new(),
            groups: BTreeMap::new(),
            defaults: Defaults::default(),
            scheduler: Scheduler::default(),
            supervisor: Supervisor::default(),
            limits: Limits::default(),
            engines: Engines::default(),
            audio: Audio::default(),
            lmstudio: LmStudio::default(),
            auth: Auth::default(),
            downloads: Downloads::default(),
            catalog: Catalog::default(),
            webhooks: Webhooks::default(),
            nodes: BTreeMap::new(),
            local_node: String::new(),
            logging: Logging::default(),
            telemetry: Telemetry::default(),
            inspector: Inspector::default(),
            ui: Ui::default(),
            desktop: Desktop::default(),
        }
    }
}
