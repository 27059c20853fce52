use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{INSTANCE_TAG_VARIABLE, SupervisorError, proc_facts, spawn};

/// How long the start waits for killed leftovers to disappear; memory they held is needed by new children.
const GONE_LIMIT: Duration = Duration::from_secs(2);

/// What is remembered about a running child, one file each (promise R3). No port: the engine picks its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChildState {
    /// Random, also in the child's environment.
    tag: String,
    label: String,
    pid: u32,
    /// Clock ticks since boot.
    start_time: u64,
    exe: PathBuf,
    owner_pid: u32,
    owner_start_time: u64,
}

/// The folder with the state files. Several instances of the app may share it: every file names its owner.
#[derive(Debug, Clone)]
pub(crate) struct StateFolder {
    folder: PathBuf,
}

impl StateFolder {
    pub(crate) fn open(state_dir: &Path) -> Result<Self, SupervisorError> {
        let folder = state_dir.join("children");
        private_folder(&folder).map_err(|source| SupervisorError::Folder {
            path: folder.clone(),
            source,
        })?;
        Ok(Self { folder })
    }

    /// Remembers a child. Atomic; not synced to the disk, since no process survives a crash of the system.
    pub(crate) fn write(&self, tag: &str, label: &str, pid: u32) -> io::Result<()> {
        let owner_pid = std::process::id();
        let facts = (
            proc_facts::start_time(pid),
            proc_facts::executable(pid),
            proc_facts::start_time(owner_pid),
        );
        let (Some(start_time), Some(exe), Some(owner_start_time)) = facts else {
            // Ended already, or a system without /proc: there is nothing a later life could recognise.
            return Ok(());
        };
        let state = ChildState {
            tag: tag.to_owned(),
            label: label.to_owned(),
            pid,
            start_time,
            exe,
            owner_pid,
            owner_start_time,
        };
        let partial = self.folder.join(format!("{tag}.partial"));
        private_write(&partial, &serde_json::to_vec(&state)?)?;
        std::fs::rename(&partial, self.path(tag))
    }

    pub(crate) fn remove(&self, tag: &str) {
        // Missing is as good as removed; anything else is tried again at the next start.
        let _ = std::fs::remove_file(self.path(tag));
    }

    fn path(&self, tag: &str) -> PathBuf {
        self.folder.join(format!("{tag}.json"))
    }

    /// Kills what an earlier life of the app left, and nothing else. Returns the labels of what was killed.
    ///
    /// A process is ours when PID, start time, program and tag all match and the app that started it is gone. A child of
    /// such a process (same group, same tag) is ours too. Everything else is left alone, and its file is dropped.
    pub(crate) fn reap(&self) -> Vec<String> {
        let mut killed = Vec::new();
        let mut waiting: Vec<(u32, u64)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(state) = read(&path) else {
                remove_if_stale(&path);
                continue;
            };
            if is_process(state.owner_pid, state.owner_start_time) {
                continue;
            }
            let found = leftover_processes(&state);
            if !found.is_empty() {
                killed.push(state.label.clone());
                waiting.extend(found);
            }
            let _ = std::fs::remove_file(&path);
        }
        let start = Instant::now();
        while waiting.iter().any(|&(pid, start_time)| is_process(pid, start_time)) && start.elapsed() < GONE_LIMIT {
            // They are not our children, so no event tells of their end.
            std::thread::sleep(Duration::from_millis(5));
        }
        killed
    }
}

/// Kills the processes of one leftover and returns PID and start time of each.
#[cfg(target_os = "linux")]
fn leftover_processes(state: &ChildState) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for pid in proc_facts::all_pids() {
        let Some(start_time) = proc_facts::start_time(pid) else {
            continue;
        };
        let is_child = pid == state.pid
            && start_time == state.start_time
            && proc_facts::executable(pid).as_ref() == Some(&state.exe);
        // A grandchild the parent-death signal did not reach: in the dead child's group, which nobody else can have
        // entered, and with the tag of 128 random bits.
        let is_grandchild = pid != state.pid && proc_facts::group(pid) == Some(state.pid);
        if (is_child || is_grandchild) && proc_facts::has_env(pid, INSTANCE_TAG_VARIABLE, &state.tag) {
            spawn::kill_process(pid);
            found.push((pid, start_time));
        }
    }
    found
}

#[cfg(not(target_os = "linux"))]
fn leftover_processes(_state: &ChildState) -> Vec<(u32, u64)> {
    Vec::new()
}

/// The process exists, is this very one, and is not merely waiting to be reaped.
fn is_process(pid: u32, start_time: u64) -> bool {
    proc_facts::start_time(pid) == Some(start_time) && !proc_facts::is_zombie(pid)
}

fn read(path: &Path) -> Option<ChildState> {
    if path.extension()? != "json" {
        return None;
    }
    let state: ChildState = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    // The tag is the file's name: a file copied or edited into something else proves nothing.
    (path.file_stem()? == state.tag.as_str() && state.pid > 1).then_some(state)
}

/// Half-written and foreign files go once they are old; a young `.partial` may be another instance's.
fn remove_if_stale(path: &Path) {
    let age = path
        .metadata()
        .and_then(|facts| facts.modified())
        .ok()
        .and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age > Duration::from_hours(1)) {
        let _ = std::fs::remove_file(path);
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn private_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, bytes)
}
