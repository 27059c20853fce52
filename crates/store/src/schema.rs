use rusqlite::Connection;

use crate::error::is_damage;

/// Each step brings a database from the version of its place to the next; `user_version` says how many were done.
/// Released steps are never changed, only followed by new ones.
const STEPS: &[&str] = &["CREATE TABLE jobs (
       id TEXT PRIMARY KEY,
       target TEXT NOT NULL,
       source TEXT NOT NULL,
       view TEXT NOT NULL,
       started_ms INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE responses (
       id TEXT NOT NULL,
       kind TEXT NOT NULL,
       parent TEXT,
       model TEXT NOT NULL,
       created_ms INTEGER NOT NULL,
       messages TEXT NOT NULL,
       body TEXT NOT NULL,
       PRIMARY KEY (kind, id)
     ) STRICT;
     CREATE INDEX responses_by_age ON responses (created_ms);"];

/// Brings the database to this version's form. A newer form than this program's is left as it is and refused.
pub(crate) fn migrate(db: &mut Connection) -> Result<(), Unusable> {
    let version: usize = db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? as usize;
    if version > STEPS.len() {
        return Err(Unusable::Newer);
    }
    for (done, step) in STEPS.iter().enumerate().skip(version) {
        let transaction = db.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", (done + 1) as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Why a file cannot serve as our database.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// Written by a newer version of this program.
    Newer,
    /// SQLite cannot use it, damaged or not.
    Refused(rusqlite::Error),
    /// SQLite's check found something.
    Unsound(String),
}

impl Unusable {
    /// Is the file itself at fault?
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Newer => false,
            Self::Refused(error) => is_damage(error),
            Self::Unsound(_) => true,
        }
    }
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Refused(error)
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newer => f.write_str("it was written by a newer version"),
            Self::Refused(error) => error.fmt(f),
            Self::Unsound(verdict) => verdict.fmt(f),
        }
    }
}
