//! The HTTP surface over real sockets. One binary: modules by promise and by dialect.

mod framing;
mod harness;
mod slow;
mod surface;
