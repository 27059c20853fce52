use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sysinfo::{Disks, System};

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
    /// For people, for example `Debian GNU/Linux 12`.
    pub os_name: String,
    /// Kernel version.
    pub kernel: String,
    /// Processor name.
    pub cpu: String,
}

/// Source of machine facts; clones share the state that CPU load is measured against.
#[derive(Debug, Clone)]
pub struct Hardware {
    system: Arc<Mutex<System>>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self::new()
    }
}

impl Hardware {
    /// Reads nothing yet but the processor times, so that the first [`Hardware::cpu_percent`] has a start.
    pub fn new() -> Self {
        let mut system = System::new();
        system.refresh_cpu_usage();
        Self { system: Arc::new(Mutex::new(system)) }
    }

    fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mean load of all processors since the last call, 0 to 100.
    pub fn cpu_percent(&self) -> f32 {
        let mut system = self.system();
        system.refresh_cpu_usage();
        let percent = system.global_cpu_usage();
        if percent.is_finite() { percent.clamp(0.0, 100.0) } else { 0.0 }
    }

    /// Main memory now. The smaller of the machine's and of the container's (cgroup) where there is a limit.
    pub fn memory(&self) -> Memory {
        let mut system = self.system();
        system.refresh_memory();
        let (mut total, mut available) = (system.total_memory(), system.available_memory());
        if let Some(limits) = system.cgroup_limits()
            && limits.total_memory > 0
        {
            total = total.min(limits.total_memory);
            available = available.min(limits.free_memory);
        }
        Memory { total, available: available.min(total) }
    }

    /// Processors this process may use; at least 1.
    pub fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Free bytes for us on the disk that holds this path (or its nearest existing parent).
    pub fn disk_free(&self, path: &Path) -> Option<u64> {
        let existing = path.ancestors().find_map(|p| p.canonicalize().ok())?;
        let disks = Disks::new_with_refreshed_list();
        disks
            .iter()
            .filter(|disk| existing.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().as_os_str().len())
            .map(sysinfo::Disk::available_space)
    }

    /// Graphics cards found without any vendor library.
    pub fn gpus(&self) -> Vec<Gpu> {
        gpu::all()
    }

    /// What this machine is.
    pub fn platform(&self) -> Platform {
        let mut system = self.system();
        if system.cpus().is_empty() {
            system.refresh_cpu_usage();
        }
        Platform {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            os_name: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.into()),
            kernel: System::kernel_version().unwrap_or_default(),
            cpu: system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        }
    }
}
