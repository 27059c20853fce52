use thiserror::Error;

/// Why something could not be kept or found.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the database failed: {0}")]
    Database(String),
    /// A row holds something this version cannot read.
    #[error("a stored row cannot be read: {0}")]
    Row(String),
    /// The database's thread has ended.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}
