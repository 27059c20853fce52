//! The router against real processes: the stub engine with its faults, and the real engine with the tiny models.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests: a panic is a failure, and tasks end with the test's runtime"
)]

mod failures;
mod loading;
mod real_engine;
mod real_speech;
mod rig;
mod speech;
mod streams;
