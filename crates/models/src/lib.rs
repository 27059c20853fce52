//! The model library: scans folders for GGUF files, watches them, gives every model one entry and finds the entry a
//! caller means by any of its names.
//!
//! Must not know: engines, processes, HTTP, the configuration file. It reads model files (through `gguf`) and writes
//! nothing but its own index.

mod catalog;
mod error;
mod registry;
mod settings;
mod show;

pub use catalog::Catalog;
pub use error::ModelsError;
pub use registry::{Problem, Registry, ScanReport};
pub use settings::{EntrySettings, RegistrySettings};
pub use show::{ShowDetails, TensorView, details};
