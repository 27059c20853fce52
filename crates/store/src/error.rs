use rusqlite::ErrorCode;
use thiserror::Error;

/// Why something could not be kept or found.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the database failed: {0}")]
    Database(String),
    /// The file is damaged. It has been replaced by an empty one.
    #[error("the database was damaged and has been replaced by an empty one: {0}")]
    Damaged(String),
    /// A row holds something this version cannot read.
    #[error("a stored row cannot be read: {0}")]
    Row(String),
    /// The database's thread has ended.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            Self::Damaged(error.to_string())
        } else {
            Self::Database(error.to_string())
        }
    }
}

/// Does SQLite say that the file is damaged, or no database at all?
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
