//! The supervisor's promises against real processes: the stub engine plays the hostile child.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy exempts test functions only, not what they share"
)]

mod end;
mod environment;
mod kit;
mod leftovers;
mod lifetime;
mod output;
mod real_engine;
mod roles;
mod stop;
