//! From the configuration snapshot to the settings of each part. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, CustomEngine, ModelConfig};
use domain::{KeepAlive, ModelKey};
use downloads::{DownloadSettings, Tuning};
use engines::speech::{PYTHON_VARIABLE, SpeechSettings};
use engines::{CustomSettings, EngineSettings};
use models::{EntrySettings, RegistrySettings};
use router::RouterSettings;

use crate::places::Places;

/// Stands for "never" where a part wants a duration; a year is longer than any run.
const NEVER: Duration = Duration::from_hours(365 * 24);

fn seconds(seconds: u64) -> Duration {
    if seconds == 0 {
        NEVER
    } else {
        Duration::from_secs(seconds)
    }
}

/// `scheduler`, `supervisor`, `defaults` and what of `lmstudio` decides who stays loaded.
pub(crate) fn router(config: &Config) -> RouterSettings {
    let (scheduler, supervisor) = (&config.scheduler, &config.supervisor);
    RouterSettings {
        max_loaded_models: scheduler.max_loaded_models.value().map(|n| n as usize),
        max_queue: scheduler.max_queue as usize,
        max_wait: match scheduler.max_wait {
            KeepAlive::For(wait) => wait,
            KeepAlive::Forever => NEVER,
        },
        autoload: scheduler.autoload,
        keep_alive: config.defaults.keep_alive,
        launch: config.defaults.launch(),
        jit_auto_evict: config.lmstudio.auto_evict,
        jit_evict_to_fit: config.lmstudio.evict_to_fit,
        stall_timeout: seconds(supervisor.stall_timeout_seconds),
        watchdog: seconds(supervisor.watchdog_seconds),
        stop_grace: Duration::from_secs(supervisor.stop_grace_seconds),
        memory_reserve: u64::from(scheduler.memory_reserve_mb) << 20,
        preload: scheduler
            .preload
            .iter()
            .map(|name| ModelKey::from(name.as_str()))
            .collect(),
    }
}

/// `models` and `model_aliases`.
pub(crate) fn registry(config: &Config, places: &Places) -> RegistrySettings {
    let models = &config.models;
    let mut dirs: Vec<_> = models.dirs.iter().map(|dir| places.expand(dir)).collect();
    if models.scan_other_stores {
        dirs.extend(
            [".lmstudio/models", ".cache/lm-studio/models", ".cache/huggingface/hub"].map(|d| places.home.join(d)),
        );
    }
    if models.scan_other_stores
        && let Some(hub) = hub_cache()
        && !dirs.contains(&hub)
    {
        dirs.push(hub);
    }
    let downloaded = downloads_dir(config, places);
    if !dirs.contains(&downloaded) {
        dirs.push(downloaded);
    }
    let mut other_stores: Vec<_> = models.ollama_store.iter().map(|dir| places.expand(dir)).collect();
    if models.scan_other_stores && other_stores.is_empty() {
        // The user's, the system service's and a container's (Ollama contract 11).
        other_stores.push(places.home.join(".ollama/models"));
        other_stores.extend(["/usr/share/ollama/.ollama/models", "/root/.ollama/models"].map(PathBuf::from));
        other_stores.dedup();
    }
    RegistrySettings {
        dirs,
        store: Some(places.ollama_store()),
        other_stores,
        watch: models.watch,
        aliases: config.model_aliases.clone(),
        entries: models
            .entries
            .iter()
            .map(|(key, entry)| (key.clone(), entry_settings(entry, places)))
            .collect(),
        builtin: models.demo.then(|| places.demo_model()),
        speech_dir: Some(speech_dir(config, places)),
        voices: crate::voices::engines(config, places),
        default_listener: config.audio.default_model.clone(),
        default_speaker: config.audio.default_speech_model.clone(),
        index_path: places.model_index(),
    }
}

/// Where the hub's own programs keep what they download, when the environment says so.
fn hub_cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("HF_HUB_CACHE").or_else(|| Some(folder("HF_HOME")?.join("hub")))
}

/// Where speech models are downloaded to.
pub(crate) fn speech_dir(config: &Config, places: &Places) -> PathBuf {
    let named = config.audio.models_dir.as_deref().map(|dir| places.expand(dir));
    named.unwrap_or_else(|| places.data.join("models/whisper"))
}

fn entry_settings(entry: &ModelConfig, places: &Places) -> EntrySettings {
    EntrySettings {
        path: entry.path.as_deref().map(|path| places.expand(path)),
        mmproj: entry.mmproj.as_deref().map(|path| places.expand(path)),
        engine: entry.engine,
        launch: entry.launch(),
        keep_alive: entry.keep_alive,
        pinned: entry.pinned,
        unlisted: entry.unlisted,
        aliases: entry.aliases.clone(),
        display_name: entry.display_name.clone(),
        description: entry.description.clone(),
    }
}

/// `engines`.
pub(crate) fn engines(config: &Config, places: &Places) -> EngineSettings {
    let server = &config.engines.llama_server;
    let speech = &config.engines.faster_whisper;
    EngineSettings {
        path: server.path.as_deref().map(|path| places.expand(path)),
        args: server.args.clone(),
        env: server.env.clone(),
        cache_dir: places.cache.clone(),
        data_dir: places.data.clone(),
        speech: SpeechSettings {
            python: speech.python.as_deref().map(|path| places.expand(path)),
            python_by_variable: std::env::var_os(PYTHON_VARIABLE)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            device: speech.device.clone(),
            compute_type: speech.compute_type.clone(),
            auto_install: speech.auto_install,
            args: speech.args.clone(),
            ..SpeechSettings::default()
        },
        custom: config
            .engines
            .custom
            .iter()
            .map(|(name, engine)| (name.clone(), custom_engine(engine, places)))
            .collect(),
    }
}

fn custom_engine(engine: &CustomEngine, places: &Places) -> CustomSettings {
    let mut command = engine.command.clone();
    if let Some(program) = command.first_mut() {
        let path = Path::new(program.as_str());
        // A bare name is looked up in PATH.
        if path.components().nth(1).is_some()
            && let Ok(text) = places.expand(path).into_os_string().into_string()
        {
            *program = text;
        }
    }
    CustomSettings {
        command,
        health_path: engine.health_path.clone(),
        env: engine.env.clone(),
    }
}

/// `downloads`.
pub(crate) fn downloads(config: &Config, places: &Places) -> DownloadSettings {
    let downloads = &config.downloads;
    DownloadSettings {
        models_dir: downloads_dir(config, places),
        speech_dir: speech_dir(config, places),
        voices_dir: crate::voices::root(places),
        max_parallel: downloads.max_parallel.max(1) as usize,
        bandwidth_limit: downloads.bandwidth_limit,
        huggingface_base_url: downloads.huggingface_base_url.clone(),
        ollama_registry_base_url: downloads.ollama_registry_base_url.clone(),
        allow_private_hosts: downloads.allow_private_hosts,
        resume_on_start: downloads.resume_on_start,
        hub_token: std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        tuning: Tuning::default(),
    }
}

/// Where files of the hub and of plain addresses go. The library looks there too.
fn downloads_dir(config: &Config, places: &Places) -> PathBuf {
    let named = config.downloads.dir.as_deref().map(|dir| places.expand(dir));
    named.unwrap_or_else(|| places.data.join("models"))
}

/// Sections that are read and kept but that no part of this version uses: whoever set them must hear it.
pub(crate) fn without_effect(config: &Config) -> Vec<String> {
    let defaults = Config::default();
    let mut sections = Vec::new();
    let mut compare = |name: &str, differs: bool| {
        if differs {
            sections.push(format!("\"{name}\" is set but has no effect in this version."));
        }
    };
    compare("groups", config.groups != defaults.groups);
    compare(
        "engines.llama_server.version",
        config.engines.llama_server.version.is_some(),
    );
    compare("catalog", config.catalog != defaults.catalog);
    compare("webhooks", config.webhooks != defaults.webhooks);
    compare("nodes", config.nodes != defaults.nodes);
    compare("telemetry", config.telemetry != defaults.telemetry);
    compare("inspector", config.inspector != defaults.inspector);
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            config: "/c/config.json".into(),
            data: "/d".into(),
            cache: "/k".into(),
            home: "/h".into(),
        }
    }

    fn parse(text: &str) -> Config {
        Config::parse(text).unwrap().config
    }

    #[test]
    fn defaults_map_to_the_documented_values() {
        let config = Config::default();
        let router = router(&config);
        assert_eq!(router.max_loaded_models, None);
        assert_eq!((router.max_queue, router.stop_grace), (512, Duration::from_secs(10)));
        assert_eq!(
            (router.stall_timeout, router.watchdog),
            (Duration::from_mins(2), Duration::from_mins(3))
        );
        assert_eq!(router.keep_alive, KeepAlive::For(Duration::from_mins(5)));
        let registry = registry(&config, &places());
        assert_eq!(
            registry.builtin.as_deref(),
            Some(Path::new("/d/models/builtin/tiny-chat.gguf"))
        );
        // Downloads are part of the library.
        assert_eq!(registry.dirs, [Path::new("/d/models")]);
        assert_eq!(registry.store.as_deref(), Some(Path::new("/d/ollama")));
        assert_eq!(registry.other_stores, Vec::<std::path::PathBuf>::new());
        assert_eq!(engines(&config, &places()).cache_dir, Path::new("/k"));
        assert_eq!(without_effect(&config), Vec::<String>::new());
    }

    #[test]
    fn a_named_store_is_read_and_the_usual_ones_when_asked_for() {
        let stores = |text| registry(&parse(text), &places()).other_stores;
        assert_eq!(
            stores(r#"{"models": {"ollama_store": "~/o"}}"#),
            [PathBuf::from("/h/o")]
        );
        let usual = stores(r#"{"models": {"scan_other_stores": true}}"#);
        assert_eq!(usual[0], PathBuf::from("/h/.ollama/models"));
        assert_eq!(usual.len(), 3);
    }

    #[test]
    fn speech_models_have_a_folder_and_defaults() {
        let config = Config::default();
        let registry = super::registry(&config, &places());
        assert_eq!(registry.speech_dir.as_deref(), Some(Path::new("/d/models/whisper")));
        assert_eq!(registry.speech_dir, Some(downloads(&config, &places()).speech_dir));
        assert_eq!((registry.default_listener, registry.default_speaker), (None, None));
        let config =
            parse(r#"{"audio": {"models_dir": "~/ears", "default_model": "small", "default_speech_model": "kokoro"}}"#);
        let registry = super::registry(&config, &places());
        assert_eq!(registry.speech_dir.as_deref(), Some(Path::new("/h/ears")));
        assert_eq!(downloads(&config, &places()).speech_dir, Path::new("/h/ears"));
        assert_eq!(registry.default_listener.as_deref(), Some("small"));
        assert_eq!(registry.default_speaker.as_deref(), Some("kokoro"));
        assert_eq!(without_effect(&config), Vec::<String>::new());
    }

    #[test]
    fn who_stays_loaded_after_a_just_in_time_load_is_configured() {
        assert!(router(&Config::default()).jit_auto_evict);
        let by_memory = router(&parse(r#"{"lmstudio": {"auto_evict": false, "evict_to_fit": true}}"#));
        assert!(!by_memory.jit_auto_evict && by_memory.jit_evict_to_fit);
    }

    #[test]
    fn engines_beside_llama_server_get_their_settings() {
        let config = parse(
            r#"{"engines": {"faster_whisper": {"python": "~/py/bin/python", "device": "cpu", "auto_install": false},
                "custom": {"here": {"command": ["serve", "{port}"]}, "there": {"command": ["~/bin/serve", "{port}"]}}}}"#,
        );
        assert_eq!(without_effect(&config), Vec::<String>::new());
        let engines = engines(&config, &places());
        assert_eq!(engines.speech.python.as_deref(), Some(Path::new("/h/py/bin/python")));
        assert_eq!(
            (engines.speech.device.as_str(), engines.speech.auto_install),
            ("cpu", false)
        );
        assert_eq!(engines.custom["here"].command, ["serve", "{port}"]);
        assert_eq!(engines.custom["there"].command, ["/h/bin/serve", "{port}"]);
    }

    #[test]
    fn zero_and_negative_mean_never() {
        let config = parse(r#"{"supervisor": {"watchdog_seconds": 0}, "scheduler": {"max_wait": -1}}"#);
        assert_eq!((router(&config).watchdog, router(&config).max_wait), (NEVER, NEVER));
    }

    #[test]
    fn entries_keep_their_settings() {
        let config = parse(
            r#"{"models": {"demo": false, "dirs": ["~/m", "rel"], "entries": {"a": {
                "path": "~/a.gguf", "context": 4096, "parallel": "auto", "pinned": true, "aliases": ["b"],
                "extra_args": ["--no-warmup"], "env": {"A": "1"}}}},
               "groups": {"g": {"members": ["a"]}}}"#,
        );
        let registry = registry(&config, &places());
        assert_eq!(
            registry.dirs,
            ["/h/m", "/c/rel", "/d/models"].map(std::path::PathBuf::from)
        );
        assert_eq!(registry.builtin, None);
        let entry = &registry.entries["a"];
        assert_eq!(entry.path.as_deref(), Some(Path::new("/h/a.gguf")));
        assert_eq!((entry.launch.context, entry.launch.parallel), (Some(4096), None));
        assert_eq!(entry.launch.env, [("A".to_owned(), "1".to_owned())]);
        assert!(entry.pinned);
        assert_eq!(
            without_effect(&config),
            ["\"groups\" is set but has no effect in this version."]
        );
    }
}
