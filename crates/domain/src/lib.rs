//! The vocabulary every other crate shares: names, facts, states, requests, events and the one boundary error.
//!
//! Must not know: sockets, files, clocks, async, any wire dialect. Values in, values out.
//!
//! ```
//! use domain::KeepAlive;
//! assert_eq!(KeepAlive::parse_go("5m").unwrap(), KeepAlive::For(std::time::Duration::from_secs(300)));
//! ```

pub mod audio;
pub mod chat;
mod error;
mod event;
mod ids;
mod job;
mod keep_alive;
mod launch;
mod model;
mod redact;
mod registry_name;
mod state;
mod voices;
pub mod whisper;

pub use audio::{TranscriptionState, TranscriptionView};
pub use error::{ErrorKind, RunnerError};
pub use event::{Event, EventKind, Level, LogLine, LogStream};
pub use ids::{InstanceId, ModelKey, RequestId, is_reserved_name};
pub use job::{JobFile, JobId, JobKind, JobState, JobView};
pub use keep_alive::{DurationError, KeepAlive, format_go_duration, parse_go_duration};
pub use launch::{EngineMode, LaunchOptions, LoadedLaunch};
pub use model::{Capabilities, Capability, EngineKind, ModelEntry, ModelFacts, ModelProfile, ModelSource};
pub use redact::without_paths;
pub use registry_name::{OLLAMA_VERSION, RegistryName};
pub use state::{ActiveRequest, FailureCode, FailureReport, InstanceView, ModelState, RequestPhase};
pub use voices::VoicePack;
pub use whisper::KnownWhisper;
