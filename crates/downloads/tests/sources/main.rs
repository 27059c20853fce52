//! What the three kinds of origin say about a name, asked of the fake origin.
#![expect(clippy::unwrap_used, reason = "test code may panic")]

mod hub;
mod registry;
mod rig;
mod urls;
