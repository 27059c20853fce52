//! Downloads (contract 10.10): a job as steps of a channel, and search results.

use domain::{JobState, JobView};
use serde_json::{Value, json};

/// What a look at a download job says to a client.
#[derive(Debug, Clone, PartialEq)]
pub enum DownloadStep {
    /// A message; more will follow.
    Message(Value),
    /// The last message.
    Last(Value),
    /// It failed, for this reason.
    Failed(String),
    /// Nothing to say yet.
    Nothing,
}

/// Renders a job.
pub fn download_step(job: &JobView) -> DownloadStep {
    match job.state {
        JobState::Queued | JobState::Resolving => DownloadStep::Nothing,
        JobState::Downloading => match job.bytes_total {
            Some(total) => DownloadStep::Message(json!({
                "type": "downloadProgress",
                "update": {
                    "downloadedBytes": job.bytes_done.min(total),
                    "totalBytes": total,
                    "speedBytesPerSecond": job.bytes_per_second,
                },
            })),
            None => DownloadStep::Nothing,
        },
        JobState::Verifying => DownloadStep::Message(json!({"type": "startFinalizing"})),
        JobState::Completed => DownloadStep::Last(json!({
            "type": "success",
            "defaultIdentifier": job.model.as_deref().unwrap_or(&job.name),
        })),
        JobState::Paused => DownloadStep::Failed(
            job.error
                .clone()
                .unwrap_or_else(|| "The download was paused; what is there is kept.".to_owned()),
        ),
        JobState::Failed => DownloadStep::Failed(
            job.error
                .clone()
                .unwrap_or_else(|| "The download failed; what is there is kept.".to_owned()),
        ),
        JobState::Cancelled => DownloadStep::Failed("The download was cancelled.".to_owned()),
    }
}

/// Results of a search: names on the hub.
pub fn search_results(repositories: &[String], exact: Option<&str>) -> Value {
    let results: Vec<Value> = repositories
        .iter()
        .map(|name| {
            let mut result = json!({"name": name, "identifier": {"type": "hf", "identifier": name}});
            if exact.is_some_and(|term| term.eq_ignore_ascii_case(name)) {
                result["exact"] = true.into();
            }
            result
        })
        .collect();
    json!({"results": results})
}

/// Download options: quantization, file name and size of each, and whether it fits into this many bytes of memory.
pub fn download_options(repository: &str, files: &[(Option<String>, String, u64)], memory: u64) -> Value {
    let recommended = files
        .iter()
        .position(|(quantization, _, size)| *size <= memory && quantization.as_deref() == Some("Q4_K_M"))
        .or_else(|| files.iter().position(|(_, _, size)| *size <= memory));
    let results: Vec<Value> = files
        .iter()
        .enumerate()
        .map(|(at, (quantization, name, size))| {
            let path = format!("{repository}/{name}");
            let mut option = json!({
                "name": name,
                "sizeBytes": size,
                "fitEstimation": if *size <= memory { "fitWithoutGPU" } else { "willNotFit" },
                "downloadIdentifier": path,
                "indexedModelIdentifier": path,
                "compatibilityType": "gguf",
            });
            if let Some(quantization) = quantization {
                option["quantization"] = quantization.as_str().into();
            }
            if recommended == Some(at) {
                option["recommended"] = true.into();
            }
            option
        })
        .collect();
    json!({"results": results})
}
