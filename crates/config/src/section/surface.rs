use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Log output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Logging {
    /// How much is logged.
    pub level: LogLevel,
    /// Form of the lines on the terminal.
    pub format: LogFormat,
    /// Size at which a log file is rotated, in MB.
    pub max_file_mb: u32,
    /// Files kept per source.
    pub max_files: u32,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            max_file_mb: 10,
            max_files: 5,
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And things the user may want to change.
    Warn,
    /// Normal.
    Info,
    /// Details.
    Debug,
    /// Every detail.
    Trace,
}

impl LogLevel {
    /// The word used in the file and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sending measurements elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Telemetry {
    /// Address of an OpenTelemetry collector. Null: nothing is sent anywhere.
    pub otlp_endpoint: Option<String>,
}

/// Keeping recent requests for inspection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Inspector {
    /// Keep requests and answers. They may hold private text; they stay on this machine.
    pub enabled: bool,
    /// How many.
    pub keep: u32,
}

impl Default for Inspector {
    fn default() -> Self {
        Self {
            enabled: false,
            keep: 100,
        }
    }
}

/// The window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ui {
    /// Language code such as `en`; "auto": the system's.
    pub language: String,
    /// Colours.
    pub theme: Theme,
}

impl Default for Ui {
    fn default() -> Self {
        Self {
            language: "auto".into(),
            theme: Theme::System,
        }
    }
}

/// Colours of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Theme {
    /// As the system.
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// The tray application.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Desktop {
    /// Start when the user logs in.
    pub autostart: bool,
    /// Start in the tray without opening the window.
    pub start_hidden: bool,
}
