//! The start recipe of a speech process (audio contract 7.2).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use domain::{EngineKind, LoadedLaunch, ModelEntry};
use supervisor::StopPlan;

use super::{SpeechProgram, SpeechSettings, python};
use crate::Launch;
use crate::launch::inherited_environment;

/// What the libraries beneath must not do: fetch anything, tell anybody, draw progress bars.
const QUIET: &[(&str, &str)] = &[
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("PYTHONUNBUFFERED", "1"),
    ("PYTHONUTF8", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

/// The command that starts `entry`. The key goes by environment (promise S4).
pub(crate) fn launch(
    program: &SpeechProgram,
    entry: &ModelEntry,
    launch: &LoadedLaunch,
    key: &str,
    settings: &SpeechSettings,
) -> Launch {
    let mut args: Vec<OsString> = ["-I", "-u"].map(OsString::from).into();
    args.push(program.script.clone().into());
    let mut pair = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    pair("--host", "127.0.0.1".into());
    // The system picks the port (promise R7); the program tells it.
    pair("--port", "0".into());
    let (task, model) = match entry.engine {
        EngineKind::Speech => ("speak", entry.facts.architecture.clone().into()),
        EngineKind::FasterWhisper | EngineKind::LlamaServer | EngineKind::Custom => {
            ("transcribe", folder(entry).into())
        }
    };
    pair("--task", task.into());
    pair("--model", model);
    pair("--device", settings.device.clone().into());
    pair("--compute-type", settings.compute_type.clone().into());
    pair("--threads", launch.options.threads.unwrap_or(0).to_string().into());
    args.extend(
        settings
            .args
            .iter()
            .chain(&launch.options.extra_args)
            .map(OsString::from),
    );

    let mut env: BTreeMap<OsString, OsString> = inherited_environment(&program.python).into_iter().collect();
    env.extend(QUIET.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    if let Some(path) = search_path() {
        env.insert("PATH".into(), path);
    }
    if let Ok(folders) = std::env::join_paths(&program.libraries)
        && !folders.is_empty()
    {
        env.insert("LD_LIBRARY_PATH".into(), folders);
    }
    let of_entry = launch.options.env.iter();
    env.extend(of_entry.map(|(name, value)| (name.into(), value.into())));
    // Last, so that nothing above can take its place.
    env.insert("LR_SIDECAR_TOKEN".into(), key.into());
    Launch {
        program: program.python.clone(),
        args,
        env: env.into_iter().collect(),
        stop: StopPlan::default(),
    }
}

/// A model of CTranslate2 is a folder; its entry may name the folder or the weights in it.
fn folder(entry: &ModelEntry) -> PathBuf {
    let path = &entry.path;
    match path.parent() {
        Some(parent) if path.file_name().is_some_and(|name| name == "model.bin") => parent.to_owned(),
        _ => path.clone(),
    }
}

/// The engines' usual path, and the folder of espeak-ng where that lies elsewhere (Homebrew). `None`: nothing to add.
fn search_path() -> Option<OsString> {
    if cfg!(windows) {
        return None;
    }
    let program = python::search("espeak-ng")?;
    let usual = [Path::new("/usr/local/bin"), Path::new("/usr/bin"), Path::new("/bin")];
    let folder = program.parent()?;
    if usual.contains(&folder) {
        return None;
    }
    std::env::join_paths(usual.into_iter().chain([folder])).ok()
}
