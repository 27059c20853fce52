use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::StoreError;
use crate::schema::{self, Unusable};
use crate::writer::Writer;

/// Files up to this size are checked in full at the start: some ten milliseconds. Damage in larger ones is met when it is
/// read, with the same outcome.
const CHECKED: u64 = 16 << 20;

/// The database. Clones are handles to the same one.
#[derive(Clone)]
pub struct Store {
    writer: Writer,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or makes the database. A damaged file is moved aside (`….damaged-<unix>`) with a warning and a fresh one takes
    /// its place. One that cannot be used for another reason (in use, a full disk, no right to it, a newer version's) stays
    /// where it is, and the rows live in memory until the end. Blocking.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = match connect(path) {
            Ok(connection) => connection,
            Err(problem) if problem.is_damage() => start_over(path, &problem.to_string())?,
            Err(problem) => without_file(&problem)?,
        };
        let path = path.to_owned();
        Self::serve(connection, move || start_over(&path, "it was damaged").ok())
    }

    /// A database that is gone with the last handle, for tests and for a disk that cannot be written.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::serve(in_memory()?, || None)
    }

    fn serve(
        connection: Connection,
        replace: impl FnMut() -> Option<Connection> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let writer =
            Writer::start(connection, Box::new(replace)).map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(Self { writer })
    }

    /// Runs work on the database's thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(work).await
    }
}

/// Puts an empty database in the place of one that cannot be used.
fn start_over(path: &Path, problem: &str) -> Result<Connection, StoreError> {
    let aside = move_aside(path);
    tracing::warn!(
        problem,
        ?aside,
        "the database could not be used and is replaced by an empty one"
    );
    match connect(path) {
        Ok(connection) => Ok(connection),
        Err(problem) => without_file(&problem),
    }
}

fn without_file(problem: &Unusable) -> Result<Connection, StoreError> {
    tracing::warn!(%problem, "the database cannot be used; stored answers and downloads last until the end of the program");
    in_memory()
}

fn in_memory() -> Result<Connection, StoreError> {
    let mut connection = Connection::open_in_memory()?;
    schema::migrate(&mut connection).map_err(|problem| StoreError::Database(problem.to_string()))?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, Unusable> {
    make_private(path);
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // In write-ahead mode a killed process loses nothing that was acknowledged; FULL keeps that over a power cut.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    schema::migrate(&mut connection)?;
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() <= CHECKED) {
        let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Unusable::Unsound(verdict));
        }
    }
    Ok(connection)
}

/// Conversations are in there: only this user may read the file (promise S7).
fn make_private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // An existing file keeps its mode; a failure is SQLite's to report.
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Renames the file and its log out of the way; the new name of the file, if that worked.
fn move_aside(path: &Path) -> Option<PathBuf> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let renamed = |from: &Path| {
        let mut to = from.as_os_str().to_owned();
        to.push(format!(".damaged-{now}"));
        std::fs::rename(from, &to).is_ok().then(|| PathBuf::from(to))
    };
    for suffix in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        renamed(Path::new(&beside));
    }
    renamed(path)
}
