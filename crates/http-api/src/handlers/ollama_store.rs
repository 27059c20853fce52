//! Ollama's store: pull, push, copy, delete, blobs (Ollama contract 3.4, 3.5, 3.7, 3.8).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialects::Rendered;
use dialects::ollama::{self, CopyCall, DeleteCall, PullLines, TransferCall};
use domain::{EngineKind, ErrorKind, ModelEntry, ModelSource, RegistryName, RunnerError};
use downloads::push::PushStep;
use downloads::{DownloadError, Source};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use ollama_store::{Digest, Store, StoreError};
use tokio::sync::mpsc;

use super::{Answer, ollama_create};
use crate::body::{Body, Pieces};
use crate::dispatch::Cx;
use crate::errors::{json, respond};
use crate::routes::{Dialect, Operation as Op};
use crate::state::ApiState;
use crate::written::{self, Writer};

/// Clients give up on a silent stream; some after ten seconds.
const QUIET: Duration = Duration::from_secs(5);
/// Pieces of an upload between the socket and the disk.
const AHEAD: usize = 16;
/// What is read of an upload that is not needed, so that the client hears the answer instead of a closed connection.
const DRAIN: u64 = 16 << 20;

/// The operations of this family.
pub(super) async fn run(cx: &Cx, _parts: &Parts, body: Incoming) -> Answer {
    match cx.route.operation {
        Op::OllamaPull => pull(cx, body).await,
        Op::OllamaPush => push(cx, body).await,
        Op::OllamaCreate => ollama_create::create(cx, body).await,
        Op::OllamaCopy => copy(cx, body).await,
        Op::OllamaDelete => delete(cx, body).await,
        Op::OllamaBlobCheck => check_blob(cx).await,
        Op::OllamaBlobUpload => upload_blob(cx, body).await,
        // There is no account to sign out of.
        Op::OllamaSignout | Op::OllamaDeleteKey => Ok(respond(Rendered::json(
            401,
            br#"{"error":"you are not currently signed in"}"#.to_vec(),
        ))),
        other => Err(RunnerError::internal(format!(
            "{other:?} is no operation on Ollama's store."
        ))),
    }
}

/// An error of the store in the product's words.
pub(super) fn store_error(error: StoreError) -> RunnerError {
    let text = error.to_string();
    match error {
        StoreError::NotFound(name) => RunnerError::model_not_found(&name.to_string()),
        StoreError::ReadOnly => RunnerError::new(ErrorKind::Forbidden, text),
        StoreError::Unstorable(_)
        | StoreError::InvalidDigest
        | StoreError::DigestMismatch { .. }
        | StoreError::MissingBlob(_)
        | StoreError::InvalidManifest(_)
        | StoreError::TooLarge { .. } => RunnerError::invalid(text),
        StoreError::Io { what, path, source } => {
            tracing::error!(?path, %source, "the model store: could not {what}");
            RunnerError::internal(text)
        }
    }
}

/// Work on the store, off the threads that serve requests.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, RunnerError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| RunnerError::internal("The work on the model store broke off."))?
        .map_err(store_error)
}

/// The line of a failure in mid-stream.
pub(super) fn error_line(error: &RunnerError, out: &mut Vec<u8>) {
    ollama::error_line(&error.message, out);
}

/// A stream of lines, or the one object of `stream:false`.
pub(super) async fn told<F>(stream: bool, work: impl FnOnce(Writer) -> F) -> Answer
where
    F: Future<Output = Result<(), RunnerError>> + Send + 'static,
{
    if stream {
        return written::answer(Rendered::NDJSON, error_line, work).await;
    }
    written::silently(work).await?;
    Ok(json(Dialect::Ollama, ollama::success()))
}

/// `POST /api/pull`.
async fn pull(cx: &Cx, body: Incoming) -> Answer {
    let call = TransferCall::parse_pull(&cx.collect(body).await?)?;
    let state = Arc::clone(cx.state());
    told(call.stream, move |tell| async move {
        fetch(&state, call.model, call.insecure, &tell).await
    })
    .await
}

/// Fetches a model from its registry. The download stops when the last one who waits for it leaves; what is there is kept.
pub(super) async fn fetch(state: &ApiState, name: String, insecure: bool, tell: &Writer) -> Result<(), RunnerError> {
    let mut progress = PullLines::default();
    // Goes out before the registry is asked (contract 3.7).
    tell.line(|out| progress.begin(out));
    // Whoever holds it waits; dropping it says that nobody does.
    let job = state
        .downloads
        .pull(Source::Ollama { name, insecure })
        .await
        .map_err(transfer_error)?;
    let mut changes = job.watch();
    let end = job.wait();
    tokio::pin!(end);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            changed = changes.changed(), if open => {
                open = changed.is_ok();
                let view = changes.borrow_and_update().clone();
                if !view.state.is_final() {
                    tell.line(|out| progress.update(&view, out));
                }
            }
            ended = &mut end => {
                let view = ended.map_err(transfer_error)?;
                tell.line(|out| progress.finish(&view, out));
                return Ok(());
            }
            () = tokio::time::sleep(QUIET) => tell.line(|out| progress.repeat(&job.view(), out)),
        }
    }
}

/// Ollama knows one status for all that goes wrong after the name was accepted.
fn transfer_error(error: DownloadError) -> RunnerError {
    match error {
        DownloadError::ShuttingDown | DownloadError::Cancelled => error.into(),
        other => RunnerError::internal(other.to_string()),
    }
}

/// `POST /api/push`.
async fn push(cx: &Cx, body: Incoming) -> Answer {
    let call = TransferCall::parse_push(&cx.collect(body).await?)?;
    let state = Arc::clone(cx.state());
    told(call.stream, move |tell| async move {
        if RegistryName::parse(&call.model).is_none() {
            // An error of the stream, unlike those of the other routes (contract 1.2).
            tell.line(|out| ollama::status_line("retrieving manifest", out));
            return Err(RunnerError::invalid("invalid model name"));
        }
        let step = {
            let tell = tell.clone();
            move |step: PushStep| tell.line(|out| push_line(&step, out))
        };
        let origin = state.downloads.origin();
        downloads::push::push(&origin, &state.ollama_store, &call.model, call.insecure, step)
            .await
            .map_err(transfer_error)?;
        tell.line(|out| ollama::status_line("success", out));
        Ok(())
    })
    .await
}

fn push_line(step: &PushStep, out: &mut Vec<u8>) {
    match step {
        PushStep::RetrievingManifest => ollama::status_line("retrieving manifest", out),
        PushStep::Pushing {
            digest,
            total,
            completed,
        } => {
            let hex = ollama::digest_hex(digest);
            ollama::transfer_line("pushing", digest, hex.as_deref(), Some(*total), *completed, out);
        }
        PushStep::PushingManifest => ollama::status_line("pushing manifest", out),
    }
}

/// `POST /api/copy`.
async fn copy(cx: &Cx, body: Incoming) -> Answer {
    let call = CopyCall::parse(&cx.collect(body).await?)?;
    let state = cx.state();
    let (store, entry) = (state.ollama_store.clone(), state.resolve(&call.source));
    let CopyCall { source, destination } = call;
    ollama_create::adoptable(entry.as_ref())?;
    let asked = source.clone();
    let copied = on_disk(move || {
        match RegistryName::parse(&source).map(|name| store.copy(&name, &destination)) {
            None | Some(Err(StoreError::NotFound(_))) => {}
            Some(copied) => return copied.map(|_| true),
        }
        let Some(entry) = entry else { return Ok(false) };
        // Kept by another program or in a folder: our copy refers to the same files.
        let (manifest, _hold) = ollama_create::adopt(&store, &entry)?;
        store.write_manifest(&destination, &manifest.to_bytes())?;
        Ok(true)
    })
    .await?;
    if !copied {
        return Err(RunnerError::model_not_found(&asked));
    }
    state.registry.rescan().await;
    Ok(Response::new(Body::empty()))
}

/// `DELETE /api/delete`.
async fn delete(cx: &Cx, body: Incoming) -> Answer {
    let call = DeleteCall::parse(&cx.collect(body).await?)?;
    delete_model(cx, Some(call.name), &call.model).await?;
    Ok(Response::new(Body::empty()))
}

/// Deletes a model that LlamaRunner keeps: out of its store, or the files of a download. A loaded copy keeps running until it
/// expires: on Unix an open file outlives its name. `name`: what a store may have it under.
///
/// # Errors
/// `ModelNotFound`; `Forbidden` for one that belongs to another program or to a folder of the user's.
pub(super) async fn delete_model(cx: &Cx, name: Option<RegistryName>, asked: &str) -> Result<(), RunnerError> {
    let state = cx.state();
    let mut deleted = match name {
        None => false,
        Some(name) => {
            let store = state.ollama_store.clone();
            on_disk(move || match store.delete(&name) {
                Err(StoreError::NotFound(_)) => Ok(false),
                done => done.map(|()| true),
            })
            .await?
        }
    };
    if !deleted {
        let Some(entry) = state.resolve(asked) else {
            return Err(RunnerError::model_not_found(asked));
        };
        deleted = delete_download(state, &entry).await?;
    }
    if !deleted {
        return Err(RunnerError::new(
            ErrorKind::Forbidden,
            format!(
                "model '{asked}' is not in LlamaRunner's own store: delete it with the program or in the folder it belongs to"
            ),
        ));
    }
    state.registry.rescan().await;
    Ok(())
}

/// Deletes the files of a model if a download put them where they are.
async fn delete_download(state: &ApiState, entry: &Arc<ModelEntry>) -> Result<bool, RunnerError> {
    let (origin, folder) = (state.downloads.origin(), entry.path.clone());
    let removed = match (entry.engine, entry.source) {
        (EngineKind::FasterWhisper, _) => {
            tokio::task::spawn_blocking(move || downloads::remove_speech_model(&origin.settings, &folder)).await
        }
        (EngineKind::LlamaServer, ModelSource::Folder) => {
            let catalog = state.registry.catalog();
            let shared = |file: &PathBuf| {
                let others = catalog.entries().iter().filter(|other| other.key != entry.key);
                others.into_iter().any(|other| other.files().any(|used| used == file))
            };
            let files: Vec<PathBuf> = entry.files().filter(|file| !shared(file)).cloned().collect();
            tokio::task::spawn_blocking(move || downloads::remove_files(&origin.settings, &files)).await
        }
        _ => return Ok(false),
    };
    Ok(removed.map_err(|_| RunnerError::internal("The deletion broke off."))??)
}

fn digest(cx: &Cx) -> Result<Digest, RunnerError> {
    ollama::digest_hex(&cx.id)
        .and_then(|hex| Digest::from_hex(&hex))
        .ok_or_else(ollama::invalid_digest)
}

/// `HEAD /api/blobs/:digest`.
async fn check_blob(cx: &Cx) -> Answer {
    let (store, digest) = (cx.state().ollama_store.clone(), digest(cx)?);
    let there = on_disk(move || Ok(store.has_blob(&digest))).await?;
    Ok(status(if there { StatusCode::OK } else { StatusCode::NOT_FOUND }))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// `POST /api/blobs/:digest`: to the disk as it comes; memory holds a few pieces at most.
async fn upload_blob(cx: &Cx, body: Incoming) -> Answer {
    let digest = digest(cx)?;
    let state = cx.state();
    let store = state.ollama_store.clone();
    let mut pieces = Pieces::of(body, state.limits());
    let known = store.clone();
    if on_disk(move || Ok(known.has_blob(&digest))).await? {
        let mut drained = 0;
        while drained < DRAIN {
            let Some(piece) = pieces.next().await? else { break };
            drained += piece.len() as u64;
        }
        return Ok(status(StatusCode::OK));
    }
    let (sender, received) = mpsc::channel(AHEAD);
    let writing = on_disk(move || write_blob(&store, &digest, received));
    let sending = async move {
        while let Some(piece) = pieces.next().await? {
            if sender.send(Some(piece)).await.is_err() {
                // The disk refused; the writer says why.
                return Ok(());
            }
        }
        // Only a body that came to its end is a whole file.
        let _ = sender.send(None).await;
        Ok::<_, RunnerError>(())
    };
    let (sent, written) = tokio::join!(sending, writing);
    sent?;
    written.map(|()| status(StatusCode::CREATED))
}

/// `None` marks the end; a channel that closes without it belongs to a client that left.
fn write_blob(store: &Store, digest: &Digest, mut pieces: mpsc::Receiver<Option<Bytes>>) -> Result<(), StoreError> {
    let mut writer = store.new_blob()?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Some(piece) => writer.write(&piece)?,
            None => return writer.finish(Some(digest)).map(drop),
        }
    }
    Ok(())
}
