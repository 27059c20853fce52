//! Files that clients send in forms: from the socket to the disk as they come, so that memory holds a few pieces at most,
//! and away from the disk with the request, however that ends.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use domain::{ErrorKind, RunnerError};
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use multer::{Field, Multipart};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::body::Pieces;

/// What a form may have around its file: the text fields and the heads of the parts.
pub(crate) const FORM_ROOM: u64 = 1 << 20;
/// Longest text field that is kept.
const MAX_TEXT: usize = 64 << 10;
/// All text fields together.
const MAX_TEXTS: usize = 256 << 10;
/// Parts of a form, at most.
const MAX_PARTS: usize = 256;
/// Bytes that the parser may hold without making anything of them: a part's head never needs so much.
const MAX_HELD: usize = 1 << 20;
/// Bytes on their way to the disk.
const ON_THE_WAY: usize = 256 << 10;

/// Folder of the files that are being worked on.
#[derive(Debug, Clone)]
pub struct Uploads {
    dir: Arc<Path>,
}

impl Uploads {
    /// Makes the folder, for this user alone, and removes what an earlier run of the app left there. Only one app may use it.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        make_private(&dir)?;
        for entry in std::fs::read_dir(&dir)?.flatten() {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, "a file left in the folder for uploads stays there");
            }
        }
        Ok(Self { dir: dir.into() })
    }

    async fn create(&self) -> Result<(File, TempPath), RunnerError> {
        let dir = Arc::clone(&self.dir);
        let made = tokio::task::spawn_blocking(move || match tempfile::Builder::new().tempfile_in(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_private(&dir)?;
                tempfile::Builder::new().tempfile_in(&dir)
            }
            made => made,
        });
        let made = made.await.map_err(io::Error::other).and_then(|made| made);
        let (file, path) = made.map_err(|error| not_written(&error))?.into_parts();
        let mut file = File::from_std(file);
        file.set_max_buf_size(ON_THE_WAY);
        Ok((file, path))
    }
}

fn make_private(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// A file on the disk; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Upload {
    path: TempPath,
    size: u64,
    /// The name it had at the client, if it had one.
    name: Option<String>,
}

impl Upload {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The name it had at the client, if it had one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// What of a form goes where.
pub(crate) struct FormRules<'a> {
    /// The part that is the file.
    pub(crate) file: &'a str,
    /// Fields that are read and not kept.
    pub(crate) ignored: &'a [&'a str],
    /// Fields of which only the end is kept when they are too long.
    pub(crate) ends: &'a [&'a str],
    /// Largest file, in bytes.
    pub(crate) max_file: u64,
}

/// Is this the head of a form? The error says why not.
pub(crate) fn boundary(headers: &HeaderMap) -> Result<String, RunnerError> {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return Err(invalid("The request has no form: send multipart/form-data."));
    };
    let content_type = content_type.to_str().unwrap_or_default();
    match multer::parse_boundary(content_type) {
        Ok(boundary) if !boundary.is_empty() => Ok(boundary),
        Ok(_) | Err(multer::Error::NoBoundary) => Err(invalid("The form has no boundary in its Content-Type.")),
        Err(_) if content_type.to_ascii_lowercase().starts_with("multipart/form-data") => {
            Err(invalid("The Content-Type of the form is malformed."))
        }
        Err(_) => Err(RunnerError::invalid(format!(
            "The content type '{}' is not taken here: send multipart/form-data.",
            content_type.chars().take(100).collect::<String>()
        ))
        .code("unsupported_content_type")),
    }
}

fn invalid(message: impl Into<String>) -> RunnerError {
    RunnerError::invalid(message).code("invalid_multipart")
}

/// The file is larger than `max` bytes.
pub(crate) fn too_large(max: u64) -> RunnerError {
    RunnerError::new(
        ErrorKind::TooLarge,
        format!(
            "The file is larger than {} MB. The limits are audio.max_upload_mb and rate_limits.file_upload_size_mb of the \
             port in the configuration.",
            max >> 20
        ),
    )
    .code("file_too_large")
    .param("file")
}

fn not_written(error: &io::Error) -> RunnerError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return RunnerError::internal("The disk is full: there is no room for the file. Make room and send it again.")
            .code("disk_full");
    }
    tracing::error!(%error, "an upload could not be written");
    RunnerError::internal("The file could not be written to the disk. The log says more.")
}

fn broken(error: multer::Error) -> RunnerError {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<RunnerError>() {
            Ok(error) if error.code.is_none() => error.code("invalid_multipart"),
            Ok(error) => *error,
            Err(_) => invalid("The form could not be read."),
        },
        other => invalid(format!("The form is malformed or incomplete: {other}.")),
    }
}

/// Reads a form: the file to the disk, every other field to `field`. `None`: there was no file.
///
/// # Errors
/// `invalid_multipart`, `file_too_large`, `invalid_value` for a field that is too long or no text, `disk_full`.
pub(crate) async fn receive(
    uploads: &Uploads,
    pieces: Pieces,
    boundary: String,
    rules: &FormRules<'_>,
    mut field: impl FnMut(&str, String),
) -> Result<Option<Upload>, RunnerError> {
    let held = Arc::new(AtomicUsize::new(0));
    let mut form = Multipart::new(one_by_one(pieces, Arc::clone(&held)), boundary);
    let mut reading = Reading { held, beside: 0 };
    let (mut upload, mut parts, mut texts) = (None, 0, 0);
    while let Some(part) = form.next_field().await.map_err(broken)? {
        reading.progress();
        parts += 1;
        if parts > MAX_PARTS {
            return Err(invalid(format!("The form has more than {MAX_PARTS} parts.")));
        }
        let name = part.name().unwrap_or_default().to_owned();
        if name == rules.file {
            if upload.is_some() {
                return Err(invalid("The form has more than one file.").param(rules.file));
            }
            upload = Some(reading.file(uploads, part, rules.max_file).await?);
        } else if name.is_empty() || part.file_name().is_some() || rules.ignored.contains(&name.as_str()) {
            reading.skip(part).await?;
        } else {
            let value = reading.text(part, &name, rules.ends.contains(&name.as_str())).await?;
            texts += name.len() + value.len();
            if texts > MAX_TEXTS {
                return Err(invalid("The fields of the form are too long."));
            }
            field(&name, value);
        }
    }
    Ok(upload)
}

/// The body as the parser sees it. The parser takes all that is there before it makes anything of it, so each piece is
/// followed by a pause; and a body that gives it nothing to make ends in an error. So it never holds more than two pieces.
fn one_by_one(pieces: Pieces, held: Arc<AtomicUsize>) -> impl Stream<Item = Result<Bytes, RunnerError>> + Send {
    let pieces = stream::unfold((pieces, held), |(mut pieces, held)| async move {
        let piece = match pieces.next().await {
            Ok(piece) => Ok(piece?),
            Err(error) => Err(error),
        };
        let piece = piece.and_then(|piece| {
            let now = held.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
            if now > MAX_HELD + piece.len() {
                return Err(invalid(
                    "The form is malformed: a part does not begin or its head does not end.",
                ));
            }
            Ok(piece)
        });
        Some((piece, (pieces, held)))
    });
    let mut pieces = Box::pin(pieces);
    let mut pause = false;
    stream::poll_fn(move |cx| {
        if std::mem::take(&mut pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = pieces.as_mut().poll_next(cx);
        pause = matches!(polled, Poll::Ready(Some(_)));
        polled
    })
}

struct Reading {
    /// Bytes given to the parser since it last made something of them.
    held: Arc<AtomicUsize>,
    /// Bytes of parts that are not the file.
    beside: u64,
}

impl Reading {
    fn progress(&self) {
        self.held.store(0, Ordering::Relaxed);
    }

    /// The next bytes of a part; `None` at its end.
    async fn next(&self, part: &mut Field<'_>) -> Result<Option<Bytes>, RunnerError> {
        let chunk = part.chunk().await.map_err(broken)?;
        self.progress();
        Ok(chunk)
    }

    async fn file(&self, uploads: &Uploads, mut part: Field<'_>, max: u64) -> Result<Upload, RunnerError> {
        let name = part.file_name().map(str::to_owned);
        let (mut file, path) = uploads.create().await?;
        let mut size = 0;
        while let Some(chunk) = self.next(&mut part).await? {
            size += chunk.len() as u64;
            if size > max {
                return Err(too_large(max));
            }
            file.write_all(&chunk).await.map_err(|error| not_written(&error))?;
        }
        file.flush().await.map_err(|error| not_written(&error))?;
        Ok(Upload { path, size, name })
    }

    async fn text(&mut self, mut part: Field<'_>, name: &str, end_counts: bool) -> Result<String, RunnerError> {
        let wrong = |what: &str| {
            let name: String = name.chars().take(60).collect();
            RunnerError::invalid(format!("The field '{name}' {what}."))
                .code("invalid_value")
                .param(name)
        };
        let mut value = Vec::new();
        while let Some(chunk) = self.next(&mut part).await? {
            self.count(chunk.len() as u64)?;
            value.extend_from_slice(&chunk);
            if value.len() <= MAX_TEXT {
                continue;
            }
            if !end_counts {
                return Err(wrong("is longer than 64 KB"));
            }
            // From a whole character on.
            let cut = value.len() - MAX_TEXT;
            let inside = value[cut..].iter().take_while(|byte| **byte & 0xC0 == 0x80).count();
            value.drain(..cut + inside);
        }
        String::from_utf8(value).map_err(|_| wrong("is not UTF-8 text"))
    }

    async fn skip(&mut self, mut part: Field<'_>) -> Result<(), RunnerError> {
        while let Some(chunk) = self.next(&mut part).await? {
            self.count(chunk.len() as u64)?;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), RunnerError> {
        self.beside += bytes;
        if self.beside > FORM_ROOM {
            return Err(invalid("The form has more than 1 MB beside its file."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_overs_are_removed_and_the_folder_is_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/uploads");
        drop(Uploads::open(dir.clone()).unwrap());
        std::fs::write(dir.join("left"), b"x").unwrap();
        drop(Uploads::open(dir.clone()).unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[tokio::test]
    async fn a_file_is_private_and_goes_with_its_guard() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("uploads");
        let uploads = Uploads::open(dir.clone()).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        let (_file, path) = uploads.create().await.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(path);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn heads_that_are_no_forms() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert(CONTENT_TYPE, value.parse().unwrap());
            }
            boundary(&headers).map_err(|error| error.code.unwrap())
        };
        assert_eq!(of("multipart/form-data; boundary=x"), Ok("x".to_owned()));
        assert_eq!(of("multipart/form-data; boundary=\"x y\""), Ok("x y".to_owned()));
        for (value, code) in [
            ("", "invalid_multipart"),
            ("multipart/form-data", "invalid_multipart"),
            ("multipart/form-data; boundary=\"\"", "invalid_multipart"),
            ("application/json", "unsupported_content_type"),
            ("audio/wav", "unsupported_content_type"),
            ("multipart/mixed; boundary=x", "unsupported_content_type"),
            ("nonsense", "unsupported_content_type"),
        ] {
            assert_eq!(of(value), Err(code.to_owned()), "{value}");
        }
    }
}
