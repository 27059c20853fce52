//! Jobs: what was asked for, kept until it is there.
//!
//! One target has one unfinished job; who asks again joins it. A job's state is in the database before anybody sees it
//! change, so that a killed program comes back to what it last said.

mod job;
mod kept;
mod meter;
mod queue;
mod run;
mod slots;

pub use job::{Interest, Job};
pub use queue::{DownloadDeps, Downloads, Landed};
