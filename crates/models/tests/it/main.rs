//! The library from outside, on folders of crafted and real files.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod instances;
mod library;
mod names;
mod scans;
mod speech;
mod stores;
mod support;
