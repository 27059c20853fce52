//! Puts the parts together: reads the configuration, starts the supervisor, the model library, the router and the
//! listeners in the right order, applies changes of the configuration while running, and ends everything in order.
//!
//! Must not know: windows, terminals, how a command line looks. Both shells (`headless`, `src-tauri`) use this crate and
//! nothing below it.

mod builtin;
mod cleaning;
mod discovery_files;
mod doctor;
mod engine;
mod error;
mod handle;
mod instance_lock;
mod listeners;
mod places;
mod ready;
mod reload;
mod serve_flags;
mod settings;
mod start;
mod voices;

pub use config as settings_file;
pub use doctor::{Check, Doctor, Outcome, doctor};
pub use domain::VoicePack;
pub use engine::{BuildError, EngineInfo, build_engine, engine_info, install_speech};
pub use engines::build::BuildProgress;
pub use engines::speech::{InstallProgress, SpeechInfo, SpeechState};
pub use error::StartError;
pub use handle::AppHandle;
pub use http_api::ROUTES;
pub use instance_lock::{Owner, running_instance};
pub use places::Places;
pub use ready::{ReadyListeners, ReadyProblem, ReadyReport};
pub use serve_flags::ServeFlags;
pub use start::{StartOptions, config_overrides, engine_rules, start};
pub use voices::{VoicePackInfo, install_voices, voice_packs};

/// The product's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The runtime both shells use. Two workers: the engine needs the cores (performance guide 4).
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("llama-runner")
        .enable_all()
        .build()
}
