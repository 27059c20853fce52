use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use hardware::Hardware;
use sha2::{Digest as _, Sha256};

use super::{BuildProgress, BuildRecipe, BuildStep, COMPILE_END, COMPILE_START};
use crate::EngineError;
use crate::process::{self, check_cancel, nice, quiet, remove_tree, succeeds};

/// Memory that one compiler may take (677 MB measured).
const COMPILER_BYTES: u64 = 800 << 20;

/// One build in progress.
pub(super) struct Builder<'a> {
    recipe: &'a BuildRecipe,
    /// Scratch folder beside the result, so that the last rename stays on one disk.
    work: PathBuf,
    log_path: PathBuf,
    log: File,
    cancel: &'a AtomicBool,
    progress: &'a dyn Fn(BuildProgress),
    done: Cell<f32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        recipe: &'a BuildRecipe,
        folder: &Path,
        cancel: &'a AtomicBool,
        progress: &'a dyn Fn(BuildProgress),
    ) -> Result<Self, EngineError> {
        // A leading dot: `Engines` does not look into it.
        let work = folder.join(format!(".{}.build", recipe.key));
        fs::create_dir_all(&work).map_err(EngineError::io("Creating", &work))?;
        let log_path = folder.join(format!("{}.log", recipe.key));
        let log = File::create(&log_path).map_err(EngineError::io("Creating", &log_path))?;
        Ok(Self {
            recipe,
            work,
            log_path,
            log,
            cancel,
            progress,
            done: Cell::new(0.0),
        })
    }

    pub(super) fn run(mut self, program: &Path) -> Result<(), EngineError> {
        self.say(BuildStep::Tools, None);
        self.check_disk()?;
        let openssl = self.check_tools()?;
        let bin = self.python()?;
        let source = self.source(&bin)?;
        let built = self.compile(&bin, &source, openssl)?;
        self.smoke_test(&built)?;
        self.install(&built, program)
    }

    fn say(&self, step: BuildStep, detail: Option<(f32, String)>) {
        let (fraction, message) = match detail {
            Some((fraction, text)) => (fraction, format!("{} ({text})", step.title())),
            None => (step.starts_at(), step.title().to_owned()),
        };
        let fraction = fraction.max(self.done.get());
        self.done.set(fraction);
        (self.progress)(BuildProgress {
            step,
            fraction,
            message,
        });
    }

    fn fault(&self, step: BuildStep, reason: impl Into<String>) -> EngineError {
        EngineError::Build {
            step: step.title(),
            reason: reason.into(),
            log: self.log_path.clone(),
        }
    }

    /// Runs a tool of `step` at low priority; its failure is an error.
    fn tool(
        &mut self,
        step: BuildStep,
        mut command: Command,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<(), EngineError> {
        check_cancel(self.cancel)?;
        match process::run(&mut command, &mut self.log, self.cancel, on_line) {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(self.fault(step, process::last_words(&self.log_path))),
            Ok(Err(cancelled)) => Err(cancelled),
            Err(error) => {
                let name = command.get_program().to_string_lossy().into_owned();
                Err(self.fault(step, format!("{name} could not be run ({error})")))
            }
        }
    }

    fn check_disk(&self) -> Result<(), EngineError> {
        // A build that goes on has most of its files already.
        let have = if self.work.join("build").exists() {
            self.recipe.need_bytes / 2
        } else {
            0
        };
        let need = self.recipe.need_bytes - have;
        match Hardware::new().disk_free(&self.work) {
            Some(free) if free < need => {
                let folder = self.work.parent().unwrap_or(&self.work).to_owned();
                Err(EngineError::Disk {
                    folder,
                    need_mib: need >> 20,
                    free_mib: free >> 20,
                })
            }
            _ => Ok(()),
        }
    }

    /// Everything missing at once, with one command to mend it. True when OpenSSL can be used.
    fn check_tools(&self) -> Result<bool, EngineError> {
        let mut missing = Vec::new();
        let mut packages = Vec::new();
        if !succeeds(Command::new("cc").arg("--version")) || !succeeds(Command::new("c++").arg("--version")) {
            missing.push("a C and C++ compiler");
            packages.push("build-essential");
        }
        if self.recipe.tools_dir.is_none() || self.recipe.archive.is_none() {
            if !succeeds(Command::new("python3").arg("--version")) {
                missing.push("Python 3 with venv");
                packages.extend(["python3", "python3-venv"]);
            } else if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
                missing.push("Python's venv");
                packages.push("python3-venv");
            }
        }
        if !succeeds(Command::new("tar").arg("--version")) {
            missing.push("tar");
            packages.push("tar");
        }
        if missing.is_empty() {
            return Ok(has_openssl());
        }
        Err(EngineError::BuildTools {
            missing: missing.join(", "),
            command: format!("sudo apt-get install {}", packages.join(" ")),
        })
    }

    /// The folder that has cmake and ninja (and pip).
    fn python(&mut self) -> Result<PathBuf, EngineError> {
        self.say(BuildStep::Python, None);
        if let Some(folder) = &self.recipe.tools_dir {
            return Ok(folder.clone());
        }
        let venv = self.work.join("venv");
        let bin = venv.join("bin");
        let complete = venv.join("complete");
        let wanted: Vec<String> = self
            .recipe
            .tools
            .iter()
            .map(|(name, version)| format!("{name}=={version}"))
            .collect();
        if fs::read_to_string(&complete).is_ok_and(|have| have == wanted.join(" ")) {
            return Ok(bin);
        }
        let mut create = quiet("python3");
        create.args(["-m", "venv", "--clear"]).arg(&venv);
        self.tool(BuildStep::Python, create, &mut |_| {})?;
        let mut install = quiet(&bin.join("pip").to_string_lossy());
        install
            .args([
                "install",
                "--disable-pip-version-check",
                "--no-input",
                "--only-binary",
                ":all:",
            ])
            .args(&wanted);
        self.tool(BuildStep::Python, install, &mut |_| {})?;
        fs::write(&complete, wanted.join(" ")).map_err(EngineError::io("Writing", &complete))?;
        Ok(bin)
    }

    /// The folder of the CMake project, unpacked from the checked package.
    fn source(&mut self, bin: &Path) -> Result<PathBuf, EngineError> {
        let source = self.work.join("source");
        let project = source.join(&self.recipe.project);
        let complete = self.work.join("source.complete");
        if fs::read_to_string(&complete).is_ok_and(|have| have == self.recipe.sha256) && project.exists() {
            return Ok(project);
        }
        self.say(BuildStep::Download, None);
        let archive = match &self.recipe.archive {
            Some(archive) => archive.clone(),
            None => self.download(bin)?,
        };
        self.say(BuildStep::Verify, None);
        let found = sha256(&archive).map_err(EngineError::io("Reading", &archive))?;
        if found != self.recipe.sha256 {
            if self.recipe.archive.is_none() {
                let _ = fs::remove_file(&archive);
            }
            let wanted = &self.recipe.sha256;
            return Err(self.fault(
                BuildStep::Verify,
                format!("the source package is not the expected one (SHA-256 {found} instead of {wanted})"),
            ));
        }
        self.say(BuildStep::Unpack, None);
        let _ = fs::remove_file(&complete);
        remove_tree(&source)?;
        // An older source in the same scratch folder leaves objects that do not belong to this one.
        remove_tree(&self.work.join("build"))?;
        fs::create_dir_all(&source).map_err(EngineError::io("Creating", &source))?;
        let mut unpack = quiet("tar");
        unpack
            .arg("-xzf")
            .arg(&archive)
            .args(["--strip-components=1", "--no-same-owner", "-C"])
            .arg(&source);
        self.tool(BuildStep::Unpack, unpack, &mut |_| {})?;
        fs::write(&complete, &self.recipe.sha256).map_err(EngineError::io("Writing", &complete))?;
        Ok(project)
    }

    fn download(&mut self, bin: &Path) -> Result<PathBuf, EngineError> {
        let folder = self.work.join("download");
        fs::create_dir_all(&folder).map_err(EngineError::io("Creating", &folder))?;
        let (name, version) = &self.recipe.package;
        let archive = folder.join(format!("{name}-{version}.tar.gz"));
        if archive.exists() {
            return Ok(archive);
        }
        // With the hash in the requirements file pip checks before it runs anything of the package.
        let requirements = folder.join("requirements.txt");
        fs::write(
            &requirements,
            format!("{name}=={version} --hash=sha256:{}\n", self.recipe.sha256),
        )
        .map_err(EngineError::io("Writing", &requirements))?;
        let mut fetch = quiet(&bin.join("pip").to_string_lossy());
        fetch
            .args([
                "download",
                "--disable-pip-version-check",
                "--no-input",
                "--no-deps",
                "--require-hashes",
            ])
            .args(["--no-binary", name, "-r"])
            .arg(&requirements)
            .arg("-d")
            .arg(&folder);
        self.tool(BuildStep::Download, fetch, &mut |_| {})?;
        if archive.exists() {
            Ok(archive)
        } else {
            Err(self.fault(BuildStep::Download, "no source package came"))
        }
    }

    fn compile(&mut self, bin: &Path, project: &Path, openssl: bool) -> Result<PathBuf, EngineError> {
        self.say(BuildStep::Configure, None);
        let build = self.work.join("build");
        let path = search_path(bin);
        let cmake = bin.join("cmake").to_string_lossy().into_owned();
        let mut configure = nice(&cmake);
        configure
            .env("PATH", &path)
            .arg("-S")
            .arg(project)
            .arg("-B")
            .arg(&build)
            .args(self.recipe.configure(openssl));
        self.tool(BuildStep::Configure, configure, &mut |_| {})?;

        self.say(BuildStep::Compile, None);
        // Not by `cmake --build`: that keeps a cancel from ninja, which would compile on.
        let mut compile = nice(&bin.join("ninja").to_string_lossy());
        compile
            .env("PATH", &path)
            .env_remove("NINJA_STATUS")
            .arg("-C")
            .arg(&build)
            .args(["-j", &jobs().to_string(), "llama-server"]);
        let (progress, done) = (self.progress, &Cell::new(self.done.get()));
        self.tool(BuildStep::Compile, compile, &mut |line| {
            let Some((step, of)) = process::count(line) else { return };
            let fraction = COMPILE_START + (COMPILE_END - COMPILE_START) * (step as f32 / of as f32);
            done.set(fraction.max(done.get()));
            progress(BuildProgress {
                step: BuildStep::Compile,
                fraction: done.get(),
                message: format!("{} ({step} of {of})", BuildStep::Compile.title()),
            });
        })?;
        self.done.set(done.get());
        Ok(build
            .join("bin")
            .join(format!("llama-server{}", std::env::consts::EXE_SUFFIX)))
    }

    fn smoke_test(&mut self, built: &Path) -> Result<(), EngineError> {
        self.say(BuildStep::SmokeTest, None);
        let output = Command::new(built)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .output();
        let output =
            output.map_err(|e| self.fault(BuildStep::SmokeTest, format!("the new program does not start ({e})")))?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() && text.contains(&self.recipe.build_number.to_string()) {
            return Ok(());
        }
        Err(self.fault(
            BuildStep::SmokeTest,
            format!("the new program does not report build {}", self.recipe.build_number),
        ))
    }

    /// Copies beside the destination and renames the whole folder, so that it is there complete or not at all.
    fn install(&mut self, built: &Path, program: &Path) -> Result<(), EngineError> {
        self.say(BuildStep::Install, None);
        let ready = self.work.join("ready");
        remove_tree(&ready)?;
        fs::create_dir_all(&ready).map_err(EngineError::io("Creating", &ready))?;
        if let Some(name) = program.file_name() {
            let copy = ready.join(name);
            fs::copy(built, &copy).map_err(EngineError::io("Copying", built))?;
            // On disk before it gets its name: a power cut must not leave an empty program that looks built.
            File::open(&copy)
                .and_then(|file| file.sync_all())
                .map_err(EngineError::io("Writing", &copy))?;
        }
        if let Some(folder) = program.parent() {
            remove_tree(folder)?;
            fs::rename(&ready, folder).map_err(EngineError::io("Installing into", folder))?;
        }
        self.done.set(1.0);
        self.say(BuildStep::Install, None);
        // 600 MB of objects; what cannot be removed is only waste.
        if let Err(error) = fs::remove_dir_all(&self.work) {
            tracing::warn!(%error, "the scratch folder of the engine build could not be removed");
        }
        Ok(())
    }
}

fn search_path(first: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_owned()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap_or(rest)
}

fn has_openssl() -> bool {
    let include = Command::new("cc")
        .args(["-E", "-x", "c", "-include", "openssl/ssl.h", "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    include.is_ok_and(|status| status.success())
}

/// One compiler per processor, as far as memory goes.
fn jobs() -> u64 {
    let hardware = Hardware::new();
    let by_memory = (hardware.memory().available / COMPILER_BYTES).max(1);
    (hardware.cores() as u64).min(by_memory)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(process::hex(&hash.finalize()))
}
