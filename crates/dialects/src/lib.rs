//! Pure typed translation between the wire forms of the dialects we speak, the domain form, and llama-server's wire form.
//!
//! Every dialect has the same seam: bytes of a request become a domain request; engine bytes become client bytes through a
//! [`Transcoder`]; a [`domain::RunnerError`] becomes status and body ([`Rendered`]).
//!
//! Must not know: sockets, http types, async, real clocks (a [`Clock`] is passed in), files.
//!
//! ```
//! use dialects::peek;
//!
//! let body = br#"{"messages":[],"model":"tiny","stream":true}"#;
//! let peeked = peek::peek(body).unwrap();
//! assert_eq!(peeked.model().unwrap().as_deref(), Some("tiny"));
//! assert!(peeked.stream().unwrap());
//! ```

pub mod anthropic;
pub mod audio;
pub mod engine;
pub mod images;
pub mod llamacpp;
pub mod llamarunner;
pub mod lmstudio_rest;
pub mod lmstudio_ws;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod peek;
pub mod sse;

mod clock;
mod json;
mod rendered;
mod stream_form;
mod transcoder;
mod view;

pub use clock::{Clock, rfc3339, rfc3339_seconds};
pub use rendered::Rendered;
pub use stream_form::StreamForm;
pub use transcoder::Transcoder;
pub use view::ModelView;
