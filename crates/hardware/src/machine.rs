use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sysinfo::System;

use crate::{Gpu, gpu};

/// Main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Memory {
    /// Installed, or the limit of the container.
    pub total: u64,
    /// Can be used without swapping.
    pub available: u64,
}

/// What this machine is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Platform {
    /// `linux`, `macos`, `windows`.
    pub os: &'static str,
    /// `x86_64`, `aarch64`.
    pub arch: &'static str,
    /// For people, for example `Linux (Debian GNU/Linux 12)`.
    pub os_name: String,
    /// Kernel version; empty when unknown.
    pub kernel: String,
    /// Processor name; empty when unknown.
    pub cpu: String,
}

/// Source of machine facts; clones share the state that CPU load is measured against.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Absent where the operating system gives nothing; every answer has a fall-back.
    system: Arc<Mutex<Option<System>>>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self::new()
    }
}

impl Hardware {
    /// Reads only the processor times, so that the first [`Hardware::cpu_percent`] has something to compare with.
    pub fn new() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        Self {
            system: Arc::new(Mutex::new(system)),
        }
    }

    fn system(&self) -> MutexGuard<'_, Option<System>> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mean load of all processors since the last call, 0 to 100; 0 when unknown.
    pub fn cpu_percent(&self) -> f32 {
        let mut guard = self.system();
        let Some(system) = guard.as_mut() else { return 0.0 };
        system.refresh_cpu_usage();
        let percent = system.global_cpu_usage();
        if percent.is_finite() {
            percent.clamp(0.0, 100.0)
        } else {
            0.0
        }
    }

    /// Main memory now: the smaller of the machine's and the container's (cgroup) where there is a limit. Zeros when
    /// unknown.
    pub fn memory(&self) -> Memory {
        let mut guard = self.system();
        let Some(system) = guard.as_mut() else {
            return Memory::default();
        };
        system.refresh_memory();
        let machine = Memory {
            total: system.total_memory(),
            available: system.available_memory(),
        };
        match system.cgroup_limits() {
            Some(limits) => within(machine, limits.total_memory, limits.free_memory),
            None => within(machine, 0, 0),
        }
    }

    /// Processors this process may use; at least 1.
    pub fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Free bytes for us on the disk that holds this path or its nearest existing parent. `None` when unknown.
    pub fn disk_free(&self, path: &Path) -> Option<u64> {
        let existing = path.ancestors().find_map(|p| p.canonicalize().ok())?;
        free_space(&existing)
    }

    /// Graphics cards, found without any vendor library.
    pub fn gpus(&self) -> Vec<Gpu> {
        gpu::all(Path::new("/"))
    }

    /// What this machine is.
    pub fn platform(&self) -> Platform {
        let guard = self.system();
        let cpu = guard
            .as_ref()
            .and_then(|system| system.cpus().first())
            .map(|cpu| cpu.brand().trim().to_owned());
        Platform {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            os_name: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            kernel: System::kernel_version().unwrap_or_default(),
            cpu: cpu.unwrap_or_default(),
        }
    }
}

/// A cgroup limit counts only where it is one: without a limit the kernel reports 0 or a number beyond the machine.
fn within(machine: Memory, limit_total: u64, limit_free: u64) -> Memory {
    if limit_total == 0 || limit_total >= machine.total {
        return Memory {
            total: machine.total,
            available: machine.available.min(machine.total),
        };
    }
    Memory {
        total: limit_total,
        available: machine.available.min(limit_free).min(limit_total),
    }
}

/// Asks the file system itself: lists of mounts are hidden or misleading inside containers.
#[cfg(unix)]
fn free_space(existing: &Path) -> Option<u64> {
    let facts = rustix::fs::statvfs(existing).ok()?;
    Some(facts.f_bavail * facts.f_frsize)
}

#[cfg(not(unix))]
fn free_space(existing: &Path) -> Option<u64> {
    let disks = sysinfo::Disks::new_with_refreshed_list().ok()?;
    disks
        .iter()
        .filter(|disk| existing.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(sysinfo::Disk::available_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_limits_only_lower() {
        let machine = Memory {
            total: 100,
            available: 80,
        };
        for (total, free, expected) in [
            (0, 0, machine),
            (u64::MAX, u64::MAX, machine),
            (100, 10, machine),
            (
                50,
                20,
                Memory {
                    total: 50,
                    available: 20,
                },
            ),
            (
                50,
                90,
                Memory {
                    total: 50,
                    available: 50,
                },
            ),
        ] {
            assert_eq!(within(machine, total, free), expected, "{total} {free}");
        }
    }

    #[test]
    fn this_machine_has_memory_processors_and_a_disk() {
        let hardware = Hardware::new();
        let memory = hardware.memory();
        assert!(memory.total > 64 << 20, "{memory:?}");
        assert!(memory.available <= memory.total, "{memory:?}");
        assert!(hardware.cores() >= 1);
        assert!((0.0..=100.0).contains(&hardware.cpu_percent()));
        let platform = hardware.platform();
        assert_eq!(platform.os, std::env::consts::OS);
        assert!(!platform.os_name.is_empty());
    }

    #[test]
    fn disk_of_a_path_that_does_not_exist_yet_is_that_of_its_parent() {
        let hardware = Hardware::new();
        let here = std::env::temp_dir();
        let free = hardware.disk_free(&here.join("does/not/exist"));
        assert!(free.is_some_and(|bytes| bytes > 0));
    }
}
