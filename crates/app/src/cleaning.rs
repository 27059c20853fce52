//! What is left over in our model store when the program starts.

use std::time::Duration;

use domain::{JobKind, JobState};
use downloads::Downloads;
use ollama_store::Digest;
use tokio_util::task::TaskTracker;

/// Age at which a file of our model store that no model uses is a left-over.
const LEFT_OVER: Duration = Duration::from_hours(24);

/// Removes what uploads without a model and given-up downloads left in our model store, off the way of the start. What a
/// download has already that may go on is not named by any model yet: it stays.
pub(crate) fn clean(tasks: &TaskTracker, store: ollama_store::Store, downloads: &Downloads) {
    let views = downloads.jobs().into_iter().map(|job| job.view());
    let unfinished = views.filter(|view| {
        view.kind == JobKind::Registry && !matches!(view.state, JobState::Completed | JobState::Cancelled)
    });
    let files = unfinished.flat_map(|view| view.files);
    let hold = store.hold(files.filter_map(|file| Digest::from_hex(&file.sha256?)));
    tasks.spawn_blocking(move || {
        match store.prune(LEFT_OVER) {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "removed files of the model store that no model uses"),
            Err(error) => tracing::warn!(%error, "the model store could not be cleaned"),
        }
        drop(hold);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use domain::{JobFile, JobId, JobView};
    use downloads::{DownloadDeps, DownloadSettings};
    use ollama_store::{Access, Layer};

    use super::*;

    fn job(number: u32, state: JobState, file: &Layer) -> store::JobRow {
        let id = JobId(format!("job_{number:010x}"));
        store::JobRow {
            id: id.clone(),
            target: format!("ollama {number}"),
            source: "{}".into(),
            view: JobView {
                id,
                kind: JobKind::Registry,
                name: number.to_string(),
                quantization: None,
                state,
                files: vec![JobFile {
                    name: "weights".into(),
                    sha256: Some(file.digest.hex()),
                    size: None,
                    done: 0,
                }],
                bytes_done: 0,
                bytes_total: None,
                bytes_per_second: 0,
                error: None,
                verified: true,
                model: None,
                started_ms: 0,
                ended_ms: None,
            },
        }
    }

    #[tokio::test]
    async fn what_a_download_may_go_on_with_stays_and_the_rest_goes() {
        let home = tempfile::tempdir().expect("a folder");
        let models = ollama_store::Store::open(home.path().join("ollama"), Access::Write).expect("a store");
        let old = |text: &str| {
            let layer = models.put_layer("x", text.as_bytes()).expect("a blob");
            let file = std::fs::File::open(models.blob_path(&layer.digest)).expect("the blob");
            file.set_modified(SystemTime::now() - 2 * LEFT_OVER).expect("an age");
            layer
        };
        let (failed, paused, cancelled, upload) = (old("failed"), old("paused"), old("cancelled"), old("upload"));
        let database = store::Store::in_memory().expect("a database");
        for (number, state, file) in [
            (1, JobState::Failed, &failed),
            (2, JobState::Paused, &paused),
            (3, JobState::Cancelled, &cancelled),
        ] {
            database.put_job(job(number, state, file)).await.expect("a row");
        }
        let deps = DownloadDeps {
            store: database,
            ollama_store: models.clone(),
            bus: telemetry::EventBus::new(),
            disk_free: Arc::new(|_| None),
            landed: Arc::new(|_, _| Box::pin(std::future::ready(()))),
        };
        let downloads = Downloads::start(DownloadSettings::below(home.path()), deps).await;
        let tasks = TaskTracker::new();
        clean(&tasks, models.clone(), &downloads);
        tasks.close();
        tasks.wait().await;
        let there = [failed, paused, cancelled, upload].map(|layer| models.has_blob(&layer.digest));
        assert_eq!(there, [true, true, false, false]);
    }
}
