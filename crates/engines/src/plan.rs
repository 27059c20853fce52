use domain::{LaunchOptions, LoadedLaunch, ModelEntry};

/// Memory that a new instance may plan with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryBudget {
    /// Available main memory, in bytes.
    pub ram_available: u64,
    /// Free GPU memory, in bytes; 0 without a usable GPU.
    pub vram_free: u64,
}

/// Resolves every "auto".
pub fn plan(_entry: &ModelEntry, options: &LaunchOptions, _budget: &MemoryBudget) -> LoadedLaunch {
    LoadedLaunch { options: options.clone(), ..LoadedLaunch::default() }
}
