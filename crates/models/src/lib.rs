//! The model library: scans folders for GGUF files and speech models, watches them, gives every model one entry and finds the entry a
//! caller means by any of its names.
//!
//! Must not know: engines, processes, HTTP, the configuration file. It reads model files (through `gguf`) and writes
//! nothing but its own index. Stores in Ollama's layout, ours too, are only read.
//!
//! A scan goes `scan` (list files) → `index` (what was read before) → `record` (read headers) → `assemble` (split sets,
//! projectors, `names`) → `catalog` (look-up). Models of stores in Ollama's layout come from `stored`
//! instead of file names. `speech` knows folders of speech-to-text models and `ctranslate` their weights' file; `speech_names` answers
//! for names in audio requests. `registry` owns the one thread that does it and `watch`es the folders.
//!
//! ```no_run
//! # async fn example() -> Result<(), models::ModelsError> {
//! let settings = models::RegistrySettings { dirs: vec!["/data/models".into()], ..Default::default() };
//! let registry = models::Registry::open(settings, telemetry::EventBus::new())?;
//! if let Some(model) = registry.catalog().resolve("llama3.2:latest") {
//!     println!("{} has {} parameters", model.display_name, model.facts.parameters);
//! }
//! registry.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod assemble;
mod catalog;
mod ctranslate;
mod entry;
mod error;
mod index;
mod inspect;
mod instances;
mod library;
mod names;
mod projector;
mod record;
mod registry;
mod scan;
mod settings;
mod show;
mod speech;
mod speech_names;
mod stored;
mod watch;

pub use catalog::Catalog;
pub use error::ModelsError;
pub use inspect::{FileKind, inspect};
pub use registry::{Problem, Registry, ScanReport};
pub use settings::{EntrySettings, RegistrySettings, VoiceEngine};
pub use show::{ShowDetails, TensorView, details};
pub use speech::{SpeechFolders, speech_folders};
pub use speech_names::{KnownSpeech, SpeechName};
