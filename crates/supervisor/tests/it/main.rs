//! The supervisor's promises against real processes: the stub engine plays the hostile child.
#![cfg(target_os = "linux")]

mod end;
mod environment;
mod kit;
mod leftovers;
mod lifetime;
mod output;
mod roles;
mod stop;
