//! Owns child processes: starts them in their own group, drains their output, notices their end, stops the whole tree,
//! and leaves nothing behind whatever happens to the app (promises R1–R4, R10, S4, S9, S10 of the reliability guide).
//!
//! Must not know: models, engines, ports, flags. It knows commands.
//!
//! How a child can outlive nobody:
//! - every fork happens on one thread that lives as long as the app, because the Linux parent-death signal follows the
//!   *thread* that forked;
//! - the child's stdin is a pipe we hold: an engine that reads it ends at EOF on any system;
//! - one owner task per child holds the process handle; [`Child`] is only a remote control, so dropping the last one
//!   stops nothing and leaks nothing: [`Supervisor::shutdown`] ends every child;
//! - a state file per child lets the next start of the app recognise and remove what an earlier life left.
//!
//! Proven by tests on Linux. The macOS and Windows code compiles conditionally and is unproven: macOS has neither
//! parent-death signal nor leftover removal (stdin EOF is the only protection there), Windows relies on a job object.

mod child;
mod error;
mod leftovers;
mod output;
mod proc_facts;
mod spawn;
mod spawner;
mod spec;
mod supervisor;

pub use child::Child;
pub use error::SupervisorError;
pub use spec::{ChildSpec, ExitReport, INSTANCE_TAG_VARIABLE, OutputLine, OutputStream, StopPlan};
pub use supervisor::{LineDecoder, Supervisor, SupervisorSettings};
