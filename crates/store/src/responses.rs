use rusqlite::{OptionalExtension, Row, params};

use crate::{Store, StoreError};

/// Which dialect's answers: each has its own ids, so that one never finds the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// OpenAI `/v1/responses`.
    OpenAi,
    /// LM Studio `/api/v1/chat`.
    LmStudio,
}

impl ResponseKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::LmStudio => "lmstudio",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::OpenAi, Self::LmStudio]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRow {
    /// Its id as the client knows it.
    pub id: String,
    /// Whose it is.
    pub kind: ResponseKind,
    /// The answer it continues.
    pub parent: Option<String>,
    /// The model that answered, as its registry key.
    pub model: String,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// What this turn added to the conversation (JSON, the dialect's own form).
    pub messages: String,
    /// The answer as it was sent (JSON).
    pub body: String,
}

/// Answers kept: the newest so many …
pub(crate) const KEEP_RESPONSES: u32 = 10_000;
/// … and none older than this, in milliseconds.
pub(crate) const KEEP_RESPONSES_MS: i64 = 30 * 24 * 3600 * 1000;
/// A conversation longer than this is cut at its old end: a loop in damaged data must not run for ever.
const LONGEST_CHAIN: u32 = 10_000;

const COLUMNS: &str = "id, kind, parent, model, created_ms, messages, body";

impl Store {
    /// Keeps an answer. Old ones are pruned: the newest 10 000 of the last 30 days stay.
    pub async fn put_response(&self, response: ResponseRow) -> Result<(), StoreError> {
        self.run(move |db| {
            let transaction = db.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO responses (id, kind, parent, model, created_ms, messages, body)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    response.id,
                    response.kind.as_str(),
                    response.parent,
                    response.model,
                    response.created_ms,
                    response.messages,
                    response.body
                ])?;
            transaction
                .prepare_cached("DELETE FROM responses WHERE created_ms < ?1")?
                .execute([response.created_ms - KEEP_RESPONSES_MS])?;
            transaction
                .prepare_cached(
                    "DELETE FROM responses WHERE rowid IN
                     (SELECT rowid FROM responses ORDER BY created_ms DESC, rowid DESC LIMIT -1 OFFSET ?1)",
                )?
                .execute([KEEP_RESPONSES])?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The answer with this id.
    pub async fn response(&self, kind: ResponseKind, id: &str) -> Result<Option<ResponseRow>, StoreError> {
        let id = id.to_owned();
        self.run(move |db| {
            let mut query =
                db.prepare_cached(&format!("SELECT {COLUMNS} FROM responses WHERE kind = ?1 AND id = ?2"))?;
            Ok(query.query_row(params![kind.as_str(), id], read).optional()?)
        })
        .await
    }

    /// The answer with this id and all it continues, oldest first; empty when there is none. An ancestor that was deleted
    /// or pruned ends the chain.
    pub async fn response_chain(&self, kind: ResponseKind, id: &str) -> Result<Vec<ResponseRow>, StoreError> {
        let id = id.to_owned();
        self.run(move |db| {
            let mut query = db.prepare_cached(
                "WITH RECURSIVE chain (depth, id, kind, parent, model, created_ms, messages, body) AS (
                   SELECT 0, id, kind, parent, model, created_ms, messages, body FROM responses WHERE kind = ?1 AND id = ?2
                   UNION ALL
                   SELECT depth + 1, r.id, r.kind, r.parent, r.model, r.created_ms, r.messages, r.body
                   FROM responses r JOIN chain ON r.id = chain.parent AND r.kind = ?1 WHERE depth < ?3)
                 SELECT id, kind, parent, model, created_ms, messages, body FROM chain ORDER BY depth DESC",
            )?;
            let rows = query.query_map(params![kind.as_str(), id, LONGEST_CHAIN], read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Forgets an answer. True when there was one.
    pub async fn delete_response(&self, kind: ResponseKind, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.run(move |db| {
            let gone = db
                .prepare_cached("DELETE FROM responses WHERE kind = ?1 AND id = ?2")?
                .execute(params![kind.as_str(), id])?;
            Ok(gone > 0)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<ResponseRow> {
    let kind: String = row.get(1)?;
    Ok(ResponseRow {
        id: row.get(0)?,
        kind: ResponseKind::parse(&kind).unwrap_or(ResponseKind::OpenAi),
        parent: row.get(2)?,
        model: row.get(3)?,
        created_ms: row.get(4)?,
        messages: row.get(5)?,
        body: row.get(6)?,
    })
}
