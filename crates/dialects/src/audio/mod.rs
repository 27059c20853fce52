//! Speech, in OpenAI's form with more: fields of a form and JSON in, documents and events out (audio contract).
//!
//! `form` reads what a client asks, `hearing` what the engine tells, `answer` writes the five kinds of document, `stream`
//! the events, `error` the codes, `language` knows the languages of Whisper.

mod answer;
mod error;
mod form;
mod hearing;
mod language;
mod stream;

pub use answer::document;
pub use error::error;
pub use form::{Asked, DocumentFormat, Form, Wanted};
pub use hearing::{Hearing, engine_error};
pub use language::language_name;
pub use stream::{Events, Waiting};
