//! The small local database: downloads that outlive a restart and answers that clients refer to by id.
//!
//! One SQLite file in write-ahead mode and one thread that owns the connection; callers wait on a channel. What is
//! acknowledged survives the death of the process at any moment. A damaged file is moved aside and never stops the start.
//!
//! Must not know: HTTP, dialects, downloads. No business rules: it keeps and returns rows.

mod error;
mod jobs;
mod open;
mod responses;
mod schema;
mod writer;

pub use error::StoreError;
pub use jobs::JobRow;
pub use open::Store;
pub use responses::{ResponseKind, ResponseRow};
