//! What a well-typed configuration may still get wrong. Pure: values in, sentences out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::section::{Config, ModelConfig};
use crate::value::Auto;

/// Checks that only the `engines` crate can make; this crate knows no engine flag.
#[derive(Debug, Clone, Copy)]
pub struct EngineRules {
    /// Refuses arguments that LlamaRunner sets itself or that are not safe (promise S9), with the reason.
    pub arguments: fn(&[String]) -> Result<(), String>,
    /// Refuses an environment variable of a model's entry by name and value (promise S10), with the reason.
    pub model_environment: fn(&str, &str) -> Result<(), String>,
    /// The same for `engines.llama_server.env`, where the owner of the file may set more.
    pub engine_environment: fn(&str, &str) -> Result<(), String>,
}

impl Default for EngineRules {
    fn default() -> Self {
        Self {
            arguments: plain_arguments,
            model_environment: plain_environment,
            engine_environment: plain_environment,
        }
    }
}

fn plain_arguments(arguments: &[String]) -> Result<(), String> {
    match arguments.iter().find(|a| a.contains('\0')) {
        Some(_) => Err("an argument holds a NUL character".into()),
        None => Ok(()),
    }
}

fn plain_environment(name: &str, value: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
        return Err(format!("{name:?} is not a name for an environment variable"));
    }
    if value.contains('\0') {
        return Err("the value holds a NUL character".into());
    }
    Ok(())
}

const NO_KEYS_YET: &str = "API keys cannot be checked by this version yet, so the server would be open to everyone who \
                           reaches it";

type Problems = Vec<(Vec<String>, String)>;

/// Everything wrong with the values, each with the path of its setting.
pub(crate) fn validate(config: &Config, rules: &EngineRules) -> Problems {
    let mut problems = Problems::new();
    proxies(config, &mut problems);
    names(config, &mut problems);
    numbers(config, &mut problems);
    engines(config, rules, &mut problems);
    keys(config, &mut problems);
    downloads(config, &mut problems);
    problems
}

fn downloads(config: &Config, problems: &mut Problems) {
    let downloads = &config.downloads;
    for (field, base) in [
        ("huggingface_base_url", &downloads.huggingface_base_url),
        ("ollama_registry_base_url", &downloads.ollama_registry_base_url),
    ] {
        let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
        let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
        // A password here would be shown wherever the settings are.
        let usable =
            host.is_some_and(|host| !host.is_empty() && !host.chars().any(|c| c.is_whitespace() || "@?#".contains(c)));
        if !usable {
            let why = format!("{base:?} is not an address such as \"https://mirror.example\"");
            problems.push((path(&["downloads", field]), why));
        }
    }
    if downloads.bandwidth_limit == Some(0) {
        let why = "0 would never download anything; use null for no limit".to_owned();
        problems.push((path(&["downloads", "bandwidth_limit"]), why));
    }
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|s| (*s).to_owned()).collect()
}

fn proxies(config: &Config, problems: &mut Problems) {
    let proxies = config.proxies.named();
    for (index, (name, proxy)) in proxies.iter().enumerate() {
        let host = &proxy.host;
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback {
            let why = if host.parse::<IpAddr>().is_ok() {
                format!(
                    "{host:?} can be reached from other machines, which needs an API key. {NO_KEYS_YET}. Use \
                     127.0.0.1, ::1 or localhost"
                )
            } else {
                format!("{host:?} is not an address. Use 127.0.0.1, ::1 or localhost")
            };
            problems.push((path(&["proxies", name, "host"]), why));
        }
        let clash = proxies[..index]
            .iter()
            .find(|(_, other)| other.enabled && proxy.enabled && other.port == proxy.port && proxy.port != 0);
        if let Some((other, _)) = clash {
            let why = format!(
                "port {} is also the port of proxies.{other}; each listener needs its own",
                proxy.port
            );
            problems.push((path(&["proxies", name, "port"]), why));
        }
        for (at, origin) in proxy.allowed_origins.iter().enumerate() {
            if origin.trim().is_empty() || origin.chars().any(|c| c.is_control() || c.is_whitespace()) {
                let why = format!("{origin:?} is not an origin such as \"https://chat.example\"");
                problems.push((path(&["proxies", name, "allowed_origins", &at.to_string()]), why));
            }
        }
        for (at, allowed) in proxy.allowed_hosts.iter().enumerate() {
            if allowed.is_empty() || allowed.chars().any(|c| c.is_control() || " /?#@".contains(c)) {
                let why = format!("{allowed:?} is not a host name");
                problems.push((path(&["proxies", name, "allowed_hosts", &at.to_string()]), why));
            }
        }
    }
}

fn name_problem(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        Some("a model name must not be empty".into())
    } else if name.len() > 255 {
        Some("a model name has at most 255 bytes".into())
    } else if name.chars().any(char::is_control) {
        Some("a model name must not hold control characters".into())
    } else if domain::is_reserved_name(name) {
        Some(format!("{name:?} is a reserved word and cannot name a model"))
    } else {
        None
    }
}

fn names(config: &Config, problems: &mut Problems) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for (alias, target) in &config.model_aliases {
        let at = path(&["model_aliases", alias]);
        if let Some(why) = name_problem(alias) {
            problems.push((at.clone(), why));
        }
        if target.trim().is_empty() {
            problems.push((at.clone(), "the model key is missing".into()));
        } else if target.eq_ignore_ascii_case(alias) {
            problems.push((at, format!("{alias:?} points to itself")));
        }
        owners.insert(alias.to_lowercase(), target.clone());
    }
    for (key, entry) in &config.models.entries {
        if let Some(why) = name_problem(key) {
            problems.push((path(&["models", "entries", key]), why));
        }
        for (index, alias) in entry.aliases.iter().enumerate() {
            let at = path(&["models", "entries", key, "aliases", &index.to_string()]);
            if let Some(why) = name_problem(alias) {
                problems.push((at.clone(), why));
            }
            let owner = owners.entry(alias.to_lowercase()).or_insert_with(|| key.clone());
            if owner != key {
                problems.push((at, format!("{alias:?} is already a name of {owner:?}")));
            }
        }
        if let Some(group) = entry.group.as_ref().filter(|group| !config.groups.contains_key(*group)) {
            let at = path(&["models", "entries", key, "group"]);
            problems.push((at, format!("there is no group {group:?} under \"groups\"")));
        }
    }
    let mut members: BTreeMap<&str, &str> = BTreeMap::new();
    for (group, settings) in &config.groups {
        for (index, member) in settings.members.iter().enumerate() {
            let other = *members.entry(member).or_insert(group);
            if other != group {
                let at = path(&["groups", group, "members", &index.to_string()]);
                problems.push((at, format!("{member:?} is already in group {other:?}")));
            }
        }
    }
    for (name, node) in &config.nodes {
        if !(node.address.starts_with("http://") || node.address.starts_with("https://")) {
            let why = format!(
                "{:?} is not an address such as \"http://192.168.1.5:5800\"",
                node.address
            );
            problems.push((path(&["nodes", name, "address"]), why));
        }
    }
}

fn numbers(config: &Config, problems: &mut Problems) {
    let mut range = |at: &[&str], value: u64, low: u64, high: u64| {
        if !(low..=high).contains(&value) {
            problems.push((path(at), format!("{value} is out of range; it must be {low} to {high}")));
        }
    };
    let auto = |value: Auto<u32>, unset: u64| value.value().map_or(unset, u64::from);
    let defaults = &config.defaults;
    range(&["defaults", "context"], auto(defaults.context, 8), 8, 16_777_216);
    range(&["defaults", "parallel"], auto(defaults.parallel, 1), 1, 256);
    range(&["defaults", "gpu_layers"], auto(defaults.gpu_layers, 0), 0, 10_000);
    range(&["defaults", "batch"], auto(defaults.batch, 1), 1, 65_536);
    range(&["defaults", "threads"], auto(defaults.threads, 1), 1, 1024);
    for (key, entry) in &config.models.entries {
        let at = |field| ["models", "entries", key.as_str(), field];
        range(&at("context"), auto(entry.context, 8), 8, 16_777_216);
        range(&at("parallel"), auto(entry.parallel, 1), 1, 256);
        range(&at("gpu_layers"), auto(entry.gpu_layers, 0), 0, 10_000);
        range(&at("batch"), auto(entry.batch, 1), 1, 65_536);
        range(&at("threads"), auto(entry.threads, 1), 1, 1024);
        range(&at("main_gpu"), auto(entry.main_gpu, 0), 0, 64);
    }
    range(
        &["scheduler", "max_loaded_models"],
        auto(config.scheduler.max_loaded_models, 1),
        1,
        1024,
    );
    range(
        &["scheduler", "max_queue"],
        config.scheduler.max_queue.into(),
        1,
        100_000,
    );
    range(
        &["supervisor", "stall_timeout_seconds"],
        config.supervisor.stall_timeout_seconds,
        0,
        86_400,
    );
    range(
        &["supervisor", "watchdog_seconds"],
        config.supervisor.watchdog_seconds,
        0,
        86_400,
    );
    range(
        &["supervisor", "stop_grace_seconds"],
        config.supervisor.stop_grace_seconds,
        0,
        600,
    );
    range(
        &["supervisor", "drain_timeout_seconds"],
        config.supervisor.drain_timeout_seconds,
        0,
        3600,
    );
    range(&["limits", "json_body_mb"], config.limits.json_body_mb.into(), 1, 4096);
    range(
        &["limits", "max_connections"],
        config.limits.max_connections.into(),
        16,
        100_000,
    );
    range(&["logging", "max_file_mb"], config.logging.max_file_mb.into(), 1, 1024);
    range(&["logging", "max_files"], config.logging.max_files.into(), 1, 100);
    range(&["lmstudio", "default_ttl"], config.lmstudio.default_ttl, 1, 31_536_000);
    range(
        &["downloads", "max_parallel"],
        config.downloads.max_parallel.into(),
        1,
        16,
    );
    if ![200, 404].contains(&config.lmstudio.unknown_route_status) {
        let why = format!(
            "{} is not offered; use 404, or 200 as LM Studio does",
            config.lmstudio.unknown_route_status
        );
        problems.push((path(&["lmstudio", "unknown_route_status"]), why));
    }
}

fn engines(config: &Config, rules: &EngineRules, problems: &mut Problems) {
    speech_and_custom(config, rules, problems);
    let mut check = |base: &[&str],
                     args: (&str, &[String]),
                     env: &BTreeMap<String, String>,
                     rule: fn(&str, &str) -> Result<(), String>| {
        if let Err(why) = (rules.arguments)(args.1) {
            problems.push((path(&[base, &[args.0]].concat()), why));
        }
        for (name, value) in env {
            if let Err(why) = plain_environment(name, value).and_then(|()| rule(name, value)) {
                problems.push((path(&[base, &["env", name]].concat()), why));
            }
        }
    };
    let server = &config.engines.llama_server;
    check(
        &["engines", "llama_server"],
        ("args", &server.args),
        &server.env,
        rules.engine_environment,
    );
    for (key, ModelConfig { extra_args, env, .. }) in &config.models.entries {
        check(
            &["models", "entries", key],
            ("extra_args", extra_args),
            env,
            rules.model_environment,
        );
    }
    if !["stable", "latest"].contains(&server.channel.as_str()) {
        let why = format!("{:?} is not a channel; use \"stable\" or \"latest\"", server.channel);
        problems.push((path(&["engines", "llama_server", "channel"]), why));
    }
    let flash = |value: &Auto<String>| match value.as_ref().value() {
        Some(word) if !["on", "off"].contains(&word.as_str()) => {
            Some(format!("{word:?} is not \"auto\", \"on\" or \"off\""))
        }
        _ => None,
    };
    // A type is passed to the engine as one argument: a leading dash would be read as a flag (promise S9).
    let cache = |value: &Auto<String>| match value.as_ref().value() {
        Some(word) if word.is_empty() || !word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => Some(format!(
            "{word:?} is not a cache type such as \"f16\", \"q8_0\" or \"q4_0\""
        )),
        _ => None,
    };
    let values = std::iter::once((
        vec!["defaults"],
        &config.defaults.flash_attention,
        &config.defaults.kv_cache_type,
    ))
    .chain(config.models.entries.iter().map(|(key, entry)| {
        (
            vec!["models", "entries", key.as_str()],
            &entry.flash_attention,
            &entry.kv_cache_type,
        )
    }));
    for (base, flash_attention, kv_cache_type) in values {
        if let Some(why) = flash(flash_attention) {
            problems.push((path(&[&base[..], &["flash_attention"]].concat()), why));
        }
        if let Some(why) = cache(kv_cache_type) {
            problems.push((path(&[&base[..], &["kv_cache_type"]].concat()), why));
        }
    }
}

/// Engines beside llama-server.
fn speech_and_custom(config: &Config, rules: &EngineRules, problems: &mut Problems) {
    let speech = &config.engines.faster_whisper;
    let mut problem = |at: &[&str], why: String| problems.push((path(at), why));
    if let Err(why) = (rules.arguments)(&speech.args) {
        problem(&["engines", "faster_whisper", "args"], why);
    }
    if !["auto", "cpu", "cuda"].contains(&speech.device.as_str()) {
        let why = format!("{:?} is not a device; use \"auto\", \"cpu\" or \"cuda\"", speech.device);
        problem(&["engines", "faster_whisper", "device"], why);
    }
    // One argument of the program: a leading dash would be read as a flag (promise S9).
    let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !word(&speech.compute_type) {
        let why = format!(
            "{:?} is not a number type such as \"auto\", \"int8\" or \"float16\"",
            speech.compute_type
        );
        problem(&["engines", "faster_whisper", "compute_type"], why);
    }
    for (name, engine) in &config.engines.custom {
        let base = ["engines", "custom", name.as_str()];
        let at = |field| [&base[..], &[field]].concat();
        if engine.command.first().is_none_or(|program| program.trim().is_empty()) {
            problem(&at("command"), "the program to start is missing".into());
        } else if !engine
            .command
            .iter()
            .chain(engine.env.values())
            .any(|text| text.contains("{port}"))
        {
            let why = "nothing tells the engine its port; write {port} where it belongs, for example \"--port={port}\"";
            problem(&at("command"), why.into());
        }
        if engine.command.iter().any(|word| word.contains('\0')) {
            problem(&at("command"), "an argument holds a NUL character".into());
        }
        let health = &engine.health_path;
        if health.chars().any(|c| c.is_control() || c.is_whitespace()) || health.contains("://") {
            problem(
                &at("health_path"),
                format!("{health:?} is not a path such as \"/health\""),
            );
        }
        for (variable, value) in &engine.env {
            let checked = plain_environment(variable, value).and_then(|()| (rules.engine_environment)(variable, value));
            if let Err(why) = checked {
                problem(&[&base[..], &["env", variable]].concat(), why);
            }
        }
    }
}

/// Settings that promise protection must not be accepted before they protect (promise S1).
fn keys(config: &Config, problems: &mut Problems) {
    let auth = &config.auth;
    let wanted = [
        (auth.require_inference_auth, path(&["auth", "require_inference_auth"])),
        (auth.require_management_auth, path(&["auth", "require_management_auth"])),
        (!auth.inference_keys.is_empty(), path(&["auth", "inference_keys"])),
        (!auth.management_keys.is_empty(), path(&["auth", "management_keys"])),
        (config.lmstudio.require_auth, path(&["lmstudio", "require_auth"])),
    ];
    for (_, at) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
        problems.push((at, format!("{NO_KEYS_YET}. Leave this setting at its default")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_beside_llama_server_are_checked() {
        let rules = EngineRules {
            arguments: |arguments| match arguments.first() {
                Some(_) => Err("no arguments today".into()),
                None => Ok(()),
            },
            ..EngineRules::default()
        };
        for (engines, at, words) in [
            (
                r#"{"faster_whisper": {"args": ["--host"]}}"#,
                "faster_whisper.args",
                "no arguments today",
            ),
            (
                r#"{"faster_whisper": {"device": "tpu"}}"#,
                "faster_whisper.device",
                "\"cuda\"",
            ),
            (
                r#"{"faster_whisper": {"compute_type": "--help"}}"#,
                "faster_whisper.compute_type",
                "\"int8\"",
            ),
            (
                r#"{"custom": {"x": {}}}"#,
                "custom.x.command",
                "the program to start is missing",
            ),
            (
                r#"{"custom": {"x": {"command": ["serve"]}}}"#,
                "custom.x.command",
                "{port}",
            ),
            (
                r#"{"custom": {"x": {"command": ["serve", "{port}"], "health_path": "http://a/b"}}}"#,
                "custom.x.health_path",
                "\"/health\"",
            ),
            (
                r#"{"custom": {"x": {"command": ["serve"], "env": {"PORT": "{port}", "1A": "x"}}}}"#,
                "custom.x.env.1A",
                "not a name",
            ),
        ] {
            let text = format!(r#"{{"engines": {engines}}}"#);
            let error = Config::parse_with("c", &text, &crate::Overrides::default(), &rules)
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("engines.{at}")) && error.contains(words),
                "{engines}: {error}"
            );
        }
        let fine = r#"{"engines": {"faster_whisper": {"device": "cuda", "compute_type": "int8_float16"},
            "custom": {"x": {"command": ["serve"], "env": {"PORT": "{port}"}}}}}"#;
        assert!(Config::parse_with("c", fine, &crate::Overrides::default(), &rules).is_ok());
    }
}
