//! The whole build with a tiny package and stand-ins for cmake: everything but the compiler's work is real.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
    recipe: BuildRecipe,
}

/// Stands for cmake (makes the build folder) and for ninja (prints its lines and makes the "program").
const TOOL: &str = r#"#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
if [ "$1" = -C ]; then
  [ -e "$(dirname "$0")/hang" ] && { echo "[1/9] Building x"; exec sleep 1000; }
  for i in 1 2 3 4; do echo "[$i/4] Building CXX object x$i.o"; done
  [ -e "$(dirname "$0")/broken" ] && { echo "x.cpp:1: error: no such thing"; echo "ninja: stopped"; exit 1; }
  mkdir -p "$2/bin"
  printf '#!/bin/sh\necho "version: 0.6 (build 7, commit c)" >&2\n' > "$2/bin/llama-server"
  chmod +x "$2/bin/llama-server"
else
  [ -e "$2/CMakeLists.txt" ] || { echo "no project"; exit 1; }
  mkdir -p "$4"
fi
"#;

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("pkg-1/deep/project")).unwrap();
        fs::write(root.join("pkg-1/deep/project/CMakeLists.txt"), "project(x)").unwrap();
        let archive = root.join("pkg-1.tar.gz");
        let packed = Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(root)
            .arg("pkg-1")
            .status()
            .unwrap();
        assert!(packed.success());
        let tools = root.join("tools");
        fs::create_dir_all(&tools).unwrap();
        for name in ["cmake", "ninja"] {
            fs::write(tools.join(name), TOOL).unwrap();
            fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
        let recipe = BuildRecipe {
            key: "b7-test".into(),
            package: ("pkg".into(), "1".into()),
            sha256: String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().into(),
            project: "deep/project".into(),
            build_number: 7,
            tools: Vec::new(),
            archive: Some(archive),
            tools_dir: Some(tools),
            need_bytes: 1,
        };
        Self { dir, recipe }
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn build(&self) -> (Result<PathBuf, EngineError>, Vec<BuildProgress>) {
        let seen = Mutex::new(Vec::new());
        let result = self.recipe.build(&self.cache(), &AtomicBool::new(false), &|p| {
            seen.lock().unwrap().push(p);
        });
        (result, seen.into_inner().unwrap())
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("tools/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn tool_file(&self, name: &str) -> PathBuf {
        self.dir.path().join("tools").join(name)
    }
}

#[test]
fn builds_once_with_progress_and_leaves_only_the_program() {
    let bench = Bench::new();
    let (program, seen) = bench.build();
    let program = program.unwrap();
    assert_eq!(program, bench.cache().join("engines/llama.cpp/b7-test/llama-server"));
    assert!(Command::new(&program).output().unwrap().status.success());
    let steps: Vec<BuildStep> = seen.iter().map(|p| p.step).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    for step in [
        BuildStep::Tools,
        BuildStep::Verify,
        BuildStep::Unpack,
        BuildStep::Configure,
        BuildStep::SmokeTest,
    ] {
        assert!(steps.contains(&step), "{step:?}");
    }
    assert!(seen.iter().any(|p| p.message == "compiling (3 of 4)"), "{seen:?}");
    assert!(seen.iter().map(|p| p.fraction).is_sorted(), "{seen:?}");
    assert!((seen.last().unwrap().fraction - 1.0).abs() < 1e-6);

    let calls = bench.calls();
    assert_eq!(calls.len(), 2);
    assert!(
        calls[0].contains("-DLLAMA_BUILD_NUMBER=7") && calls[0].contains("-DLLAMA_USE_PREBUILT_UI=OFF"),
        "{calls:?}"
    );
    assert!(calls[1].ends_with("llama-server"), "{calls:?}");
    let mut left: Vec<_> = fs::read_dir(program.parent().unwrap().parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".b7-test.lock", "b7-test", "b7-test.log"]);

    // The second build finds the first one's work.
    let (again, seen) = bench.build();
    assert_eq!(again.unwrap(), program);
    assert_eq!((seen.len(), bench.calls().len()), (0, 2));
}

#[test]
fn a_failed_build_says_why_installs_nothing_and_goes_on_later() {
    let bench = Bench::new();
    fs::write(bench.tool_file("broken"), "").unwrap();
    let error = bench.build().0.unwrap_err();
    let EngineError::Build { step, reason, log } = &error else {
        panic!("{error}")
    };
    assert_eq!((*step, reason.as_str()), ("compiling", "x.cpp:1: error: no such thing"));
    assert!(fs::read_to_string(log).unwrap().contains("ninja: stopped"));
    assert!(!bench.recipe.program(&bench.cache()).exists());

    fs::remove_file(bench.tool_file("broken")).unwrap();
    let (result, seen) = bench.build();
    result.unwrap();
    assert!(
        !seen.iter().any(|p| p.step == BuildStep::Unpack),
        "the source is still there: {seen:?}"
    );
}

#[test]
fn another_package_than_the_pinned_one_is_refused() {
    let mut bench = Bench::new();
    bench.recipe.sha256 = "0".repeat(64);
    let error = bench.build().0.unwrap_err().to_string();
    assert!(error.contains("not the expected one"), "{error}");
    assert_eq!(bench.calls(), Vec::<String>::new());
}

#[test]
fn a_program_that_is_not_the_pinned_build_is_not_installed() {
    let mut bench = Bench::new();
    bench.recipe.build_number = 8;
    let error = bench.build().0.unwrap_err().to_string();
    assert!(error.contains("does not report build 8"), "{error}");
    assert!(!bench.recipe.program(&bench.cache()).exists());
}

#[test]
fn a_full_disk_is_told_before_the_work() {
    let mut bench = Bench::new();
    bench.recipe.need_bytes = u64::MAX;
    match bench.build().0 {
        Err(EngineError::Disk { need_mib, .. }) => assert!(need_mib > 1 << 40),
        // Containers may hide their mounts; then nothing is known and the build is tried.
        other => assert!(
            other.is_ok() && hardware::Hardware::new().disk_free(bench.dir.path()).is_none(),
            "{other:?}"
        ),
    }
}

#[test]
fn cancelling_ends_a_silent_tool_and_frees_the_lock() {
    let bench = Bench::new();
    fs::write(bench.tool_file("hang"), "").unwrap();
    let cancel = AtomicBool::new(false);
    let result = bench.recipe.build(&bench.cache(), &cancel, &|progress| {
        if progress.message.contains("1 of 9") {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
    fs::remove_file(bench.tool_file("hang")).unwrap();
    bench.build().0.unwrap();
}

#[test]
fn two_builders_build_once() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.build().0.unwrap())).collect();
        for worker in workers {
            assert!(worker.join().unwrap().exists());
        }
    });
    assert_eq!(bench.calls().len(), 2, "one configure, one compile");
}

#[test]
fn the_pinned_recipe_is_what_the_guide_says() {
    let recipe = BuildRecipe::pinned();
    assert_eq!(
        recipe.program(Path::new("/c")),
        Path::new("/c/engines/llama.cpp/b11549-cpu/llama-server")
    );
    assert_eq!(recipe.sha256.len(), 64);
    let with = recipe.configure(true).join(" ");
    assert!(
        with.contains("-DLLAMA_OPENSSL=ON") && with.contains("-DLLAMA_BUILD_COMMIT=xllamacpp-2026.10.11549"),
        "{with}"
    );
    assert!(recipe.configure(false).contains(&"-DLLAMA_OPENSSL=OFF".to_owned()));
}
