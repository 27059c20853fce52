use domain::{JobId, JobView};
use rusqlite::{Connection, Row, params};

use crate::{Store, StoreError};

/// A download as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// What it fetches, in a form that is equal for equal targets.
    pub target: String,
    /// Where it comes from, as the download crate wrote it (JSON).
    pub source: String,
    /// What is shown, in its last state.
    pub view: JobView,
}

impl Store {
    /// Keeps a job, replacing the row of the same id.
    pub async fn put_job(&self, job: JobRow) -> Result<(), StoreError> {
        let view = serde_json::to_string(&job.view).map_err(|error| StoreError::Row(error.to_string()))?;
        self.run(move |db| {
            db.prepare_cached(
                "INSERT INTO jobs (id, target, source, view, started_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET target = ?2, source = ?3, view = ?4, started_ms = ?5",
            )?
            .execute(params![job.id.0, job.target, job.source, view, job.view.started_ms])?;
            Ok(())
        })
        .await
    }

    /// All jobs, oldest first. Rows that cannot be read are left out with a warning.
    pub async fn jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        self.run(|db| {
            let mut query = db.prepare("SELECT id, target, source, view FROM jobs ORDER BY started_ms, id")?;
            let rows = query.query_map([], read)?;
            let mut jobs = Vec::new();
            for row in rows {
                match row? {
                    Ok(job) => jobs.push(job),
                    Err(error) => tracing::warn!(%error, "a stored download cannot be read and is left out"),
                }
            }
            Ok(jobs)
        })
        .await
    }

    /// Forgets a job; an unknown one is no error.
    pub async fn delete_job(&self, id: &JobId) -> Result<(), StoreError> {
        let id = id.0.clone();
        self.run(move |db: &mut Connection| {
            db.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
            Ok(())
        })
        .await
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the form rusqlite wants: an unreadable view must not end the whole query"
)]
fn read(row: &Row<'_>) -> rusqlite::Result<Result<JobRow, StoreError>> {
    let parse = |row: &Row<'_>| -> Result<JobRow, StoreError> {
        let view: String = row.get(3)?;
        Ok(JobRow {
            id: JobId(row.get(0)?),
            target: row.get(1)?,
            source: row.get(2)?,
            view: serde_json::from_str(&view).map_err(|error| StoreError::Row(error.to_string()))?,
        })
    };
    Ok(parse(row))
}
