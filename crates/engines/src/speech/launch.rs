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
        // A model of voices is a folder; the program tells by what is in it whose it is.
        EngineKind::Speech if matches!(entry.facts.architecture.as_str(), "kokoro" | "piper") => {
            ("speak", entry.path.clone().into())
        }
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

#[cfg(test)]
mod tests {
    use domain::Capability;

    use super::*;
    use crate::test_entry::entry;

    fn program() -> SpeechProgram {
        SpeechProgram {
            python: "/env/bin/python".into(),
            script: "/cache/program-1/speech_engine.py".into(),
            libraries: vec!["/env/nvidia/cublas/lib".into(), "/env/nvidia/cudnn/lib".into()],
            installed_now: false,
        }
    }

    fn words(launch: &Launch) -> Vec<&str> {
        launch.args.iter().map(|arg| arg.to_str().unwrap()).collect()
    }

    #[test]
    fn hearing_and_speaking() {
        let mut model = entry(&[Capability::Transcription]);
        model.engine = EngineKind::FasterWhisper;
        model.path = "/models/base/model.bin".into();
        let settings = SpeechSettings {
            device: "cpu".into(),
            args: vec!["--batch-size".into(), "4".into()],
            ..SpeechSettings::default()
        };
        let mut plan = LoadedLaunch::default();
        plan.options.threads = Some(3);
        plan.options.extra_args = vec!["--beam-size".into(), "1".into()];
        let command = launch(&program(), &model, &plan, "secret", &settings);
        assert_eq!(command.program, Path::new("/env/bin/python"));
        let expected = "-I -u /cache/program-1/speech_engine.py --host 127.0.0.1 --port 0 --task transcribe --model \
                        /models/base --device cpu --compute-type auto --threads 3 --batch-size 4 --beam-size 1";
        assert_eq!(words(&command).join(" "), expected);
        // A folder is passed as it is.
        model.path = "/models/base".into();
        assert!(words(&launch(&program(), &model, &plan, "secret", &settings)).contains(&"/models/base"));

        model.engine = EngineKind::Speech;
        model.facts.architecture = "espeak-ng".into();
        let command = launch(&program(), &model, &LoadedLaunch::default(), "secret", &settings);
        assert!(
            words(&command).join(" ").contains("--task speak --model espeak-ng"),
            "{command:?}"
        );
    }

    #[test]
    fn the_environment_is_clean_and_the_key_is_nowhere_else() {
        let mut model = entry(&[Capability::Transcription]);
        model.engine = EngineKind::FasterWhisper;
        let mut plan = LoadedLaunch::default();
        plan.options.env = vec![
            ("OMP_NUM_THREADS".into(), "2".into()),
            ("LR_SIDECAR_TOKEN".into(), "x".into()),
        ];
        let command = launch(&program(), &model, &plan, "secret", &SpeechSettings::default());
        let of = |name: &str| {
            let found = command.env.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(of("LR_SIDECAR_TOKEN").as_deref(), Some("secret"));
        assert_eq!(of("HF_HUB_OFFLINE").as_deref(), Some("1"));
        assert_eq!(of("OMP_NUM_THREADS").as_deref(), Some("2"));
        assert_eq!(
            of("LD_LIBRARY_PATH").as_deref(),
            Some("/env/nvidia/cublas/lib:/env/nvidia/cudnn/lib")
        );
        assert!(of("PATH").unwrap().starts_with("/usr/local/bin:/usr/bin:/bin"));
        // Cargo's variables are in the tests' own environment.
        assert_eq!(
            (of("CARGO_MANIFEST_DIR"), of("PYTHONPATH"), of("HF_TOKEN")),
            (None, None, None)
        );
        assert!(!words(&command).join(" ").contains("secret") && !format!("{command:?}").contains("secret"));
    }

    #[test]
    fn gpu_libraries_are_found_in_the_environment() {
        let environment = tempfile::tempdir().unwrap();
        let python = environment.path().join("bin/python");
        assert_eq!(super::super::environment::library_folders(&python), [] as [PathBuf; 0]);
        let nvidia = environment.path().join("lib/python3.11/site-packages/nvidia");
        for name in ["cudnn/lib", "cublas/lib", "cuda_runtime/include"] {
            std::fs::create_dir_all(nvidia.join(name)).unwrap();
        }
        assert_eq!(
            super::super::environment::library_folders(&python),
            [nvidia.join("cublas/lib"), nvidia.join("cudnn/lib")]
        );
    }
}
