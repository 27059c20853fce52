//! Which voice engines this machine has (audio contract 8), as models of the library, and which can be installed.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use config::Config;
use domain::{EngineKind, VoicePack};
use engines::speech::{EnvironmentRecipe, InstallProgress};
use models::VoiceEngine;
use serde::Serialize;

use crate::engine::BuildError;
use crate::error::StartError;
use crate::places::Places;
use crate::start::StartOptions;

/// Below the data folder: the files of voice engines that were installed on request, a folder for each.
const FOLDER: &str = "models/voices";

/// Where voices are downloaded to.
pub(crate) fn root(places: &Places) -> PathBuf {
    places.data.join(FOLDER)
}

/// Where the files of an engine that is installed on request lie.
fn folder(places: &Places, pack: VoicePack) -> PathBuf {
    root(places).join(pack.key())
}

/// A voice engine that is installed on request, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VoicePackInfo {
    /// `kokoro` or `piper`.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Under which licences it comes.
    pub licence: &'static str,
    /// Its voices are there.
    pub files: bool,
    /// The program that speaks with them is there.
    pub environment: bool,
    /// Bytes on disk; while nothing is there: about as many as there are to download.
    pub bytes: u64,
}

/// The voice engines that can be installed with these options, the recommended one first.
///
/// # Errors
/// No home folder.
pub fn voice_packs(options: &StartOptions) -> Result<Vec<VoicePackInfo>, StartError> {
    let places = options.places()?;
    let info = |pack: VoicePack| {
        let there = installed(pack, &folder(&places, pack));
        VoicePackInfo {
            name: pack.key(),
            description: pack.description(),
            licence: pack.licence(),
            files: there.is_some(),
            environment: recipe(pack).folder(&places.cache).is_dir(),
            bytes: there.map_or(pack.bytes(), |voice| voice.size),
        }
    };
    Ok(VoicePack::ALL.into_iter().map(info).collect())
}

/// Installs the program that speaks with these voices, in the cache folder of these options, unless it is there. Blocks for
/// a minute or longer. Whoever calls has shown the licence.
///
/// # Errors
/// No home folder, or the installation failed.
pub fn install_voices(
    options: &StartOptions,
    pack: VoicePack,
    progress: &dyn Fn(InstallProgress),
) -> Result<PathBuf, BuildError> {
    let places = options.places()?;
    let installed = recipe(pack).install(&places.cache, &AtomicBool::new(false), progress)?;
    Ok(installed.python)
}

fn recipe(pack: VoicePack) -> EnvironmentRecipe {
    match pack {
        VoicePack::Kokoro => EnvironmentRecipe::kokoro(),
        VoicePack::Piper => EnvironmentRecipe::piper(),
    }
}

/// All of them, the one for requests that name none first: what somebody took the trouble to install, then the system's own
/// voice, then espeak-ng, which the speech environment brings where the system has none; custom engines only by name.
pub(crate) fn engines(config: &Config, places: &Places) -> Vec<VoiceEngine> {
    let installed = VoicePack::ALL
        .into_iter()
        .filter_map(|pack| installed(pack, &folder(places, pack)));
    let mut all: Vec<VoiceEngine> = installed.collect();
    all.extend(platform());
    all.push(espeak_ng());
    for (name, engine) in &config.engines.custom {
        all.extend(engine.speaks.iter().map(|model| custom(name, model, false)));
        all.extend(engine.hears.iter().map(|model| custom(name, model, true)));
    }
    all
}

fn installed(pack: VoicePack, folder: &Path) -> Option<VoiceEngine> {
    let files: Vec<(String, u64)> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let size = entry.metadata().ok()?.len();
            Some((entry.file_name().into_string().ok()?, size))
        })
        .collect();
    let has = |start: &str, end: &str| {
        files
            .iter()
            .any(|(name, _)| name.starts_with(start) && name.ends_with(end))
    };
    let complete = match pack {
        VoicePack::Kokoro => has("kokoro", ".onnx") && has("voices", ".bin"),
        VoicePack::Piper => has("", ".onnx") && has("", ".onnx.json"),
    };
    complete.then(|| VoiceEngine {
        key: pack.key().into(),
        engine: EngineKind::Speech,
        backend: pack.key().into(),
        path: folder.to_owned(),
        display_name: pack.display_name().into(),
        description: Some(format!("{} {}", pack.description(), pack.licence())),
        size: files.iter().map(|(_, size)| size).sum(),
        ..VoiceEngine::default()
    })
}

/// The voice that comes with the system.
fn platform() -> Option<VoiceEngine> {
    let (key, name) = match std::env::consts::OS {
        "macos" => ("macos-voices", "macOS voices"),
        "windows" => ("windows-voices", "Windows voices"),
        _ => return None,
    };
    Some(VoiceEngine {
        key: key.into(),
        engine: EngineKind::Speech,
        backend: "platform".into(),
        display_name: name.into(),
        description: Some("The voices that come with this system.".into()),
        aliases: vec!["platform".into()],
        ..VoiceEngine::default()
    })
}

fn espeak_ng() -> VoiceEngine {
    VoiceEngine {
        key: "espeak-ng".into(),
        engine: EngineKind::Speech,
        backend: "espeak-ng".into(),
        display_name: "eSpeak NG".into(),
        description: Some(
            "Over a hundred languages, at once and without download; sounds like a robot. GPL-3.0-or-later, run as a program \
             of its own."
                .into(),
        ),
        aliases: vec!["espeak".into()],
        ..VoiceEngine::default()
    }
}

/// A model of an engine of the user's.
fn custom(engine: &str, model: &str, hears: bool) -> VoiceEngine {
    let what = if hears { "Speech to text" } else { "Text to speech" };
    VoiceEngine {
        key: model.into(),
        engine: EngineKind::Custom,
        backend: engine.into(),
        // What takes the place of `{model}` in the command.
        path: model.into(),
        // What the engine is asked for.
        display_name: model.into(),
        description: Some(format!("{what} of the engine '{engine}' in config.json.")),
        aliases: vec![format!("{engine}/{model}")],
        hears,
        ..VoiceEngine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_comes_first_and_custom_engines_last() {
        let home = tempfile::tempdir().unwrap();
        let places = Places {
            config: home.path().join("config.json"),
            data: home.path().join("data"),
            cache: home.path().join("cache"),
            home: home.path().to_owned(),
        };
        let text = r#"{"engines": {"custom": {"mine": {"command": ["/opt/speak", "{port}"], "speaks": ["loud", "low"], "hears": ["ear"]}, "dumb": {"command": ["x", "{port}"]}}}}"#;
        let config = Config::parse(text).unwrap().config;
        let keys = || -> Vec<String> { engines(&config, &places).into_iter().map(|voice| voice.key).collect() };
        let without = keys();
        assert!(
            without.ends_with(&["espeak-ng", "loud", "low", "ear"].map(str::to_owned)),
            "{without:?}"
        );

        let kokoro = folder(&places, VoicePack::Kokoro);
        std::fs::create_dir_all(&kokoro).unwrap();
        std::fs::write(kokoro.join("kokoro-v1.0.onnx"), "12345").unwrap();
        // Half of it is nothing.
        assert_eq!(keys(), without);
        std::fs::write(kokoro.join("voices-v1.0.bin"), "123").unwrap();
        let piper = folder(&places, VoicePack::Piper);
        std::fs::create_dir_all(&piper).unwrap();
        std::fs::write(piper.join("en_US-ljspeech-medium.onnx"), "1").unwrap();
        std::fs::write(piper.join("en_US-ljspeech-medium.onnx.json"), "{}").unwrap();
        let all = engines(&config, &places);
        assert_eq!(
            (all[0].key.as_str(), all[0].size, all[0].path.as_path()),
            ("kokoro", 8, kokoro.as_path())
        );
        assert_eq!((all[1].key.as_str(), all[1].engine), ("piper", EngineKind::Speech));
        let last = all.last().unwrap();
        assert_eq!((last.engine, last.backend.as_str()), (EngineKind::Custom, "mine"));
        assert_eq!(
            (last.path.as_path(), last.aliases[0].as_str()),
            (Path::new("ear"), "mine/ear")
        );
    }
}
