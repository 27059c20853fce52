//! Asks a llama-server what it is. Runs it three times for some milliseconds; the answers are kept on disk until the file
//! changes or the machine restarts (a new driver brings new devices).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::EngineError;
use crate::launch::inherited_environment;

/// A llama-server program and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct EngineBinary {
    /// The program.
    pub path: PathBuf,
    /// As printed, for example `0.6.0-dev`; only the build number for programs older than that scheme.
    pub version: String,
    /// Upstream build number, for example 11549.
    pub build: Option<u32>,
    /// Commit as printed.
    pub commit: Option<String>,
    /// Devices it can use besides the CPU, as printed, for example `CUDA0: NVIDIA H200 (…)`.
    pub devices: Vec<String>,
    /// Every flag of `--help`, with its dashes. Empty when the help text could not be read.
    pub flags: BTreeSet<String>,
}

impl EngineBinary {
    /// Does it know this flag? A program whose help could not be read is taken for a current one.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.is_empty() || self.flags.contains(flag)
    }
}

/// What a file was when it was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    path: PathBuf,
    size: u64,
    modified_ns: u64,
    boot: String,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            size: meta.len(),
            modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            boot: boot.trim().to_owned(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Cached {
    stamp: Stamp,
    binary: EngineBinary,
}

/// Programs kept in the file: one machine has a few engines, not many.
const MAX_CACHED: usize = 8;

fn cache_file(cache_dir: &Path) -> PathBuf {
    cache_dir.join("engine-probe.json")
}

fn read_cache(cache_dir: &Path) -> Vec<Cached> {
    // Missing, unreadable and corrupt are the same: probe again.
    fs::read(cache_file(cache_dir))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

pub(crate) fn cached(cache_dir: &Path, stamp: &Stamp) -> Option<EngineBinary> {
    read_cache(cache_dir)
        .into_iter()
        .find(|entry| entry.stamp == *stamp)
        .map(|entry| entry.binary)
}

/// Keeps a probe. A cache that cannot be written only costs the next start some milliseconds.
pub(crate) fn remember(cache_dir: &Path, stamp: &Stamp, binary: &EngineBinary) -> io::Result<()> {
    let mut entries = read_cache(cache_dir);
    entries.retain(|entry| entry.stamp.path != stamp.path && entry.stamp.path.exists());
    entries.insert(
        0,
        Cached {
            stamp: stamp.clone(),
            binary: binary.clone(),
        },
    );
    entries.truncate(MAX_CACHED);
    fs::create_dir_all(cache_dir)?;
    // Written beside and renamed: two processes may probe at once.
    let temporary = cache_dir.join(format!("engine-probe.{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(&entries)?)?;
    fs::rename(&temporary, cache_file(cache_dir)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Longest output read from a probed program.
const MAX_OUTPUT: u64 = 1 << 20;

/// Runs the program and reads what it says about itself.
pub(crate) async fn probe(path: &Path, limit: Duration) -> Result<EngineBinary, EngineError> {
    let fault = |reason: String| EngineError::Probe {
        path: path.to_owned(),
        reason,
    };
    let (version, devices, help) = tokio::join!(
        run(path, "--version", limit),
        run(path, "--list-devices", limit),
        run(path, "--help", limit)
    );
    let version = version.map_err(fault)?;
    let Some((name, build, commit)) = parse_version(&version) else {
        let said = version
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty())
            .unwrap_or("nothing");
        let said = telemetry::clean_line(said.as_bytes());
        return Err(fault(format!(
            "it printed no version (it said: {})",
            said.chars().take(200).collect::<String>()
        )));
    };
    Ok(EngineBinary {
        path: path.to_owned(),
        version: name,
        build,
        commit,
        devices: devices.map(|text| parse_devices(&text)).unwrap_or_default(),
        flags: help.map(|text| parse_flags(&text)).unwrap_or_default(),
    })
}

async fn run(path: &Path, argument: &str, limit: Duration) -> Result<String, String> {
    let mut child = Command::new(path)
        .arg(argument)
        .env_clear()
        .envs(inherited_environment(path))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("it could not be started ({error})"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (stdout, stderr) = tokio::join!(read_all(stdout), read_all(stderr));
        // Whoever writes more than the limit does not end by itself.
        let _ = child.start_kill();
        let _ = child.wait().await;
        format!("{stdout}\n{stderr}")
    };
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| format!("it did not answer {argument} within {} seconds", limit.as_secs_f32()))
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A read fault ends the text early; the parsers find what is there.
        let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `version: 0.6.0-dev (build 11549, commit abc)`, before that `version: 9439 (47f6423ed)`.
fn parse_version(text: &str) -> Option<(String, Option<u32>, Option<String>)> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("version:"))?
        .trim();
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    if name.is_empty() {
        return None;
    }
    let inner = rest.trim().trim_start_matches('(').trim_end_matches(')');
    if let Some(inner) = inner.strip_prefix("build ") {
        let (build, commit) = inner
            .split_once(", commit ")
            .map_or((inner, None), |(b, c)| (b, Some(c.to_owned())));
        return Some((name.to_owned(), build.trim().parse().ok(), commit));
    }
    Some((
        name.to_owned(),
        name.parse().ok(),
        (!inner.is_empty()).then(|| inner.to_owned()),
    ))
}

fn parse_devices(text: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| !line.trim_start().starts_with("Available devices"))
        .skip(1)
        .take_while(|line| line.starts_with(char::is_whitespace) && !line.trim().is_empty())
        .map(|line| telemetry::clean_line(line.trim().as_bytes()))
        .filter(|line| line != "(none)")
        .collect()
}

/// The flags at the start of each paragraph: `-ub,   --ubatch-size N   physical …`.
fn parse_flags(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('-') && !line.starts_with("-----"))
        .flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')))
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_old_and_new() {
        let check = |text: &str, name: &str, build: Option<u32>, commit: Option<&str>| {
            assert_eq!(
                parse_version(text),
                Some((name.to_owned(), build, commit.map(str::to_owned))),
                "{text}"
            );
        };
        check(
            "version: 0.6.0-dev (build 11549, commit xllamacpp-2026.10.11549)\nbuilt with GNU 12.2.0 for Linux x86_64\n",
            "0.6.0-dev",
            Some(11549),
            Some("xllamacpp-2026.10.11549"),
        );
        check(
            "ggml_cuda_init: found 1 CUDA devices:\nversion: 9439 (47f6423ed)\n",
            "9439",
            Some(9439),
            Some("47f6423ed"),
        );
        check("version: 1.0.0", "1.0.0", None, None);
        check("version: 0.6.0-dev (build x)", "0.6.0-dev", None, None);
        for nonsense in ["", "hello", "version:", "my version: 3"] {
            assert_eq!(parse_version(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn devices() {
        assert_eq!(parse_devices("Available devices:\n  (none)\n"), Vec::<String>::new());
        assert_eq!(
            parse_devices(
                "load: x\nAvailable devices:\n  CUDA0: NVIDIA H200 (143156 MiB, 142000 MiB free)\n  Vulkan0: A\n\nbye"
            ),
            ["CUDA0: NVIDIA H200 (143156 MiB, 142000 MiB free)", "Vulkan0: A"]
        );
        assert_eq!(parse_devices("error"), Vec::<String>::new());
    }

    #[test]
    fn flags() {
        let help = "----- common params -----\n\n-h,    --help, --usage                  print usage and exit\n\
            -kvo,  --kv-offload, -nkvo, --no-kv-offload\n                                        whether --not-a-flag\n\
            -fa,   --flash-attn [on|off|auto]       set (default: -1)\n--log-jsonl, --no-log-jsonl             Log\n";
        let flags = parse_flags(help);
        let expected = [
            "-h",
            "--help",
            "--usage",
            "-kvo",
            "--kv-offload",
            "-nkvo",
            "--no-kv-offload",
            "-fa",
            "--flash-attn",
            "--log-jsonl",
            "--no-log-jsonl",
        ];
        assert_eq!(flags, expected.iter().map(|f| (*f).to_owned()).collect());
    }

    #[test]
    fn cache_survives_corruption_and_forgets_changed_files() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let program = dir.path().join("llama-server");
        fs::write(&program, "one").unwrap();
        let stamp = Stamp::of(&program).unwrap();
        let binary = EngineBinary {
            path: program.clone(),
            version: "1".into(),
            ..EngineBinary::default()
        };
        assert_eq!(cached(&cache, &stamp), None);
        remember(&cache, &stamp, &binary).unwrap();
        assert_eq!(cached(&cache, &stamp), Some(binary.clone()));
        fs::write(&program, "other size").unwrap();
        let changed = Stamp::of(&program).unwrap();
        assert_ne!(changed, stamp);
        assert_eq!(cached(&cache, &changed), None);
        for garbage in ["", "{", "[{\"stamp\":1}]", "\u{0}\u{0}"] {
            fs::write(cache_file(&cache), garbage).unwrap();
            assert_eq!(cached(&cache, &changed), None, "{garbage}");
            remember(&cache, &changed, &binary).unwrap();
            assert_eq!(cached(&cache, &changed), Some(binary.clone()), "{garbage}");
        }
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "no temporary file stays");
    }
}
