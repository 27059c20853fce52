//! The HTTP surface over real sockets. One binary: modules by promise and by dialect.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod breaks;
mod framing;
mod harness;
mod lmstudio;
mod management;
mod ollama;
mod openai;
mod slow;
mod surface;
