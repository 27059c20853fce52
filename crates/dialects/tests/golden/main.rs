//! Golden files under `tests/golden/<dialect>/<case>`: client request to engine body, recorded engine stream to client bytes.
//!
//! `UPDATE_GOLDEN=1` writes the files instead of comparing; `tests/golden/record.py` records the engine's part. Every stream is
//! also replayed in one-byte pieces and cut in the middle.
//!
//! The modules are marked `cfg(test)` (which always holds here) so that clippy knows their helpers for test code.

#[cfg(test)]
mod anthropic;
#[cfg(test)]
mod audio;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod llamacpp;
#[cfg(test)]
mod llamarunner;
#[cfg(test)]
mod lmstudio;
#[cfg(test)]
mod lmstudio_v1;
#[cfg(test)]
mod lmstudio_ws;
#[cfg(test)]
mod ollama;
#[cfg(test)]
mod ollama_store;
#[cfg(test)]
mod openai;
#[cfg(test)]
mod openai_bodies;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod speech;
#[cfg(test)]
mod support;
