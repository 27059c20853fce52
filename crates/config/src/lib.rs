//! One `config.json`: its types with their documentation, reading with messages that name file, line, column and field,
//! writing that survives a power cut, and watching for edits.
//!
//! Must not know: async, sockets, how any section is used. A configuration is an immutable snapshot ([`Config`] behind an
//! `Arc`); a bad file never replaces a good snapshot (promise C1).
//!
//! ```
//! let parsed = config::Config::parse(r#"{"scheduler":{"max_queu":5}}"#).unwrap();
//! assert_eq!(parsed.config.scheduler.max_queue, 512);
//! assert!(parsed.warnings[0].contains("Did you mean \"max_queue\"?"));
//! ```

mod atomic_file;
mod document;
mod error;
mod overrides;
mod parse;
mod positions;
mod schema;
mod section;
mod store;
mod unknown;
mod validate;
mod value;
mod watch;

pub use atomic_file::write_whole;
pub use error::{ConfigError, Place, Problem};
pub use overrides::Overrides;
pub use parse::Parsed;
pub use schema::{default_text, json_schema, json_schema_text, reference};
pub use section::*;
pub use store::{Change, ConfigStatus, ConfigStore, Revision, Subscription, Update};
pub use validate::EngineRules;
pub use value::{Auto, Secret, SecretError};
