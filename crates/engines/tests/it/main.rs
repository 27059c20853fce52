//! Whole engine processes: the real llama-server, the stub engine with faults, and the real build.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests are not test functions"
)]

mod build;
mod real;
mod stub;
mod support;
