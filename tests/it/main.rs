//! The product from outside: the `llama-runner` binary as a process, real `llama-server` children, raw sockets.
//!
//! One module per promise. Every server has its own home folder and free ports, so tests run side by side.

#![expect(clippy::print_stderr, reason = "a failing test shows the server's log")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

mod architecture;
mod client;
mod cut;
mod idle;
mod kill;
mod listeners;
mod llamacpp;
mod lmstudio;
mod reload;
mod server;
mod single_flight;
mod swap;
