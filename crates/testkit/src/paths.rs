use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The folder with the tiny models of the repository (`tiny-chat.gguf`, `tiny-embed.gguf`, `tiny-rerank.gguf`).
pub fn models_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models")
}

/// The folder of the tiny speech-to-text model: Whisper in CTranslate2's form, knows the recordings of [`audio_dir`].
pub fn tiny_whisper_dir() -> PathBuf {
    models_dir().join("tiny-whisper")
}

/// The folder with recordings, hostile files and `expected.json`, which tells what is said in them.
pub fn audio_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/audio")
}

/// The real llama-server: `LLAMARUNNER_LLAMA_SERVER`, else the newest one built in the user's cache
/// (`$XDG_CACHE_HOME/llama-runner/engines/llama.cpp/*/llama-server`). `cargo xtask test` makes sure there is one.
pub fn real_engine_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LLAMARUNNER_LLAMA_SERVER").map(PathBuf::from) {
        return path.is_file().then_some(path);
    }
    let builds = std::fs::read_dir(cache_home()?.join("llama-runner/engines/llama.cpp")).ok()?;
    builds
        .flatten()
        .map(|build| build.path().join("llama-server"))
        .filter(|path| path.is_file())
        .max_by_key(|path| modified(path))
}

/// The real speech engine's interpreter: `LLAMARUNNER_SPEECH_PYTHON`, else the newest environment in the user's cache
/// (`$XDG_CACHE_HOME/llama-runner/python/speech-*`). `cargo xtask test` makes sure there is one.
pub fn real_speech_python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LLAMARUNNER_SPEECH_PYTHON").map(PathBuf::from) {
        return path.is_file().then_some(path);
    }
    let environments = std::fs::read_dir(cache_home()?.join("llama-runner/python")).ok()?;
    environments
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("speech-"))
        .map(|entry| entry.path().join("bin/python"))
        .filter(|path| path.is_file())
        .max_by_key(|path| path.symlink_metadata().ok()?.modified().ok())
}

fn cache_home() -> Option<PathBuf> {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}

/// The stub engine's binary: `CARGO_BIN_EXE_stub-engine` if set, else beside the running test's target folder. Cargo
/// does not build another package's binaries for a test, so it is built here when it is missing or older than its source.
///
/// # Panics
/// When it can neither be found nor built: no test using it can do anything then.
pub fn stub_engine_path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find_stub("stub-engine")).clone()
}

/// The stub speech engine's binary, which takes the place of the Python interpreter; found as [`stub_engine_path`].
///
/// # Panics
/// When it can neither be found nor built: no test using it can do anything then.
pub fn stub_speech_path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| find_stub("stub-speech")).clone()
}

#[expect(clippy::panic, reason = "test support: without the stub the test cannot run")]
fn find_stub(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    let Some(profile) = std::env::current_exe().ok().and_then(|exe| profile_folder(&exe)) else {
        panic!("the running test is not in a cargo target folder");
    };
    let path = profile.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if modified(&path) >= newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        return path;
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--quiet", "--package", "testkit", "--bin", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(target) = profile.parent() {
        build.arg("--target-dir").arg(target);
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    match build.status() {
        Ok(status) if status.success() && path.is_file() => path,
        other => panic!("cannot build {name} at {}: {other:?}", path.display()),
    }
}

/// `target/debug` for `target/debug/deps/x-123` and for `target/debug/x`.
fn profile_folder(exe: &Path) -> Option<PathBuf> {
    let folder = exe.parent()?;
    Some(
        if folder.ends_with("deps") || folder.ends_with("examples") {
            folder.parent()?
        } else {
            folder
        }
        .to_owned(),
    )
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

fn newest(folder: &Path) -> Option<SystemTime> {
    std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_in_the_repository() {
        for name in ["tiny-chat.gguf", "tiny-embed.gguf", "tiny-rerank.gguf"] {
            assert!(models_dir().join(name).is_file(), "{name}");
        }
        assert!(tiny_whisper_dir().join("model.bin").is_file());
        assert!(audio_dir().join("expected.json").is_file());
    }

    #[test]
    fn profile_folder_of_tests_and_binaries() {
        for exe in ["/t/debug/deps/x-1", "/t/debug/examples/x", "/t/debug/x"] {
            assert_eq!(profile_folder(Path::new(exe)), Some(PathBuf::from("/t/debug")), "{exe}");
        }
    }
}
