use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn script(path: &Path, body: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Written beside and renamed: another test's fork may hold a write handle, and running such a file is ETXTBSY.
    let temporary = path.with_extension("new");
    fs::write(&temporary, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// An engine that counts its `--version` runs in `<path>.runs`.
fn engine(path: &Path, version: &str) {
    let runs = path.with_extension("runs");
    script(
        path,
        &format!(
            "case \"$1\" in\n--version) echo x >> '{}'; echo 'version: {version} (build 7, commit c)' >&2;;\n\
             --help) echo '--port PORT   port';;\nesac",
            runs.display()
        ),
    );
}

fn runs(path: &Path) -> usize {
    fs::read_to_string(path.with_extension("runs"))
        .unwrap_or_default()
        .lines()
        .count()
}

struct Home {
    dir: tempfile::TempDir,
    settings: EngineSettings,
    surroundings: Surroundings,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = EngineSettings {
            cache_dir: dir.path().join("cache"),
            data_dir: dir.path().join("data"),
            ..EngineSettings::default()
        };
        Self {
            dir,
            settings,
            surroundings: Surroundings::default(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn first(&self) -> Option<(Source, PathBuf)> {
        candidates(&self.settings, &self.surroundings)
            .unwrap()
            .into_iter()
            .next()
    }
}

#[test]
fn each_source_yields_to_the_one_before_it() {
    let mut home = Home::new();
    assert_eq!(home.first(), None);
    let bin = home.path("bin/llama-server");
    engine(&bin, "path");
    home.surroundings.path = Some(format!("relative:{}", home.path("bin").display()).into());
    assert_eq!(home.first(), Some((Source::Path, bin)));
    for (name, expected) in [
        ("b9-cpu", "b9-cpu"),
        ("b10-cpu", "b10-cpu"),
        ("b11549-cpu", "b11549-cpu"),
        ("b20000-x", "b11549-cpu"),
    ] {
        engine(
            &home.path(&format!("cache/engines/llama.cpp/{name}/llama-server")),
            name,
        );
        let expected = home.path(&format!("cache/engines/llama.cpp/{expected}/llama-server"));
        assert_eq!(home.first(), Some((Source::Built, expected)));
    }
    fs::create_dir_all(home.path("data/engines/llama.cpp/b30000-empty")).unwrap();
    assert_eq!(home.first().unwrap().0, Source::Built);
    let downloaded = home.path("data/engines/llama.cpp/b12000-cuda/llama-server");
    engine(&downloaded, "downloaded");
    assert_eq!(home.first(), Some((Source::Downloaded, downloaded)));
    let named = home.path("mine/llama-server");
    engine(&named, "named");
    home.surroundings.named = Some(named.clone().into());
    assert_eq!(home.first(), Some((Source::Environment, named)));
    let config = home.path("config/llama-server");
    engine(&config, "config");
    for form in [home.path("config"), config.clone()] {
        home.settings.path = Some(form);
        assert_eq!(home.first(), Some((Source::Config, config.clone())));
    }
}

#[test]
fn a_named_program_that_is_not_there_is_an_error_and_not_replaced() {
    let mut home = Home::new();
    engine(&home.path("data/engines/llama.cpp/b1/llama-server"), "other");
    fs::write(home.path("plain"), "not executable").unwrap();
    for bad in ["nothing", "plain", "cache"] {
        home.settings.path = Some(home.path(bad));
        let error = candidates(&home.settings, &home.surroundings).unwrap_err();
        assert!(
            matches!(
                error,
                EngineError::BadPath {
                    origin: "engines.llama_server.path",
                    ..
                }
            ),
            "{error}"
        );
    }
    home.settings.path = None;
    home.surroundings.named = Some("/nowhere/llama-server".into());
    let error = candidates(&home.settings, &home.surroundings).unwrap_err();
    assert!(error.to_string().contains(ENVIRONMENT), "{error}");
}

#[tokio::test]
async fn probed_once_for_many_callers_again_when_changed_and_kept_on_disk() {
    let home = Home::new();
    let program = home.path("cache/engines/llama.cpp/b11549-cpu/llama-server");
    engine(&program, "1.0");
    let engines = Engines::new(home.settings.clone());
    let ask = || engines.llama_server_in(Surroundings::default());
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    let a = a.unwrap();
    assert!(Arc::ptr_eq(&a, &b.unwrap()) && Arc::ptr_eq(&a, &c.unwrap()));
    assert_eq!(
        (a.version.as_str(), a.build, a.commit.as_deref()),
        ("1.0", Some(7), Some("c"))
    );
    assert!(a.has("--port") && !a.has("--log-jsonl"));
    assert_eq!(runs(&program), 1);

    // Another process on the same cache does not run it.
    let other = Engines::new(home.settings.clone());
    assert_eq!(*other.llama_server_in(Surroundings::default()).await.unwrap(), *a);
    assert_eq!(runs(&program), 1);

    engine(&program, "2.0-longer");
    assert_eq!(ask().await.unwrap().version, "2.0-longer");
    assert_eq!(runs(&program), 2);
    assert_eq!(ask().await.unwrap().version, "2.0-longer");
    assert_eq!(runs(&program), 2);

    fs::remove_file(&program).unwrap();
    assert!(matches!(ask().await.unwrap_err(), EngineError::Missing));
    let message = EngineError::Missing.to_string();
    assert!(message.contains("llama-runner engine build"), "{message}");
}

#[tokio::test]
async fn a_broken_engine_is_passed_over_unless_it_was_named() {
    let mut home = Home::new();
    let broken = home.path("data/engines/llama.cpp/b99999/llama-server");
    script(&broken, "echo 'error while loading shared libraries' >&2; exit 127");
    let built = home.path("cache/engines/llama.cpp/b11549-cpu/llama-server");
    engine(&built, "works");
    let engines = Engines::new(home.settings.clone());
    assert_eq!(
        engines.llama_server_in(Surroundings::default()).await.unwrap().path,
        built
    );
    home.settings.path = Some(broken);
    engines.apply(home.settings.clone());
    let error = engines.llama_server_in(Surroundings::default()).await.unwrap_err();
    assert!(error.to_string().contains("shared libraries"), "{error}");
    // What a remote caller sees has no path.
    let error = domain::RunnerError::from(&error);
    assert!(!error.message.contains(home.dir.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_program_that_never_answers_or_never_stops_talking_is_ended() {
    let home = Home::new();
    let silent = home.path("silent/llama-server");
    script(&silent, "exec sleep 1000");
    let error = probe::probe(&silent, Duration::from_millis(200)).await.unwrap_err();
    assert!(error.to_string().contains("did not answer --version"), "{error}");
    let chatty = home.path("chatty/llama-server");
    script(&chatty, "echo 'version: 3 (abc)'; exec yes");
    let binary = probe::probe(&chatty, Duration::from_secs(20)).await.unwrap();
    assert_eq!(binary.version, "3");
}
