//! The small local database: downloads that outlive a restart and answers that clients refer to by id.
//!
//! One SQLite file in write-ahead mode and one thread that owns the connection; callers wait on a channel. What is
//! acknowledged survives the death of the process at any moment. A damaged file is moved aside and never stops the start.
//!
//! Must not know: HTTP, dialects, downloads. No business rules: it keeps and returns rows.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = store::Store::in_memory()?;
//! assert!(store.jobs().await?.is_empty());
//! assert_eq!(store.response(store::ResponseKind::OpenAi, "resp_1").await?, None);
//! # Ok::<(), store::StoreError>(()) }).unwrap();
//! ```

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
