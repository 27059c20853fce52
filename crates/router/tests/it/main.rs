//! The router against real processes: the stub engine with its faults, and the real engine with the tiny models.

mod failures;
mod loading;
mod real_engine;
mod rig;
mod streams;
