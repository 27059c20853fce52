//! Jobs: what was asked for, kept until it is there.

mod job;
mod queue;

pub use job::{Interest, Job};
pub use queue::{DownloadDeps, Downloads, Landed};
