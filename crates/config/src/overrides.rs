//! What the environment and the command line say, laid over the file: flags beat `LLAMA_RUNNER_*`, these beat the
//! `OLLAMA_*` fall-backs (Ollama contract 10, the first ten), all beat the file.

use serde_json::{Value, json};

use crate::document::segments;
use crate::positions::pointer;

/// Values from outside the file, weakest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    pub(crate) patches: Vec<Patch>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Patch {
    pub(crate) path: Vec<String>,
    pub(crate) value: Value,
    /// The variable or flag.
    pub(crate) source: String,
}

/// Variables that are read elsewhere: by the command line, or for folders that are no settings.
const READ_ELSEWHERE: [&str; 5] = ["CONFIG", "DATA_DIR", "CACHE_DIR", "MANAGEMENT_URL", "LOG"];

impl Overrides {
    /// Reads the variables of an environment. A wrong `OLLAMA_*` value is warned about and ignored, as Ollama does; a
    /// wrong `LLAMA_RUNNER_*` value makes the configuration invalid.
    pub fn from_env(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<(String, String)> = environment
            .into_iter()
            .filter(|(name, value)| {
                (name.starts_with("OLLAMA_") || name.starts_with("LLAMA_RUNNER_")) && !value.trim().is_empty()
            })
            .collect();
        variables.sort();
        let mut overrides = Self::default();
        for (name, value) in &variables {
            if let Some(rest) = name.strip_prefix("OLLAMA_") {
                overrides.ollama(rest, name, unquote(value));
            }
        }
        for (name, value) in &variables {
            if let Some(rest) = name.strip_prefix("LLAMA_RUNNER_") {
                overrides.own(rest, name, value.trim());
            }
        }
        overrides
    }

    /// Adds a value from the command line; it beats everything added before.
    #[must_use]
    pub fn flag(mut self, flag: &str, pointer: &str, value: Value) -> Self {
        self.push(pointer, value, flag);
        self
    }

    /// Adds the values of another set; they beat those of this one.
    #[must_use]
    pub fn and(mut self, stronger: Self) -> Self {
        self.patches.extend(stronger.patches);
        self.warnings.extend(stronger.warnings);
        self
    }

    /// The variable or flag that set this place, or a place inside or around it.
    pub(crate) fn source_of(&self, at: &str) -> Option<&str> {
        let inside = |outer: &str, inner: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.patches
            .iter()
            .rev()
            .find(|patch| inside(&pointer(&patch.path), at))
            .map(|patch| patch.source.as_str())
    }

    fn push(&mut self, pointer: &str, value: Value, source: &str) {
        if let Some(path) = segments(pointer) {
            self.patches.push(Patch {
                path,
                value,
                source: source.to_owned(),
            });
        }
    }

    fn own(&mut self, rest: &str, name: &str, value: &str) {
        let number = || scalar(value);
        match rest {
            _ if READ_ELSEWHERE.contains(&rest) => {}
            "OLLAMA_PORT" => self.push("/proxies/ollama/port", number(), name),
            "LMSTUDIO_PORT" => self.push("/proxies/lmstudio/port", number(), name),
            "MANAGEMENT_PORT" => self.push("/proxies/management/port", number(), name),
            "HOST" => {
                for proxy in ["ollama", "lmstudio", "management"] {
                    self.push(&format!("/proxies/{proxy}/host"), json!(value), name);
                }
            }
            "LOG_LEVEL" => self.push("/logging/level", json!(value), name),
            "LOG_FORMAT" => self.push("/logging/format", json!(value), name),
            "MODELS_DIR" => {
                let dirs: Vec<String> = std::env::split_paths(value)
                    .map(|dir| dir.to_string_lossy().into_owned())
                    .collect();
                self.push("/models/dirs", json!(dirs), name);
            }
            _ if rest.contains("__") => {
                let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
                self.push(&pointer(&path), scalar(value), name);
            }
            _ => self.warnings.push(format!(
                "{name} is not a known variable. Any setting can be given as LLAMA_RUNNER_SECTION__KEY, for example \
                 LLAMA_RUNNER_SCHEDULER__MAX_QUEUE."
            )),
        }
    }

    fn ollama(&mut self, rest: &str, name: &str, value: &str) {
        let whole = |value: &str| value.parse::<i64>().ok();
        // Each is (setting, value); `None`: the text is not what Ollama accepts.
        let setting: Option<(&str, Value)> = match rest {
            "HOST" => {
                let (host, port) = ollama_host(value);
                self.push("/proxies/ollama/port", json!(port), name);
                Some(("/proxies/ollama/host", json!(host)))
            }
            "ORIGINS" => {
                let origins: Vec<&str> = value.split(',').map(str::trim).filter(|o| !o.is_empty()).collect();
                Some(("/proxies/ollama/allowed_origins", json!(origins)))
            }
            "MODELS" => Some(("/models/ollama_store", json!(value))),
            "KEEP_ALIVE" => match (value.parse::<f64>(), domain::KeepAlive::parse_go(value)) {
                (Ok(seconds), _) => Some(("/defaults/keep_alive", json!(seconds))),
                (_, Ok(_)) => Some(("/defaults/keep_alive", json!(value))),
                _ => None,
            },
            "LOAD_TIMEOUT" => {
                let seconds = match (value.parse::<i64>(), domain::parse_go_duration(value)) {
                    (Ok(seconds), _) => Some(seconds.max(0)),
                    (_, Ok((negative, duration))) => Some(if negative {
                        0
                    } else {
                        (duration.as_secs_f64().ceil() as i64).max(0)
                    }),
                    _ => None,
                };
                seconds.map(|seconds| ("/supervisor/stall_timeout_seconds", json!(seconds)))
            }
            "NUM_PARALLEL" => whole(value).map(|n| ("/defaults/parallel", zero_is_auto(n))),
            "MAX_LOADED_MODELS" => whole(value).map(|n| ("/scheduler/max_loaded_models", zero_is_auto(n))),
            "MAX_QUEUE" => whole(value)
                .filter(|n| *n > 0)
                .map(|n| ("/scheduler/max_queue", json!(n))),
            "CONTEXT_LENGTH" => whole(value).map(|n| ("/defaults/context", zero_is_auto(n))),
            "KV_CACHE_TYPE" => Some(("/defaults/kv_cache_type", json!(value.to_lowercase()))),
            _ => return,
        };
        match setting {
            Some((pointer, value)) => self.push(pointer, value, name),
            None => self
                .warnings
                .push(format!("{name}={value:?} is not a usable value and is ignored.")),
        }
    }
}

fn zero_is_auto(number: i64) -> Value {
    if number <= 0 { json!("auto") } else { json!(number) }
}

/// Numbers, truth values and lists as JSON; anything else is text.
fn scalar(value: &str) -> Value {
    serde_json::from_str::<Value>(value).unwrap_or_else(|_| json!(value))
}

fn unquote(value: &str) -> &str {
    value.trim().trim_matches(['"', '\'']).trim()
}

/// `[scheme://]host[:port][/path]` as Ollama reads `OLLAMA_HOST`: http without a port means 80, https 443, a bad port
/// falls back to the default.
fn ollama_host(text: &str) -> (String, u16) {
    const DEFAULT: u16 = 11434;
    let (scheme_port, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (443, rest),
        Some((_, rest)) => (80, rest),
        None => (DEFAULT, text),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        // More than one colon without brackets is an IPv6 address.
        None if authority.matches(':').count() > 1 => (authority, None),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let port = port.map_or(scheme_port, |port| port.parse().unwrap_or(DEFAULT));
    (host.to_owned(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Auto, Config, EngineRules};
    use domain::KeepAlive;
    use std::time::Duration;

    fn with(text: &str, variables: &[(&str, &str)]) -> crate::Parsed {
        let overrides = Overrides::from_env(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Config::parse_with("config.json", text, &overrides, &EngineRules::default()).unwrap()
    }

    #[test]
    fn ollama_host_forms() {
        for (text, host, port) in [
            ("127.0.0.1:11500", "127.0.0.1", 11500),
            ("localhost", "localhost", 11434),
            (":8080", "127.0.0.1", 8080),
            ("http://localhost", "localhost", 80),
            ("https://localhost/x", "localhost", 443),
            ("http://127.0.0.1:9/y", "127.0.0.1", 9),
            ("127.0.0.1:http", "127.0.0.1", 11434),
            ("[::1]:77", "::1", 77),
            ("::1", "::1", 11434),
        ] {
            assert_eq!(ollama_host(text), (host.to_owned(), port), "{text}");
        }
        assert_eq!(
            with("{}", &[("OLLAMA_HOST", " \"localhost:99\" ")])
                .config
                .proxies
                .ollama
                .port,
            99
        );
    }

    #[test]
    fn the_ten_fall_backs() {
        let parsed = with(
            r#"{"scheduler":{"max_queue":9}}"#,
            &[
                ("OLLAMA_HOST", "localhost:99"),
                ("OLLAMA_ORIGINS", "http://a, http://b"),
                ("OLLAMA_MODELS", "/m"),
                ("OLLAMA_KEEP_ALIVE", "-1"),
                ("OLLAMA_LOAD_TIMEOUT", "3m"),
                ("OLLAMA_NUM_PARALLEL", "3"),
                ("OLLAMA_MAX_LOADED_MODELS", "2"),
                ("OLLAMA_MAX_QUEUE", "7"),
                ("OLLAMA_CONTEXT_LENGTH", "8192"),
                ("OLLAMA_KV_CACHE_TYPE", "Q8_0"),
                ("OLLAMA_DEBUG", "1"),
            ],
        );
        assert_eq!(parsed.warnings, Vec::<String>::new());
        let config = parsed.config;
        assert_eq!(
            (config.proxies.ollama.host.as_str(), config.proxies.ollama.port),
            ("localhost", 99)
        );
        assert_eq!(config.proxies.lmstudio.port, 1234);
        assert_eq!(config.proxies.ollama.allowed_origins, ["http://a", "http://b"]);
        assert_eq!(config.models.ollama_store, Some("/m".into()));
        assert_eq!(config.defaults.keep_alive, KeepAlive::Forever);
        assert_eq!(config.supervisor.stall_timeout_seconds, 180);
        assert_eq!(config.defaults.parallel, Auto::Value(3));
        assert_eq!(config.scheduler.max_loaded_models, Auto::Value(2));
        assert_eq!(config.scheduler.max_queue, 7, "the environment beats the file");
        assert_eq!(config.defaults.context, Auto::Value(8192));
        assert_eq!(config.defaults.kv_cache_type, Auto::Value("q8_0".into()));
    }

    #[test]
    fn wrong_ollama_values_are_ignored_with_a_warning() {
        let parsed = with(
            "{}",
            &[
                ("OLLAMA_MAX_QUEUE", "many"),
                ("OLLAMA_KEEP_ALIVE", "soon"),
                ("OLLAMA_NUM_PARALLEL", "0"),
            ],
        );
        assert_eq!(parsed.warnings.len(), 2, "{:?}", parsed.warnings);
        assert_eq!(parsed.config.scheduler.max_queue, 512);
        assert_eq!(
            parsed.config.defaults.keep_alive,
            KeepAlive::For(Duration::from_mins(5))
        );
        assert_eq!(parsed.config.defaults.parallel, Auto::Auto);
    }

    #[test]
    fn order_is_flag_own_ollama_file() {
        let overrides = Overrides::from_env(
            [
                ("LLAMA_RUNNER_OLLAMA_PORT", "2"),
                ("OLLAMA_HOST", "localhost:3"),
                ("LLAMA_RUNNER_SCHEDULER__MAX_QUEUE", "6"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let text = r#"{"proxies":{"ollama":{"port":4}}}"#;
        let port = |overrides: &Overrides| {
            let parsed = Config::parse_with("c", text, overrides, &EngineRules::default()).unwrap();
            (parsed.config.proxies.ollama.port, parsed.config.scheduler.max_queue)
        };
        assert_eq!(port(&Overrides::default()), (4, 512));
        assert_eq!(port(&overrides), (2, 6));
        assert_eq!(
            port(&overrides.flag("--ollama-port", "/proxies/ollama/port", json!(1))),
            (1, 6)
        );
    }

    #[test]
    fn messages_name_the_variable_or_flag() {
        let overrides = Overrides::from_env([("LLAMA_RUNNER_OLLAMA_PORT".to_owned(), "abc".to_owned())]).flag(
            "--host",
            "/proxies/lmstudio/host",
            json!("0.0.0.0"),
        );
        let error = Config::parse_with("c", "{}", &overrides, &EngineRules::default())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "LLAMA_RUNNER_OLLAMA_PORT: proxies.ollama.port: invalid type: string \"abc\", expected u16"
        );
        let overrides = Overrides::default().flag("--host", "/proxies/lmstudio/host", json!("0.0.0.0"));
        let error = Config::parse_with("c", "{}", &overrides, &EngineRules::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("--host: proxies.lmstudio.host: \"0.0.0.0\" can be reached from other machines"),
            "{error}"
        );
        let overrides = Overrides::from_env([("LLAMA_RUNNER_NONSENSE".to_owned(), "1".to_owned())]);
        assert!(overrides.warnings[0].starts_with("LLAMA_RUNNER_NONSENSE is not a known variable"));
    }
}
