//! Facts about this machine: memory, processor, disks, graphics cards.
//!
//! Must not know: models, engines, settings. Every source is optional: a machine without any of the files read here
//! still gets an answer. Nothing is refreshed that was not asked for.
//!
//! ```
//! let hardware = hardware::Hardware::new();
//! assert!(hardware.cores() >= 1);
//! assert!(hardware.memory().total >= hardware.memory().available);
//! ```

mod allocator;
mod gpu;
mod machine;

pub use allocator::give_back_memory;
pub use gpu::Gpu;
pub use machine::{Hardware, Memory, Platform};
