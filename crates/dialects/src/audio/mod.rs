//! Speech, in OpenAI's form with more: fields of a form and JSON in, documents and events out (audio contract).
//!
//! `form` reads what a client asks, `hearing` what the engine tells, `answer` writes the five kinds of document, `stream`
//! the events, `error` the codes, `language` knows the languages of Whisper. `speech`
//! reads what is to be said and writes the sound as events, `sentences` cuts the text, `refusal` reads the engine's errors.

mod answer;
mod error;
mod form;
mod hearing;
mod language;
mod refusal;
mod sentences;
mod speech;
mod stream;

pub use answer::document;
pub use error::error;
pub use form::{Asked, DocumentFormat, Form, Wanted};
pub use hearing::{Hearing, engine_error};
pub use language::language_name;
pub use refusal::refusal;
pub use sentences::sentences;
pub use speech::{
    ModelVoices, SpeechForm, SpeechRequest, SpeechStream, audio_models, read_voices, usual_voices, voices,
};
pub use stream::{Events, Waiting};
