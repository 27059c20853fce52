//! Everything that is special to an engine: where it is (or how it is built or installed), which flags it has, with which
//! arguments and environment a model is started, what its output lines mean, and why it failed. [`Program`] is the one face
//! of all of them: `llama-server`, our [`speech`] program, commands of the user's.
//!
//! This is the only crate that knows an engine's flag. Must not know: HTTP routes and dialects, queues and
//! eviction, how a process is spawned and ended (that is `supervisor`).
//!
//! One exception to "the supervisor owns all children": [`Engines::llama_server`] runs `llama-server --version`,
//! `--list-devices` and `--help` for at most some seconds, [`build`] runs the compiler, and [`speech`] asks a Python for its
//! version and runs `pip` or `uv`; all end with their caller.
//!
//! ```
//! use engines::{MemoryBudget, plan};
//! # let entry: domain::ModelEntry = serde_json::from_value(serde_json::json!({
//! #     "key": "m", "slug": "m", "engine": "llama-server", "source": "folder", "path": "/m.gguf", "parts": [],
//! #     "mmproj": null, "size": 1, "modified": 0, "publisher": "", "indexed_path": "", "display_name": "m",
//! #     "description": null, "digest": "", "aliases": [], "capabilities": ["completion"],
//! #     "facts": {"context_length": 32768, "kv_bytes_per_token": 1024}, "launch": {}, "keep_alive": null,
//! #     "pinned": false, "unlisted": false
//! # })).unwrap();
//! let launch = plan(&entry, &entry.launch, &MemoryBudget { ram_available: 16 << 30, vram_free: 0 });
//! assert_eq!((launch.context, launch.parallel), (8192, 4));
//! ```

pub mod build;
mod custom;
mod error;
mod failure;
mod launch;
mod locate;
mod plan;
mod probe;
mod process;
mod program;
#[cfg(test)]
mod property_tests;
mod quantize;
mod reserved;
pub mod speech;
mod start;
#[cfg(test)]
mod test_entry;

pub use custom::{CustomProgram, CustomSettings};
pub use error::EngineError;
pub use failure::{FailureCause, FailurePhase, failure, failure_cause, start_failure};
pub use launch::{Launch, launch};
pub use locate::{EngineSettings, Engines, Source};
pub use plan::{MemoryBudget, degrade, heeded, memory_needed, plan};
pub use probe::EngineBinary;
pub use program::{INSTALLED, Program, ProgramWatch, Pulse};
pub use quantize::{quantize, quantize_progress, quantizer};
pub use reserved::{reserved_env, reserved_flag, reserved_setting_env};
pub use start::{ReadyFacts, StartSignal, StartWatch, log_line};
