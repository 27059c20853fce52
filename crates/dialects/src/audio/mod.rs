//! Speech, in OpenAI's form with more: fields of a form and JSON in, documents and events out (audio contract).
//!
//! `form` reads what a client asks, `speech` reads what is to be said, `answer` writes the five kinds of document, `stream`
//! the events, `error` the codes, `language` knows the languages of Whisper.

mod error;

pub use error::error;
