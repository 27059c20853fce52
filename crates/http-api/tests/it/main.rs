//! The HTTP surface over real sockets. One binary: modules by promise and by dialect.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod anthropic;
mod breaks;
mod framing;
mod harness;
mod listening;
mod llamacpp;
mod lmstudio;
mod management;
mod ollama;
mod ollama_store;
mod openai;
mod responses;
mod resumable;
mod slow;
mod sockets;
mod speaking;
mod speech_models;
mod surface;
mod waiting;
