//! One instance per data folder (promise C6): an advisory lock that the system frees when its owner dies in whatever way,
//! so a stale one needs no clean-up.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::StartError;

/// Who holds a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Where its management listener answers.
    pub management: Option<SocketAddr>,
}

/// Held for the life of the application.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    file: File,
}

const FILE: &str = "instance.lock";
/// A process killed a moment ago may have its lock a little longer, while the system takes it apart; and the command line
/// takes it for an instant to see whether it is free.
const PATIENCE: Duration = Duration::from_secs(2);

impl InstanceLock {
    /// Takes the lock of a data folder.
    pub(crate) fn take(data: &Path) -> Result<Self, StartError> {
        let folder_error = |source| StartError::Folder {
            path: data.to_owned(),
            source,
        };
        let file = open(data).map_err(folder_error)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    let lock = Self { file };
                    lock.announce(None);
                    return Ok(lock);
                }
                Err(TryLockError::Error(source)) => return Err(folder_error(source)),
                Err(TryLockError::WouldBlock) => {
                    let owner = read_owner(&file);
                    let alive = owner.as_ref().is_some_and(|owner| is_running(owner.pid));
                    if alive || started.elapsed() > PATIENCE {
                        return Err(StartError::AlreadyRunning {
                            data: data.to_owned(),
                            owner,
                        });
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Writes down who holds the lock, for messages and for the command line to find the server.
    pub(crate) fn announce(&self, management: Option<SocketAddr>) {
        let owner = Owner {
            pid: std::process::id(),
            management,
        };
        let text = serde_json::to_vec(&owner).unwrap_or_default();
        let mut file = &self.file;
        // The lock is what counts; a full disk must not keep the program from starting.
        let written = file
            .rewind()
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.write_all(&text));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write the instance file");
        }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Otherwise the next reader might take another process with our number for the owner.
        let _ = self.file.set_len(0);
    }
}

/// The LlamaRunner that uses a data folder now, if one does.
pub fn running_instance(data: &Path) -> Option<Owner> {
    let file = File::options().read(true).write(true).open(data.join(FILE)).ok()?;
    // Shared, so that several lookers do not take each other for the owner.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_owner(&file),
        _ => None,
    }
}

fn open(data: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(data.join(FILE))
}

fn read_owner(mut file: &File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(target_os = "linux")]
fn is_running(pid: u32) -> bool {
    // A zombie holds no lock; it is as good as gone.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

#[cfg(not(target_os = "linux"))]
fn is_running(_pid: u32) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_freed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(running_instance(folder.path()), None);
        let lock = InstanceLock::take(folder.path()).unwrap();
        let address: SocketAddr = "127.0.0.1:5800".parse().unwrap();
        lock.announce(Some(address));
        let owner = Owner {
            pid: std::process::id(),
            management: Some(address),
        };
        assert_eq!(running_instance(folder.path()), Some(owner));
        let error = InstanceLock::take(folder.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}, http://127.0.0.1:5800/ui/", std::process::id())),
            "{text}"
        );
        assert_eq!(error.exit_code(), 1);
        drop(lock);
        assert_eq!(running_instance(folder.path()), None);
        InstanceLock::take(folder.path()).unwrap();
    }

    #[test]
    fn exactly_one_of_many_wins() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..100 {
            let barrier = std::sync::Barrier::new(4);
            let winners: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            InstanceLock::take(folder.path()).ok()
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1);
        }
    }
}
