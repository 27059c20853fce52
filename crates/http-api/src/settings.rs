//! The part of the configuration that the listeners and handlers use, as plain values.

use std::time::Duration;

use config::{Config, Proxy, RateLimits, ReasoningField, UnknownModel};

use crate::listener::{ConnectionLimits, Flavour};
use crate::waiting::WaitingRules;

/// Settings of this crate. Replaced as a whole with [`crate::ApiState::apply`]; requests keep the one they began with.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// Largest request body, in bytes (`limits.json_body_mb`).
    pub max_body: usize,
    /// How long a stop asked for over the API lets running answers finish (`supervisor.drain_timeout_seconds`).
    pub drain: Duration,
    /// When a stream that waits says so.
    pub waiting: WaitingRules,
    /// Connection limits; those in effect when a listener starts to be served stay for its life.
    pub connections: ConnectionLimits,
    /// `proxies.ollama`.
    pub ollama: ListenerRules,
    /// `proxies.lmstudio`.
    pub lmstudio: ListenerRules,
    /// `proxies.management`.
    pub management: ListenerRules,
    /// `lmstudio.*`.
    pub lmstudio_port: LmStudioRules,
    /// `audio.*`.
    pub audio: AudioRules,
    /// Version that `/api/version` reports on the Ollama port (Ollama contract 2).
    pub ollama_version: String,
}

/// Rules of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerRules {
    /// Further web origins; `*` is a wildcard (promise S3).
    pub allowed_origins: Vec<String>,
    /// Further host names (promise S2).
    pub allowed_hosts: Vec<String>,
    /// Limits for peers on this machine: only those the user changed from the documented default.
    pub local: Limits,
    /// Limits for peers elsewhere.
    pub remote: Limits,
    /// Largest file in a form, in bytes (`rate_limits.file_upload_size_mb`); `None`: no limit of the port's own.
    pub max_upload: Option<u64>,
}

/// Speech (`audio.*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioRules {
    /// Model that listens when a request names none, or one of OpenAI's.
    pub default_model: Option<String>,
    /// Model that speaks when a request names none, or one of OpenAI's.
    pub default_speech_model: Option<String>,
    /// A known model that is not there is fetched.
    pub auto_download: bool,
    /// Requests that may wait for one model.
    pub max_queue: usize,
    /// Largest recording, in bytes.
    pub max_upload: u64,
    /// Longest recording, in seconds; 0: any.
    pub max_duration_s: u32,
}

/// Limits per client address; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Requests per minute.
    pub per_minute: Option<u32>,
    /// Requests at once.
    pub concurrent: Option<u32>,
    /// Streams at once.
    pub streaming: Option<u32>,
}

/// Behaviour of the LM Studio port (LM Studio contract 9.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LmStudioRules {
    /// Load on demand; off: only loaded models are listed and answer.
    pub jit: bool,
    /// A load on demand unloads the other models loaded on demand (contract 3).
    pub auto_evict: bool,
    /// Idle time after which a model loaded on demand goes.
    pub default_ttl: Duration,
    /// Status for unknown routes.
    pub unknown_route_status: u16,
    /// Every web origin may use inference on this port.
    pub cors: bool,
    /// An unknown model name is answered by the only loaded model (contract 2).
    pub use_single_loaded: bool,
    /// Errors of bad parameters are plain strings (contract 8).
    pub legacy_error_strings: bool,
    /// Version of LM Studio whose behaviour is claimed (contract 1.2).
    pub reported_version: String,
    /// A repeated load over `/api/v1/models/load` starts a second instance (contract 7.2).
    pub api_load_duplicates: bool,
    /// Where chat completions put reasoning (contract 4.2).
    pub reasoning_field: ReasoningField,
}

impl Default for LmStudioRules {
    fn default() -> Self {
        Self {
            jit: true,
            auto_evict: true,
            default_ttl: Duration::from_hours(1),
            unknown_route_status: 404,
            cors: false,
            use_single_loaded: true,
            legacy_error_strings: false,
            reported_version: "0.4.16".into(),
            api_load_duplicates: false,
            reasoning_field: ReasoningField::Auto,
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}

impl ApiSettings {
    /// Takes the values out of a configuration snapshot.
    pub fn from_config(config: &Config) -> Self {
        let defaults = ConnectionLimits::default();
        let total = config.limits.max_connections as usize;
        Self {
            max_body: (config.limits.json_body_mb as usize) << 20,
            drain: Duration::from_secs(config.supervisor.drain_timeout_seconds),
            waiting: WaitingRules::default(),
            connections: ConnectionLimits {
                total,
                per_peer: total.min(defaults.per_peer),
                ..defaults
            },
            ollama: ListenerRules::from_config(&config.proxies.ollama),
            lmstudio: ListenerRules::from_config(&config.proxies.lmstudio),
            management: ListenerRules::from_config(&config.proxies.management),
            lmstudio_port: LmStudioRules {
                jit: config.lmstudio.jit,
                auto_evict: config.lmstudio.auto_evict,
                default_ttl: Duration::from_secs(config.lmstudio.default_ttl),
                unknown_route_status: config.lmstudio.unknown_route_status,
                cors: config.lmstudio.cors,
                use_single_loaded: config.lmstudio.unknown_model == UnknownModel::UseSingleLoaded,
                legacy_error_strings: config.lmstudio.legacy_error_strings,
                reported_version: config.lmstudio.reported_version.clone(),
                api_load_duplicates: config.lmstudio.api_load_duplicates,
                reasoning_field: config.lmstudio.reasoning_field,
            },
            audio: AudioRules {
                default_model: config.audio.default_model.clone(),
                default_speech_model: config.audio.default_speech_model.clone(),
                auto_download: config.audio.auto_download,
                max_queue: config.audio.max_queue as usize,
                max_upload: u64::from(config.audio.max_upload_mb) << 20,
                max_duration_s: config.audio.max_duration_s,
            },
            ollama_version: domain::OLLAMA_VERSION.into(),
        }
    }

    /// Largest recording that a listener takes, in bytes.
    pub(crate) fn max_recording(&self, flavour: Flavour) -> u64 {
        let port = self.listener(flavour).max_upload;
        port.map_or(self.audio.max_upload, |port| port.min(self.audio.max_upload))
    }

    /// The rules of a listener.
    pub fn listener(&self, flavour: Flavour) -> &ListenerRules {
        match flavour {
            Flavour::Ollama => &self.ollama,
            Flavour::LmStudio => &self.lmstudio,
            Flavour::Management => &self.management,
        }
    }
}

impl ListenerRules {
    fn from_config(proxy: &Proxy) -> Self {
        let documented = RateLimits::default();
        let set = &proxy.rate_limits;
        let limit = |value: u32| (value > 0).then_some(value);
        // The configuration file is written with its defaults, so "set by the user" means "differs from the default":
        // a desktop where one program asks 200 times a minute must work out of the box.
        let changed = |value: u32, default: u32| if value == default { None } else { limit(value) };
        Self {
            allowed_origins: proxy.allowed_origins.clone(),
            allowed_hosts: proxy.allowed_hosts.clone(),
            local: Limits {
                per_minute: changed(set.requests_per_minute, documented.requests_per_minute),
                concurrent: changed(set.concurrent_requests, documented.concurrent_requests),
                streaming: changed(set.streaming_connections, documented.streaming_connections),
            },
            remote: Limits {
                per_minute: limit(set.requests_per_minute),
                concurrent: limit(set.concurrent_requests),
                streaming: limit(set.streaming_connections),
            },
            max_upload: limit(set.file_upload_size_mb).map(|mb| u64::from(mb) << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lmstudio(section: &str) -> LmStudioRules {
        let text = format!(r#"{{"lmstudio": {section}}}"#);
        ApiSettings::from_config(&Config::parse(&text).unwrap().config).lmstudio_port
    }

    #[test]
    fn every_key_of_the_lm_studio_port_counts() {
        assert_eq!(lmstudio("{}"), LmStudioRules::default());
        let all = lmstudio(
            r#"{"jit": false, "default_ttl": 5, "unknown_route_status": 200, "cors": true, "unknown_model": "error",
                "legacy_error_strings": true, "reported_version": "9.9", "api_load_duplicates": true,
                "reasoning_field": "inline"}"#,
        );
        assert_eq!(
            all,
            LmStudioRules {
                jit: false,
                auto_evict: true,
                default_ttl: Duration::from_secs(5),
                unknown_route_status: 200,
                cors: true,
                use_single_loaded: false,
                legacy_error_strings: true,
                reported_version: "9.9".into(),
                api_load_duplicates: true,
                reasoning_field: ReasoningField::Inline,
            }
        );
    }
}
