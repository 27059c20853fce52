//! Looks at everything a start needs and says what stands in the way.

use std::path::Path;

use config::Config;
use engines::speech::{SpeechInfo, SpeechState};
use hardware::Hardware;
use serde::Serialize;

use crate::engine::engine_info;
use crate::instance_lock::{Owner, running_instance};
use crate::places::Places;
use crate::settings;
use crate::start::StartOptions;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Works, but the user may want to know.
    Note,
    /// Something will not work.
    Problem,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// How it is.
    pub outcome: Outcome,
    /// A sentence for people.
    pub message: String,
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// No problem was found.
    pub ok: bool,
    /// In the order they are shown.
    pub checks: Vec<Check>,
}

/// Below this the first downloads and engine builds fail.
const LOW_DISK: u64 = 2 << 30;

/// Checks settings, folders, ports, engine, graphics cards, memory and disk. Changes nothing.
pub async fn doctor(options: &StartOptions) -> Doctor {
    let mut checks = Vec::new();
    let mut add = |name: &str, outcome, message: String| {
        checks.push(Check {
            name: name.to_owned(),
            outcome,
            message,
        });
    };
    let config = match options.read_config() {
        Ok((places, parsed)) => {
            let place = places.config.display();
            let state = if places.config.exists() {
                "valid"
            } else {
                "not there yet; the defaults apply"
            };
            add("config", Outcome::Ok, format!("{place}: {state}"));
            for warning in parsed.warnings {
                add("config", Outcome::Note, warning);
            }
            Some((places, parsed.config))
        }
        Err(error) => {
            add("config", Outcome::Problem, error.to_string());
            options.places().ok().map(|places| (places, Config::default()))
        }
    };
    if let Some((places, config)) = &config {
        let owner = running_instance(&places.data);
        let (outcome, message) = folder(&places.data);
        add("data folder", outcome, message);
        let running = owner.as_ref().map_or_else(
            || "no server is running with this data folder".to_owned(),
            |owner| format!("a server is running (process {})", owner.pid),
        );
        add("server", Outcome::Ok, running);
        for (name, proxy) in config.proxies.named() {
            let (outcome, message) = port(proxy, owner.as_ref());
            add(&format!("port {name}"), outcome, message);
        }
    }
    match engine_info(options).await {
        Ok(info) => match (info.path, info.error) {
            (Some(path), _) => {
                let build = info.build.map_or_else(String::new, |build| format!(", build {build}"));
                let version = info.version.unwrap_or_default();
                add("engine", Outcome::Ok, format!("{} ({version}{build})", path.display()));
                let devices = if info.devices.is_empty() {
                    "CPU only".to_owned()
                } else {
                    info.devices.join(", ")
                };
                add("engine devices", Outcome::Ok, devices);
                speech(&info.speech, &mut add);
            }
            (None, error) => {
                add("engine", Outcome::Problem, error.unwrap_or_default());
                speech(&info.speech, &mut add);
            }
        },
        // The configuration was reported above.
        Err(_) => add(
            "engine",
            Outcome::Note,
            "not looked for, because the settings cannot be read".to_owned(),
        ),
    }
    if let Some((places, config)) = &config {
        let folder = settings::speech_dir(config, places);
        let (outcome, message) = speech_models(&folder);
        add("speech models", outcome, message);
    }
    let hardware = Hardware::new();
    let gpus = hardware.gpus();
    if gpus.is_empty() {
        add(
            "graphics",
            Outcome::Ok,
            "no graphics card found; models run on the CPU".to_owned(),
        );
    }
    for gpu in gpus {
        let memory = gpu
            .total
            .map_or_else(String::new, |total| format!(", {}", gigabytes(total)));
        add(
            "graphics",
            Outcome::Ok,
            format!("{} ({}{memory})", gpu.name, gpu.vendor),
        );
    }
    let memory = hardware.memory();
    let message = format!("{} of {} free", gigabytes(memory.available), gigabytes(memory.total));
    add("memory", Outcome::Ok, message);
    if let Some((places, _)) = &config {
        for (name, path) in [("disk (data)", &places.data), ("disk (cache)", &places.cache)] {
            if let Some(free) = existing(path).and_then(|folder| hardware.disk_free(folder)) {
                let low = free < LOW_DISK;
                let outcome = if low { Outcome::Problem } else { Outcome::Ok };
                let advice = if low {
                    "; make room, models and engines need more"
                } else {
                    ""
                };
                add(
                    name,
                    outcome,
                    format!("{} free at {}{advice}", gigabytes(free), path.display()),
                );
            }
        }
    }
    Doctor {
        ok: checks.iter().all(|check| check.outcome != Outcome::Problem),
        checks,
    }
}

/// Speech is an extra: what is not there yet is no problem, what was there and does not work any more is one.
fn speech(speech: &SpeechInfo, add: &mut impl FnMut(&str, Outcome, String)) {
    let (outcome, message) = match (speech.state, &speech.error) {
        (SpeechState::Ready, _) => {
            let version = |version: &Option<String>| version.clone().unwrap_or_default();
            let by = speech
                .named_by
                .map_or_else(String::new, |by| format!(", named by {by}"));
            let message = format!(
                "faster-whisper {} with Python {}{by}",
                version(&speech.faster_whisper),
                version(&speech.python_version)
            );
            (Outcome::Ok, message)
        }
        (SpeechState::Broken, error) => (Outcome::Problem, error.clone().unwrap_or_default()),
        (SpeechState::Missing | SpeechState::Installing, Some(error)) => (Outcome::Note, error.clone()),
        (SpeechState::Missing | SpeechState::Installing, None) => {
            let message = "not installed; made at its first use, or now with `llama-runner engine whisper install`";
            (Outcome::Ok, message.to_owned())
        }
    };
    add("speech", outcome, message);
    let voices = match &speech.espeak_ng {
        Some(path) => format!("espeak-ng at {}", path.display()),
        None => "no espeak-ng in PATH; the one of the speech engine is used".to_owned(),
    };
    add("speech voices", Outcome::Ok, voices);
}

/// Counts the downloaded models that can be used, and says what is wrong with the others.
fn speech_models(folder: &Path) -> (Outcome, String) {
    let found = models::speech_folders(folder);
    let count = match found.usable {
        0 => "none downloaded; `llama-runner pull whisper-base` fetches one".to_owned(),
        usable => format!("{usable} in {}", folder.display()),
    };
    let outcome = if found.problems.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Note
    };
    let wrong = found.problems.into_iter().map(|problem| {
        let path = problem.path.unwrap_or_default();
        format!("; {} {}", path.display(), problem.reason)
    });
    (outcome, std::iter::once(count).chain(wrong).collect())
}

fn port(proxy: &config::Proxy, owner: Option<&Owner>) -> (Outcome, String) {
    let number = proxy.port;
    if !proxy.enabled {
        return (Outcome::Ok, "off in the settings".to_owned());
    }
    if number == 0 {
        return (Outcome::Ok, "any free port".to_owned());
    }
    match http_api::port_holder(number) {
        Some(holder) if owner.is_some_and(|owner| owner.pid == holder.pid) => (
            Outcome::Ok,
            format!("{number}: served by the running server (process {})", holder.pid),
        ),
        Some(holder) => {
            let advice = "stop that program or choose another port in the settings";
            (
                Outcome::Problem,
                format!(
                    "{number} is taken by {} (process {}); {advice}",
                    holder.name, holder.pid
                ),
            )
        }
        // Other users' processes are not shown to us, their ports still do not bind.
        None => match std::net::TcpListener::bind(("127.0.0.1", number)) {
            Ok(_) => (Outcome::Ok, format!("{number} is free")),
            Err(error) => (Outcome::Problem, format!("{number} cannot be opened: {error}")),
        },
    }
}

fn folder(path: &Path) -> (Outcome, String) {
    let shown = path.display();
    let Some(folder) = existing(path) else {
        return (Outcome::Problem, format!("{shown} cannot be made"));
    };
    let probe = folder.join(format!(".llama-runner-doctor-{}", std::process::id()));
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => (Outcome::Ok, format!("{shown} can be written")),
        Err(error) => (Outcome::Problem, format!("{shown} cannot be written: {error}")),
    }
}

/// The folder itself or the nearest one above it that is there.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.is_dir())
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

impl Places {
    /// Both folders of a running server, for tests of what `doctor` shows.
    #[cfg(test)]
    pub(crate) fn below(folder: &Path) -> Self {
        Self {
            config: folder.join("config.json"),
            data: folder.join("data"),
            cache: folder.join("cache"),
            home: folder.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_judged() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port_of = |port| config::Proxy {
            port,
            ..config::Proxy::default()
        };
        let number = held.local_addr().unwrap().port();
        let (outcome, message) = port(&port_of(number), None);
        assert_eq!(outcome, Outcome::Problem, "{message}");
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        let owner = Owner {
            pid: std::process::id(),
            management: None,
        };
        assert_eq!(port(&port_of(number), Some(&owner)).0, Outcome::Ok);
        drop(held);
        assert_eq!(port(&port_of(number), None).0, Outcome::Ok);
        assert_eq!(port(&port_of(0), None).0, Outcome::Ok);
    }

    #[test]
    fn folders_are_judged() {
        let folder_ = tempfile::tempdir().unwrap();
        let places = Places::below(folder_.path());
        assert_eq!(folder(&places.data).0, Outcome::Ok);
        assert_eq!(folder(Path::new("/proc/none")).0, Outcome::Problem);
    }

    #[test]
    fn speech_models_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, message) = speech_models(folder.path());
        assert_eq!(outcome, Outcome::Ok);
        assert!(message.starts_with("none downloaded"), "{message}");

        let model = folder.path().join("Systran__faster-whisper-base");
        std::fs::create_dir(&model).unwrap();
        // The head of a model's weights, and nothing else.
        let weights = [&[6, 0, 0, 0, 12, 0][..], b"WhisperSpec\0", &[0; 8]].concat();
        std::fs::write(model.join("model.bin"), weights).unwrap();
        let (outcome, message) = speech_models(folder.path());
        assert_eq!(outcome, Outcome::Note);
        let named = format!(
            "none downloaded; `llama-runner pull whisper-base` fetches one; {} is a speech model without config.json, tokenizer.json",
            model.display()
        );
        assert!(message.starts_with(&named), "{message}");
    }
}
