use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The three listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Proxies {
    /// The port Ollama's clients use.
    pub ollama: Proxy,
    /// The port LM Studio's clients use.
    pub lmstudio: Proxy,
    /// The port of our own window, command line and management API.
    pub management: Proxy,
}

impl Default for Proxies {
    fn default() -> Self {
        let on = |port| Proxy {
            port,
            ..Proxy::default()
        };
        Self {
            ollama: on(11434),
            lmstudio: on(1234),
            management: on(5800),
        }
    }
}

impl Proxies {
    /// The listeners with their names, in the order they are shown.
    pub fn named(&self) -> [(&'static str, &Proxy); 3] {
        [
            ("ollama", &self.ollama),
            ("lmstudio", &self.lmstudio),
            ("management", &self.management),
        ]
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Proxy {
    /// False: this port is not opened.
    pub enabled: bool,
    /// Address to listen on. Only loopback addresses (127.0.0.1, ::1, localhost) are accepted until API keys exist. A
    /// loopback listener answers on 127.0.0.1 and on ::1.
    pub host: String,
    /// Port; 0: any free port.
    pub port: u16,
    /// Limits per client address.
    pub rate_limits: RateLimits,
    /// Web origins (for example `https://chat.example`) whose pages may use this port, besides this machine's own. `*`
    /// allows every page: any web site you visit could then use your models.
    pub allowed_origins: Vec<String>,
    /// Further host names by which this server may be called, besides localhost and this machine's name.
    pub allowed_hosts: Vec<String>,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            enabled: true,
            host: "127.0.0.1".into(),
            port: 0,
            rate_limits: RateLimits::default(),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
        }
    }
}

/// Limits per client address. The window, tray and command line of this machine are not counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RateLimits {
    /// Requests per minute; 0: no limit.
    pub requests_per_minute: u32,
    /// Requests at once; 0: no limit.
    pub concurrent_requests: u32,
    /// Streams at once; 0: no limit.
    pub streaming_connections: u32,
    /// Largest file upload, in MB.
    pub file_upload_size_mb: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            requests_per_minute: 100,
            concurrent_requests: 10,
            streaming_connections: 5,
            file_upload_size_mb: 100,
        }
    }
}
