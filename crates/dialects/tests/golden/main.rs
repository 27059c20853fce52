//! Golden files under `tests/golden/<dialect>/<case>`: client request to engine body, recorded engine stream to client bytes.
//!
//! `UPDATE_GOLDEN=1` writes the files instead of comparing; `tests/golden/record.py` records the engine's part. Every stream is
//! also replayed in one-byte pieces and cut in the middle.

mod errors;
mod llamarunner;
mod lmstudio;
mod ollama;
mod openai;
mod support;
