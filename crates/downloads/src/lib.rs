//! Fetches model files: names of three sources become files with addresses and hashes, files become bytes on disk that are
//! verified before they are visible, and jobs make all of it survive pauses, restarts and crashes.
//!
//! Layers, each unaware of the ones above: `http` (one client, redirects by hand, private addresses refused), `transfer`
//! (one file: ranged parts, resume, hash), `sources` (name → [`Plan`]), `jobs` (queue, persistence, events).
//!
//! Must not know: dialects, the router, engines.
//!
//! ```
//! use downloads::paths;
//! // A name from outside never chooses a path.
//! let root = std::path::Path::new("/models");
//! assert!(paths::under(root, "org/repo/model.gguf").is_ok());
//! assert!(paths::under(root, "../model.gguf").is_err());
//! ```

mod error;
pub mod http;
mod jobs;
pub mod paths;
mod plan;
pub mod push;
mod removal;
mod settings;
mod source;
pub mod sources;
mod transfer;

pub use error::DownloadError;
pub use jobs::{DownloadDeps, Downloads, Interest, Job, Landed};
pub use plan::{Finish, Plan, PlannedFile};
pub use removal::remove_files;
pub use settings::{DownloadSettings, Tuning};
pub use source::Source;
pub use sources::{Origin, remove_speech_model};
pub use transfer::DiskFree;
