//! The whole installation with stand-ins for Python, pip and uv: everything but their work is real.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::speech::Tools;

/// Stands for Python: answers questions, makes environments that lead back to it, and is pip. `@` is the bench's folder,
/// whose files say how it behaves.
const PYTHON: &str = r#"#!/bin/sh
echo "python $*" >> @/calls
case "$*" in
*ensurepip*) cat @/base.json ;;
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; ln -s @/python3 "$last/bin/python" ;;
*"-m pip install"*)
    [ -e @/offline ] && {
        echo "WARNING: Retrying after connection broken: Failed to establish a new connection: [Errno -3]"
        echo "ERROR: No matching distribution found for anyio==4.16.0" >&2; exit 1; }
    [ -e @/changed ] && { echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE." >&2; exit 1; }
    [ -e @/nowheel ] && { echo "ERROR: No matching distribution found for av==1" >&2; exit 1; }
    [ -e @/strange ] && { echo "ERROR: the moon is full" >&2; exit 1; }
    echo "Collecting av==17.1.0 (from -r requirements.txt (line 1))"
    echo "  Downloading av-17.1.0-cp311-cp311-manylinux_2_28_x86_64.whl (38.2 MB)"
    [ -e @/hang ] && exec sleep 90
    echo "Collecting faster-whisper==1.2.1"
    echo "Installing collected packages: av, faster-whisper"
    echo "Successfully installed av-17.1.0 faster-whisper-1.2.1" ;;
*) [ -e @/unloadable ] && { echo "ImportError: libsomething.so.1" >&2; exit 1; }
    echo '{"python_version": "3.11.7", "faster_whisper": "1.2.1"}' ;;
esac
"#;

const UV: &str = r#"#!/bin/sh
echo "uv $*" >> @/calls
[ -e @/uv-broken ] && { echo "error: unexpected argument" >&2; exit 2; }
[ -e @/uv-offline ] && { echo "error: error sending request for url" >&2; exit 2; }
case "$1" in
venv) for last; do :; done; mkdir -p "$last/bin"; ln -s @/python3 "$last/bin/python" ;;
pip) { echo "Resolved 2 packages in 1ms"; echo "Downloading av (38.2MiB)"; echo " Downloaded av"
    echo "Prepared 2 packages in 1s"; echo "Installed 2 packages in 5ms"; echo " + av==17.1.0"; } >&2 ;;
esac
"#;

const LOCK: &str = "av==17.1.0 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\nfaster-whisper==1.2.1 \\\n    \
                    --hash=sha256:11\n    # via\n";

pub(in crate::speech) struct Bench {
    dir: tempfile::TempDir,
    pub(in crate::speech) recipe: EnvironmentRecipe,
}

impl Bench {
    pub(in crate::speech) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self {
            recipe: EnvironmentRecipe {
                name: "speech".into(),
                lock: LOCK.into(),
                imports: vec!["faster_whisper".into()],
                need_bytes: 1,
                automatic: true,
                tools: Tools {
                    pythons: vec![
                        vec![dir.path().join("missing").into()],
                        vec![dir.path().join("python3").into()],
                    ],
                    uv: None,
                },
            },
            dir,
        };
        bench.program("python3", PYTHON);
        bench.base([3, 11, 7], true, "cpython-311-x86_64-linux-gnu");
        bench
    }

    fn with_uv() -> Self {
        let mut bench = Self::new();
        bench.program("uv", UV);
        bench.recipe.tools.uv = Some(bench.file("uv"));
        bench
    }

    pub(in crate::speech) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::write(&path, text.replace('@', &self.dir.path().to_string_lossy())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn base(&self, version: [u32; 3], venv: bool, tag: &str) {
        let base = serde_json::json!({"version": version, "executable": self.file("python3"), "venv": venv, "tag": tag,
            "gil": !tag.contains("t-")});
        fs::write(self.file("base.json"), base.to_string()).unwrap();
    }

    pub(in crate::speech) fn set(&self, name: &str) {
        fs::write(self.file(name), "").unwrap();
    }

    pub(in crate::speech) fn unset(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    pub(in crate::speech) fn cache(&self) -> PathBuf {
        self.file("cache")
    }

    fn install(&self) -> (Result<Installed, EngineError>, Vec<InstallProgress>) {
        let seen = Mutex::new(Vec::new());
        let result = self.recipe.install(&self.cache(), &AtomicBool::new(false), &|step| {
            seen.lock().unwrap().push(step);
        });
        (result, seen.into_inner().unwrap())
    }

    fn fault(&self) -> String {
        self.install().0.unwrap_err().to_string()
    }

    pub(in crate::speech) fn calls(&self, with: &str) -> usize {
        let text = fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().filter(|line| line.contains(with)).count()
    }

    /// Folders beside each other in the Python folder.
    fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache().join("python")).unwrap().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn folder(&self) -> String {
        let folder = self.recipe.folder(&self.cache());
        folder.file_name().unwrap().to_string_lossy().into_owned()
    }
}

#[test]
fn installs_once_with_progress_and_leaves_only_the_environment() {
    let bench = Bench::new();
    let (installed, seen) = bench.install();
    let installed = installed.unwrap();
    assert_eq!(installed.python, bench.recipe.folder(&bench.cache()).join("bin/python"));
    assert_eq!(
        (installed.python_version.as_str(), installed.faster_whisper.as_str()),
        ("3.11.7", "1.2.1")
    );
    assert_eq!(bench.folders(), [bench.folder()]);
    let steps: Vec<InstallStep> = seen.iter().map(|step| step.step).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    let fractions: Vec<f32> = seen.iter().map(|step| step.fraction).collect();
    assert!(fractions.is_sorted() && fractions.last() == Some(&1.0), "{fractions:?}");
    assert!(
        seen.iter()
            .any(|step| step.message == "fetching packages (av, 38.2 MB)"),
        "{seen:?}"
    );
    let with = ["--require-hashes", "--only-binary :all:", "requirements.txt"];
    assert!(with.iter().all(|word| bench.calls(word) == 1), "{with:?}");
    // The second time nothing is done.
    assert_eq!(bench.install().0.unwrap(), installed);
    assert_eq!(
        (bench.calls("pip install"), bench.calls("import faster_whisper")),
        (1, 1)
    );
}

#[test]
fn uv_is_used_where_it_is_and_pip_where_it_is_broken() {
    let bench = Bench::with_uv();
    let (installed, seen) = bench.install();
    installed.unwrap();
    assert_eq!(
        (
            bench.calls("uv venv"),
            bench.calls("uv pip install"),
            bench.calls("-m pip")
        ),
        (1, 1, 0)
    );
    assert!(seen.iter().any(|step| step.message.contains("av, 38.2MiB")), "{seen:?}");

    let bench = Bench::with_uv();
    bench.set("uv-broken");
    bench.install().0.unwrap();
    // Not with modules of the folder that the app was started in.
    assert_eq!((bench.calls("-I -m venv"), bench.calls("-I -m pip install")), (1, 1));

    let bench = Bench::with_uv();
    bench.set("uv-offline");
    assert!(bench.fault().contains("could not be reached"));
    assert_eq!(bench.calls("-m pip"), 0);
}

#[test]
fn every_fault_says_what_to_do_and_leaves_nothing() {
    for (file, words) in [
        ("offline", "Connect to the internet"),
        ("changed", "SHA-256"),
        ("nowheel", "no ready-made package"),
        ("strange", "the moon is full"),
        ("unloadable", "libsomething.so.1"),
    ] {
        let bench = Bench::new();
        bench.set(file);
        let fault = bench.fault();
        assert!(fault.contains(words) && fault.contains("speech.log"), "{file}: {fault}");
        assert_eq!(bench.folders(), [""; 0], "{file}");
        bench.unset(file);
        bench.install().0.unwrap();
    }
    let mut bench = Bench::new();
    bench.recipe.need_bytes = u64::MAX;
    assert!(bench.fault().contains("free disk space"));
}

#[test]
fn a_python_that_will_not_do_is_named() {
    let bench = Bench::new();
    bench.base([3, 9, 2], true, "cpython-39-x86_64-linux-gnu");
    assert!(
        bench
            .fault()
            .contains("Python 3.9.2 was found, and there are packages for 3.10 to 3.14 only")
    );
    bench.base([3, 15, 0], true, "cpython-315-x86_64-linux-gnu");
    assert!(bench.fault().contains("3.15.0"));
    bench.base([3, 13, 1], true, "cpython-313t-x86_64-linux-gnu");
    assert!(bench.fault().contains("without GIL"));
    bench.base([3, 12, 1], true, "cpython-312-x86_64-linux-musl");
    assert!(bench.fault().contains("musl"));
    bench.base([3, 12, 1], false, "cpython-312-x86_64-linux-gnu");
    assert!(bench.fault().contains("python3.12-venv"));
    fs::write(bench.file("base.json"), "no Python at all").unwrap();
    assert!(bench.fault().contains("no Python was found"));
    assert_eq!(bench.calls("-m venv"), 0);
}

#[test]
fn cancelled_halfway_it_leaves_nothing_and_can_be_done_again() {
    let bench = Bench::new();
    bench.set("hang");
    let cancel = AtomicBool::new(false);
    let begun = std::time::Instant::now();
    let result = bench.recipe.install(&bench.cache(), &cancel, &|step| {
        if step.message.contains("38.2 MB") {
            cancel.store(true, Ordering::SeqCst);
        }
    });
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(45),
        "the tool was ended"
    );
    assert_eq!(bench.folders(), [""; 0]);
    bench.unset("hang");
    bench.install().0.unwrap();
}

#[test]
fn two_at_a_time_install_once_and_the_second_waits() {
    let bench = Bench::new();
    let waited = AtomicBool::new(false);
    let root = bench.cache().join("python");
    fs::create_dir_all(&root).unwrap();
    // As another process does: the lock is on a descriptor of its own.
    let held = process::lock(&root.join(".speech.lock"), &AtomicBool::new(false), &mut || {}).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            bench.recipe.install(&bench.cache(), &AtomicBool::new(false), &|step| {
                waited.fetch_or(step.step == InstallStep::Waiting, Ordering::SeqCst);
            })
        });
        while !waited.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let cancel = AtomicBool::new(false);
        Installer::new(&bench.recipe, &bench.cache(), &cancel, &|_| {})
            .unwrap()
            .run()
            .unwrap();
        drop(held);
        second.join().unwrap().unwrap();
    });
    assert_eq!(bench.calls("pip install"), 1);
}

#[test]
fn an_older_environment_goes_when_the_new_one_is_there() {
    let mut bench = Bench::new();
    bench.install().0.unwrap();
    let old = bench.folder();
    let root = bench.cache().join("python");
    for other in ["speech-dev", "kokoro-0123456789abcdef", "program-0123456789abcdef"] {
        fs::create_dir_all(root.join(other)).unwrap();
    }
    bench.recipe.lock.push_str("# newer\n");
    bench.set("offline");
    assert!(bench.install().0.is_err());
    assert!(bench.folders().contains(&old), "kept until the new one is there");
    bench.unset("offline");
    bench.install().0.unwrap();
    let mut left = vec![
        bench.folder(),
        "speech-dev".into(),
        "kokoro-0123456789abcdef".into(),
        "program-0123456789abcdef".into(),
    ];
    left.sort();
    assert_eq!(bench.folders(), left);
}

#[test]
fn an_environment_whose_python_went_is_made_again() {
    let bench = Bench::new();
    let installed = bench.install().0.unwrap();
    // The system's Python was updated: asked once, then known again.
    let program = bench.file("python3");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    File::options()
        .write(true)
        .open(&program)
        .unwrap()
        .set_modified(later)
        .unwrap();
    for _ in 0..2 {
        let standing = environment::standing(&bench.recipe, &bench.cache());
        assert_eq!(standing, Standing::Ready(installed.clone()));
    }
    assert_eq!(bench.calls("import faster_whisper"), 2);
    // It was removed.
    fs::remove_file(&installed.python).unwrap();
    assert!(matches!(
        environment::standing(&bench.recipe, &bench.cache()),
        Standing::Broken(_)
    ));
    assert_eq!(bench.install().0.unwrap(), installed);
    assert_eq!(bench.calls("pip install"), 2);
}

#[test]
fn the_locks_are_complete() {
    for recipe in [
        EnvironmentRecipe::speech(),
        EnvironmentRecipe::kokoro(),
        EnvironmentRecipe::piper(),
    ] {
        assert!(recipe.packages() > 20, "{}", recipe.name);
        let hashes = recipe
            .lock
            .lines()
            .filter(|line| line.contains("--hash=sha256:"))
            .count();
        assert!(hashes >= recipe.packages(), "{}", recipe.name);
    }
}
